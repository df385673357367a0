"""How this agent starts itself anew: from the archive it runs from, else as a module of the installed package."""

from __future__ import annotations

import sys
from pathlib import Path

from pumpdeck_agent.archive_main import PART

MAIN = "pumpdeck_agent.main"


def own_command(module: str, python: str = "") -> list[str]:
    """The command line of a child process that runs `module` of the very agent that runs here."""
    python = python or sys.executable
    archive = own_archive()
    if archive is None:
        return [python, "-m", module]
    return [python, str(archive)] if module == MAIN else [python, str(archive), PART, module]


def own_archive() -> Path | None:
    """The zipapp this process runs from; None when it runs from the installed package."""
    # Loaders of an archive, and of its code cache, say where they read from; a plain file's loader has no such word.
    archive = getattr(globals().get("__loader__"), "archive", None)
    return Path(archive).absolute() if isinstance(archive, str) else None
