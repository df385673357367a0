"""The one place that picks adapters: a workspace folder in, an object with everything an operation may ask for out.

Nothing is opened before it is asked for; heavy libraries are imported by the property that needs them.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pumpdeck_fleet.core.clock import Clock, SystemClock
from pumpdeck_fleet.core.errors import NotFoundError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.ports import FileSystem

if TYPE_CHECKING:
    from pumpdeck_console.config import Policies, Settings
    from pumpdeck_fleet.core.inventory import Fleet
    from pumpdeck_fleet.store import Store
    from pumpdeck_fleet.store.artifacts import ArtifactStore

WORKSPACE_ENV = "PUMPDECK_WORKSPACE"
FLEET_FILE = "fleet.toml"
STORE_FILE = "pumpdeck.db"


def workspace_path(path: Path | None) -> Path:
    """The folder that a call means: the one given, else `PUMPDECK_WORKSPACE`, else the platform's data folder."""
    if path is not None:
        return path
    if os.environ.get(WORKSPACE_ENV):
        return Path(os.environ[WORKSPACE_ENV])
    import platformdirs  # deferred: most calls name the folder

    return Path(platformdirs.user_data_dir("pumpdeck", appauthor=False))


def open_workspace(path: Path | None = None, *, clock: Clock | None = None, fs: FileSystem | None = None) -> Workspace:
    """The workspace at `path`, or at the place `workspace_path` finds.

    Raises:
        NotFoundError: there is no workspace.
    """
    root = workspace_path(path)
    if not (root / FLEET_FILE).is_file():
        raise NotFoundError("is not a workspace", str(root), hint=f"make one with: pumpdeck -w {root} init")
    return Workspace(root.resolve(), clock or SystemClock(), fs or RealFileSystem())


class Workspace:
    """Everything that belongs to one folder. One thread at a time; `reader()` gives another thread its own."""

    def __init__(self, root: Path, clock: Clock, fs: FileSystem, *, read_only: bool = False) -> None:
        self.root = root
        self.clock = clock
        self.fs = fs
        self.read_only = read_only

    @property
    def artifacts_path(self) -> Path:
        return self.root / "artifacts"

    @property
    def pipelines_path(self) -> Path:
        return self.root / "pipelines"

    @property
    def trust_path(self) -> Path:
        return self.root / "trust"

    @cached_property
    def settings(self) -> Settings:
        from pumpdeck_console.config import load_settings  # deferred: TOML and msgspec

        return load_settings(self.root)

    @cached_property
    def policies(self) -> Policies:
        from pumpdeck_console.config import load_policies  # deferred: TOML and msgspec

        return load_policies(self.root)

    @cached_property
    def fleet(self) -> Fleet:
        from pumpdeck_fleet.services.inventory_file import load_fleet  # deferred: TOML and msgspec

        return load_fleet(self.root)

    @cached_property
    def store(self) -> Store:
        from pumpdeck_fleet.store import Store  # deferred: SQLite

        return Store.open(self.root / STORE_FILE, self.clock, create=not self.read_only, read_only=self.read_only)

    @cached_property
    def artifacts(self) -> ArtifactStore:
        from pumpdeck_fleet.store.artifacts import ArtifactStore  # deferred with the store

        return ArtifactStore(self.artifacts_path, self.fs)

    @cached_property
    def person(self) -> str:
        """The name of who sits here: `settings.toml`, else the user of the operating system."""
        return self.settings.person or _login_name()

    @property
    def actor(self) -> str:
        """The pseudonym under which this person stands in the audit chain; made at the first use."""
        with self.store.atomic() as store:
            return store.persons.actor_for(self.person)

    def reader(self) -> Workspace:
        """The same workspace with its own read-only store, for one other thread."""
        return Workspace(self.root, self.clock, self.fs, read_only=True)

    def close(self) -> None:
        """Close the store if it was opened."""
        store = self.__dict__.pop("store", None)
        if store is not None:
            store.close()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _login_name() -> str:
    import getpass  # deferred: only what writes needs a name

    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        # A container without a password entry, or Windows without USERNAME.
        return "unknown"
