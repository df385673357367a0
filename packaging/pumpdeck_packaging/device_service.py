"""What a device's system is told about the agent: the service unit, and the line that lets a console in."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

UNIT_NAME = "pumpdeck-agent.service"


@dataclass(frozen=True, slots=True)
class ServicePlace:
    """Where the agent stands on the device, as which user it runs, with which Python."""

    root: str
    user: str
    python: str

    def command(self, *words: str) -> str:
        """A command of the agent through its launcher, for a shell."""
        return shlex.join([self.python, "-s", f"{self.root}/agent/launch.py", *words, "--root", self.root])


def service_unit(place: ServicePlace, bounds: Sequence[str]) -> str:
    """The systemd unit. `bounds` are `MemoryMax=..` and `CPUQuota=..` of the device class (`device_settings`).

    The service may write to its own root folder and to nothing else; it can gain no rights, whatever a model or a parser does.
    `ProtectClock` is left out: it would also forbid to ask the kernel whether the clock is proven.
    """
    home = PurePosixPath(place.root)
    under_home = home.is_relative_to("/home") or home.is_relative_to("/root")
    lines = [
        "[Unit]",
        "Description=Pumpdeck agent: scores pumps offline",
        "After=local-fs.target",
        "",
        "[Service]",
        f"ExecStart={place.command('serve')}",
        f"User={place.user}",
        "Restart=always",
        "RestartSec=5",
        "Environment=ORT_DISABLE_TELEMETRY=1 OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1",
        *bounds,
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        *([] if under_home else ["ProtectHome=yes"]),
        f"ReadWritePaths={place.root}",
        "PrivateTmp=yes",
        "PrivateDevices=yes",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectKernelLogs=yes",
        "ProtectControlGroups=yes",
        "ProtectHostname=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "CapabilityBoundingSet=",
        "SystemCallArchitectures=native",
        "UMask=0077",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
        "",
    ]
    return "\n".join(lines)


def authorized_line(place: ServicePlace, public_key: str, comment: str) -> str:
    """The line of `authorized_keys`: this key may hold the RPC conversation and nothing else."""
    command = place.command("rpc").replace("\\", "\\\\").replace('"', '\\"')
    return f'restrict,command="{command}" {public_key} {comment}'.strip()
