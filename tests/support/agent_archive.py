"""The agent's zipapp as a real process that sees nothing but the archive and a folder of compiled libraries."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.transports.rpc_client import RpcClient

COMPILED = ("numpy", "onnxruntime", "cryptography", "_cffi_backend", "cffi", "google", "flatbuffers", "packaging", "pyrage")


def link_libraries(folder: Path) -> Path:
    """Links to the compiled libraries installed here, and to nothing of ours."""
    folder.mkdir(parents=True, exist_ok=True)
    for place in [Path(entry) for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))]:
        for name in sorted(path.name for path in place.iterdir()):
            if name.split("-")[0].split(".")[0] in COMPILED and not (folder / name).exists():
                (folder / name).symlink_to(place / name)
    return folder


class ArchiveAgent:
    """One archive on one device root. `python` is the interpreter's command line; by default ours, without site-packages."""

    def __init__(self, archive: Path, libraries: Path, root: Path, python: Sequence[str] = (sys.executable, "-S")) -> None:
        self._command = [*python, str(archive)]
        self._environment = {"PATH": os.environ["PATH"], "PUMPDECK_AGENT_LIBRARIES": str(libraries)}
        self._root = root
        self.stderr = b""

    def run(self, *words: str, timeout_s: float = 120.0) -> dict[str, Any]:
        """One subcommand; its answer."""
        command = [*self._command, *words, "--root", str(self._root)]
        done = subprocess.run(command, capture_output=True, env=self._environment, check=False, timeout=timeout_s)
        self.stderr = done.stderr
        assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
        return dict(canonical.parse_json(done.stdout.strip() or b"{}", words[0], max_bytes=1 << 20))

    def channel(self) -> RpcClient:
        """A conversation with a new `rpc` process; `close` ends it."""
        process = subprocess.Popen(
            [*self._command, "rpc", "--root", str(self._root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._environment,
            bufsize=0,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        sink, source = process.stdin, process.stdout

        def send(data: bytes) -> None:
            view = memoryview(data)
            while view:
                view = view[sink.write(view) or 0 :]

        def close() -> None:
            sink.close()
            process.wait(30)
            source.close()

        return RpcClient(send, source.read, close=close, name="archive")
