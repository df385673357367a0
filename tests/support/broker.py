"""A real Mosquitto on a loopback port, with a configuration of its own; it can be killed and started again."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import time
from pathlib import Path

from support.sshd import free_port

START_S = 60.0


def why_no_broker() -> str:
    """Why no broker can be started here; empty when one can."""
    if importlib.util.find_spec("paho") is None:
        return "paho-mqtt is not installed (extra mqtt)"
    return "" if _program() else "no mosquitto on this machine (install mosquitto)"


def _program() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


class Broker:
    """The broker. Sessions and retained messages survive `restart` unless `is_forgetful`."""

    def __init__(self, folder: Path, *extra: str, is_forgetful: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", "log_dest stderr", "user root", *(extra or ("allow_anonymous true",))]
        if not is_forgetful:
            lines += ["persistence true", f"persistence_location {folder}/", "autosave_on_changes true", "autosave_interval 1"]
        self._config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it listens."""
        program = _program()
        assert program is not None
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen([program, "-c", str(self._config)], stderr=log, stdout=log)
        log.close()
        deadline = time.monotonic() + START_S
        while b" running" not in (self.folder / "log").read_bytes().rpartition(b"terminating")[2]:
            assert self._process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, "mosquitto did not start"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in order: what it persists is written."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None
