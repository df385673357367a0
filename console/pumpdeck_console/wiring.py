"""The one place that picks adapters: a workspace folder in, an object with everything an operation may ask for out.

Nothing is opened before it is asked for; heavy libraries are imported by the property that needs them.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pumpdeck_fleet.core.clock import Clock, SystemClock
from pumpdeck_fleet.core.errors import NotFoundError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.ports import FileSystem, RpcChannel

if TYPE_CHECKING:
    from pumpdeck_console.config import Policies, Settings
    from pumpdeck_console.credentials import AskPassphrase, Credentials, FoundKey, KeyPlaces
    from pumpdeck_console.recipient_keys import RecipientKeys
    from pumpdeck_fleet.core.inventory import Device, Fleet
    from pumpdeck_fleet.store import Store
    from pumpdeck_fleet.store.artifacts import ArtifactStore
    from pumpdeck_packaging.downgrade_shelf import DowngradeShelf
    from pumpdeck_packaging.trust_repository import SiteTrust

WORKSPACE_ENV = "PUMPDECK_WORKSPACE"
FLEET_FILE = "fleet.toml"
STORE_FILE = "pumpdeck.db"
SETTINGS_FILE = "settings.toml"


def workspace_path(path: Path | None) -> Path:
    """The folder that a call means: the one given, else `PUMPDECK_WORKSPACE`, else the platform's data folder."""
    if path is not None:
        return path
    if os.environ.get(WORKSPACE_ENV):
        return Path(os.environ[WORKSPACE_ENV])
    import platformdirs  # deferred: most calls name the folder

    return Path(platformdirs.user_data_dir("pumpdeck", appauthor=False))


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """What a call says about private keys: files by key name, plain files allowed, and whom to ask for a passphrase."""

    key_files: Mapping[str, Path] = field(default_factory=dict)
    insecure_storage: bool = False
    ask_passphrase: AskPassphrase | None = None


def this_clock() -> Clock:
    """The clock of this computer, for what needs no workspace."""
    return SystemClock()


def open_workspace(
    path: Path | None = None,
    *,
    clock: Clock | None = None,
    fs: FileSystem | None = None,
    keys: KeyOptions | None = None,
) -> Workspace:
    """The workspace at `path`, or at the place `workspace_path` finds.

    Raises:
        NotFoundError: there is no workspace.
    """
    root = workspace_path(path)
    if not (root / FLEET_FILE).is_file():
        raise NotFoundError("is not a workspace", str(root), hint=f"make one with: pumpdeck -w {root} init")
    return Workspace(root.resolve(), clock or SystemClock(), fs or RealFileSystem(), keys=keys)


class Workspace:
    """Everything that belongs to one folder. One thread at a time; `reader()` gives another thread its own."""

    def __init__(
        self,
        root: Path,
        clock: Clock,
        fs: FileSystem,
        *,
        read_only: bool = False,
        keys: KeyOptions | None = None,
    ) -> None:
        self.root = root
        self.clock = clock
        self.fs = fs
        self.read_only = read_only
        self.keys = keys or KeyOptions()

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

    @cached_property
    def key_folder(self) -> Path:
        """Where this person's key files for this workspace lie: never inside the workspace."""
        if self.settings.keys.folder:
            # A relative one is seen from the workspace, so that both may be moved or copied together.
            return (self.root / Path(self.settings.keys.folder).expanduser()).resolve()
        import platformdirs  # deferred: only what signs needs a key

        return Path(platformdirs.user_config_dir("pumpdeck", appauthor=False)) / "keys" / self.store.lives.key_owner

    def forget_settings(self) -> None:
        """Read `settings.toml` again at the next use, and what follows from it."""
        for name in ("settings", "key_folder", "key_places", "credentials", "recipient_keys", "person", "connect"):
            self.__dict__.pop(name, None)

    def forget_fleet(self) -> None:
        """Read the inventory again at the next use."""
        for name in ("fleet", "connect"):
            self.__dict__.pop(name, None)

    @cached_property
    def credentials(self) -> Credentials:
        """Finds private keys; asks for a passphrase only when somebody sits there."""
        from pumpdeck_console.credentials import Credentials  # deferred: cryptography

        return Credentials(self.key_places, self.fs, os.environ, self.keys.ask_passphrase)

    @cached_property
    def recipient_keys(self) -> RecipientKeys:
        """Finds the private keys that open encrypted returns."""
        from pumpdeck_console.recipient_keys import RecipientKeys  # deferred: cryptography

        return RecipientKeys(self.key_places, self.fs, os.environ, self.keys.ask_passphrase)

    @cached_property
    def key_places(self) -> KeyPlaces:
        """Where private keys are looked for."""
        from pumpdeck_console.credentials import KeyPlaces  # deferred: cryptography

        return KeyPlaces(
            folder=self.key_folder,
            owner=self.store.lives.key_owner,
            key_files=self.keys.key_files,
            insecure_storage=self.keys.insecure_storage or self.settings.keys.insecure_storage,
            workspace=self.root,
        )

    def trust(self, site: str) -> SiteTrust:
        """The trust repository of a site, founded or not."""
        from pumpdeck_packaging.trust_repository import (
            SiteTrust,  # deferred: TUF
            TrustSettings,
        )

        restored = self.store.lives.restored
        settings = TrustSettings(least_version=restored.least_versions.get(site, 0) if restored else 0)
        return SiteTrust(self.trust_path / self.fleet.site(site).id, self.fs, self.clock, settings)

    def downgrades(self, site: str) -> DowngradeShelf:
        """The downgrade words of a site that wait for their assignment."""
        from pumpdeck_packaging.downgrade_shelf import DowngradeShelf  # deferred: TUF

        return DowngradeShelf(self.trust_path / self.fleet.site(site).id, self.fs, self.clock)

    def signing_key(self, role: str, site: str) -> FoundKey:
        """This person's key of that role (`release`, `deploy`) at that site.

        Raises:
            NotFoundError: no place has one, or the site has no trust repository.
            TrustError: the key found is not one of the role's.
        """
        wanted = {key.key_id for key in self.trust(site).status().keys if key.role == role}
        return self.find_key(role, wanted)

    def find_key(self, role: str, wanted: Collection[str]) -> FoundKey:
        """One of these keys, under the name of the role or, while keys change, `<role>-2` and so on.

        Raises:
            As `Credentials.find`.
        """
        for name in self.credentials.other_names(role):
            with suppress(NotFoundError):
                return self.credentials.find(name, wanted)
        return self.credentials.find(role, wanted)

    @cached_property
    def connect(self) -> Callable[[Device], RpcChannel]:
        """Opens a conversation with a device's agent over SSH; may be called from many threads."""
        from pumpdeck_fleet.transports.ssh import SshConnector, SshLogin, SshTimeouts  # deferred: paramiko

        login, policy = self.credentials.login(), self.policies.transport
        connector = SshConnector(
            SshLogin(key_text=login.key_text, use_agent=login.use_agent),
            SshTimeouts(connect_s=policy.connect_timeout_s, answer_s=policy.answer_timeout_s),
        )
        host_keys = {name: row.host_key for name, row in self.store.devices.identities().items()}

        def open_channel(device: Device) -> RpcChannel:
            # Enrolment pins the host key; a key in the inventory that a person wrote stands above it.
            pinned = device.host_key or host_keys.get(device.id, "")
            return connector(dataclasses.replace(device, host_key=pinned))

        return open_channel

    def reader(self) -> Workspace:
        """The same workspace with its own read-only store, for one other thread; files are read again."""
        return Workspace(self.root, self.clock, self.fs, read_only=True)

    def twin(self) -> Workspace:
        """The same workspace, inventory and policies with its own store, for one other thread that writes."""
        twin = Workspace(self.root, self.clock, self.fs, keys=self.keys)
        for name in ("settings", "policies", "fleet"):
            twin.__dict__[name] = getattr(self, name)
        return twin

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
