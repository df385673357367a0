"""The udev rule and the systemd unit that serve a stick when it is plugged in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pumpdeck_agent.stick_arrival import FILE_SYSTEMS
from pumpdeck_fleet.core.errors import UsageError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.ports import FileSystem

RULE_FILE = "99-pumpdeck-stick.rules"
UNIT_FILE = "pumpdeck-stick@.service"

_RULE = """\
# A partition with a file system on a USB stick or card reader: its service mounts it and looks whether it is ours.
ACTION=="add", SUBSYSTEM=="block", ENV{{ID_BUS}}=="usb", ENV{{ID_FS_USAGE}}=="filesystem", ENV{{ID_FS_TYPE}}=="{types}", \
TAG+="systemd", ENV{{SYSTEMD_WANTS}}+="pumpdeck-stick@%k.service"
"""
_UNIT = """\
[Unit]
Description=Take in what the stick %I brings for the pumps
BindsTo=dev-%i.device
After=dev-%i.device

[Service]
Type=oneshot
ExecStart={words} stick-arrived --root {root} --user {user} --device /dev/%I
TimeoutStartSec=35min
Nice=10
RuntimeDirectory=pumpdeck-stick
RuntimeDirectoryMode=0711
# Root to mount, and for nothing else: whoever reads the stick is a child without any of this.
CapabilityBoundingSet=CAP_SYS_ADMIN CAP_SETUID CAP_SETGID CAP_KILL
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={root}
ProtectHome=yes
PrivateTmp=yes
PrivateNetwork=yes
ProtectKernelTunables=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
MemoryMax=512M
TasksMax=32
"""


@dataclass(frozen=True, slots=True)
class StickService:
    """For which agent the files are written: the words that start it, its root folder and its user."""

    words: Sequence[str]
    root: Path
    user: str


def rule_text() -> str:
    """The udev rule."""
    return _RULE.format(types=FILE_SYSTEMS.replace(",", "|"))


def unit_text(service: StickService) -> str:
    """The systemd unit.

    Raises:
        UsageError: a path holds what systemd reads otherwise.
    """
    for word in (*service.words, str(service.root), service.user):
        if not word or any(sign in word for sign in " \t\n\"'\\%$;"):
            raise UsageError("cannot stand in a unit", repr(word), expected="no blank, quote, backslash, %, $ or ;")
    return _UNIT.format(words=" ".join(service.words), root=service.root, user=service.user)


def write_units(fs: FileSystem, folder: Path, service: StickService) -> dict[str, str]:
    """Write both files below `folder` (`/` on the device itself); their paths by name.

    Raises:
        UsageError: as `unit_text`.
    """
    texts = {
        folder / "etc/udev/rules.d" / RULE_FILE: rule_text(),
        folder / "etc/systemd/system" / UNIT_FILE: unit_text(service),
    }
    for path, text in texts.items():
        fs.mkdir(path.parent)
        replace_file(fs, path, text.encode("utf-8"))
    return {path.name: str(path) for path in texts}
