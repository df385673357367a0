"""Agents to upgrade to: this very one under another version, or broken on purpose."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

from pumpdeck_packaging.agent_release import agent_bytes, agent_version

RAISES = b"raise RuntimeError('broken on purpose')\n"
HANGS = b"import time\ntime.sleep(600)\n"
ENDS = b"import sys\nsys.exit(0)\n"
DIES = b"import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n"
_MARK = b"from __future__ import annotations\n"


def other_agent(version: str, members: Mapping[str, bytes] | None = None, prefix: Mapping[str, bytes] | None = None) -> bytes:
    """This agent under another version, with some members replaced, or with code before them (`prefix`)."""
    data = agent_bytes()
    old = agent_version(data)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename == "pumpdeck_agent/__init__.py":
                content = content.replace(f'"{old}"'.encode(), f'"{version}"'.encode())
            content = (members or {}).get(entry.filename, content)
            added = (prefix or {}).get(entry.filename, b"")
            target.writestr(entry, content.replace(_MARK, _MARK + added, 1) if added else content)
    return b"#!/usr/bin/env python3\n" + buffer.getvalue()


def breaks_in(word: str, code: bytes, version: str = "0.9.0") -> bytes:
    """An agent that passes every check and breaks once it is started as `word` (`rpc`, `serve`)."""
    inside = b"".join(b"    " + line + b"\n" for line in code.splitlines())
    prefix = b"import sys\nif " + repr(word).encode() + b" in sys.argv:\n" + inside
    return other_agent(version, prefix={"pumpdeck_agent/commands.py": prefix})
