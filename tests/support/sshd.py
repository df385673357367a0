"""A real OpenSSH server on a loopback port, with a configuration of its own, that runs the agent and nothing else."""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from pumpdeck_fleet.core.inventory import Device
from pumpdeck_fleet.transports.ssh import SshLogin
from pumpdeck_packaging.signing import generate_key

SSHD = Path("/usr/sbin/sshd")
START_S = 60.0


def why_no_sshd() -> str:
    """Why no server can be started here; empty when one can."""
    if sys.platform == "win32" or not SSHD.exists():
        return "no OpenSSH server on this machine (install openssh-server)"
    if os.geteuid() == 0:
        # The empty folder that the server's service would make; started by root, sshd insists on it.
        with contextlib.suppress(OSError):
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        if not Path("/run/sshd").is_dir():
            return "/run/sshd is missing and cannot be made: sshd started by root needs it"
    return ""


def agent_command(root: Path) -> str:
    """What the server runs, whatever the client asked for."""
    words = ["env", f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}", sys.executable, "-m", "pumpdeck_agent.main"]
    return shlex.join([*words, "rpc", "--root", str(root)])


class Sshd:
    """The server; one client key may log in as the user who runs the tests. Used as a context manager."""

    def __init__(self, folder: Path, command: str = "", extra: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.client_key, host_key = generate_key(), generate_key()
        self.host_key = host_key.openssh_public
        self.port = free_port()
        _write(folder / "host_key", host_key.openssh_pem())
        _write(folder / "authorized_keys", f"{self.client_key.openssh_public}\n".encode())
        lines = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {folder / 'host_key'}",
            f"AuthorizedKeysFile {folder / 'authorized_keys'}",
            f"PidFile {folder / 'pid'}",
            "UsePAM no",
            "StrictModes no",
            "PermitRootLogin prohibit-password",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            f"ForceCommand {command}" if command else "",
            extra,
        ]
        config = "\n".join(lines) + "\n"
        # Servers since 9.8 punish an address for failed logins; tests fail logins on purpose.
        if _understands(folder, config + "PerSourcePenalties no\n"):
            config += "PerSourcePenalties no\n"
        _write(folder / "sshd_config", config.encode())
        self._process: subprocess.Popen[bytes] | None = None
        self.log: list[str] = []

    def __enter__(self) -> Sshd:
        self._process = subprocess.Popen(
            [str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config")], stderr=subprocess.PIPE
        )
        listening = threading.Event()
        threading.Thread(target=self._read_log, args=(listening,), daemon=True).start()
        if not listening.wait(START_S):
            self.__exit__()
            raise RuntimeError("sshd did not start: " + "".join(self.log))
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)

    def device(self, name: str = "gannet-d1", **changes: object) -> Device:
        """The server as the inventory would describe it."""
        values = {
            "address": "127.0.0.1",
            "port": self.port,
            "user": getpass.getuser(),
            "host_key": self.host_key,
        } | changes
        return Device("gannet", name, "edge-x86", **values)  # type: ignore[arg-type]

    def login(self) -> SshLogin:
        """The key that may log in."""
        return SshLogin(key_text=self.client_key.openssh_pem().decode())

    def _read_log(self, listening: threading.Event) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.log.append(line.decode("utf-8", "replace"))
            if b"Server listening" in line:
                listening.set()


def free_port() -> int:
    """A loopback port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(0o600)


def _understands(folder: Path, config: str) -> bool:
    _write(folder / "probe_config", config.encode())
    done = subprocess.run([str(SSHD), "-t", "-f", str(folder / "probe_config")], capture_output=True, check=False)
    return done.returncode == 0


def wait_for(condition: object, seconds: float = 10.0) -> bool:
    """True once `condition()` holds; False after so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.02)
    return False
