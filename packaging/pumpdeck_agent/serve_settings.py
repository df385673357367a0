"""What a site may set about `serve`: `serve.json` beside `agent.json`, written on site. Absent: defaults."""

from __future__ import annotations

import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

from pumpdeck_agent.config import Layout
from pumpdeck_agent.local_schedule import RetrainRules
from pumpdeck_agent.mqtt_settings import MqttSettings
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, NotFoundError, RefusedError
from pumpdeck_fleet.core.ports import FileSystem

SETTINGS_FORMAT = 1
DAY_S = 86_400.0
_MAX_BYTES = 64 * 1024
_TOKEN_MIN_CHARACTERS = 32
_TOKEN_MAX_BYTES = 1024
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """Where the HTTP endpoint listens. Anything but loopback needs `token_file`, a file of at least 32 characters.

    `port` 0 takes any free one. `is_on` false: no endpoint at all.
    """

    host: str = "127.0.0.1"
    port: int = 8377
    token_file: str = ""
    is_on: bool = True

    @property
    def is_loopback(self) -> bool:
        """True when only this computer can reach it."""
        return self.host in _LOOPBACK


@dataclass(frozen=True, slots=True)
class AlarmSettings:
    """Where alarms are announced on site. `file`: under the root folder, or an absolute path; `hook`: a program and its first
    arguments; `syslog`: a socket such as `/dev/log`, or `host:port` for UDP. Empty: not so.
    """

    file: str = "site-alarms.json"
    hook: tuple[str, ...] = ()
    syslog: str = ""
    repeat_s: float = 300.0
    heartbeat_s: float = 10.0

    def __post_init__(self) -> None:
        if not (1 <= self.repeat_s <= DAY_S and 0.1 <= self.heartbeat_s <= DAY_S):
            raise FormatError("repeat_s must be 1 s to a day, heartbeat_s 0.1 s to a day", "serve.json.alarms")
        if self.syslog and not self.syslog.startswith("/") and not self.syslog.rpartition(":")[2].isdigit():
            raise FormatError("is neither a path nor host:port", "serve.json.alarms.syslog", found=self.syslog)


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """The whole file. `save_every_s`: rows that came by HTTP are on the disk after so long; an alarm is at once."""

    format: int = SETTINGS_FORMAT
    endpoint: EndpointSettings = EndpointSettings()
    alarms: AlarmSettings = AlarmSettings()
    retrain: RetrainRules = field(default_factory=RetrainRules)
    mqtt: MqttSettings = field(default_factory=MqttSettings)
    save_every_s: float = 5.0

    def __post_init__(self) -> None:
        if self.format != SETTINGS_FORMAT:
            raise FormatError("has an unknown format", "serve.json", expected=SETTINGS_FORMAT, found=self.format)
        if not 0 < self.save_every_s <= 3600:
            raise FormatError("must be within 0 and 3600", "serve.json.save_every_s", found=self.save_every_s)
        if not 0 <= self.endpoint.port <= 65535:
            raise FormatError("is no port", "serve.json.endpoint.port", found=self.endpoint.port)


def settings_path(layout: Layout) -> Path:
    """Where the settings stand."""
    return layout.root / "serve.json"


def read_settings(fs: FileSystem, layout: Layout) -> ServeSettings:
    """The settings of this device. Raises: FormatError, TooLargeError."""
    try:
        data = fs.read_bytes(settings_path(layout), _MAX_BYTES)
    except FileNotFoundError:
        return ServeSettings()
    return canonical.decode(ServeSettings, data, "serve.json", max_bytes=_MAX_BYTES)


def read_token(fs: FileSystem, settings: EndpointSettings) -> str:
    """The token that requests must carry; empty: none needed, for on loopback only this computer can ask.

    Raises:
        RefusedError: not loopback and no token, too short a one, or one that others may read.
        NotFoundError: no such file.
    """
    if not settings.token_file:
        if settings.is_loopback:
            return ""
        hint = f"set endpoint.token_file to a file of at least {_TOKEN_MIN_CHARACTERS} characters"
        raise RefusedError("is reachable by others and has no token", f"endpoint {settings.host}", hint=hint)
    path = Path(settings.token_file)
    try:
        token = fs.read_bytes(path, _TOKEN_MAX_BYTES).decode("ascii", "replace").strip()
    except FileNotFoundError as error:
        raise NotFoundError("no such token file", str(path)) from error
    if len(token) < _TOKEN_MIN_CHARACTERS:
        raise RefusedError("is too short", str(path), expected=f"at least {_TOKEN_MIN_CHARACTERS} characters", found=len(token))
    if sys.platform != "win32" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise RefusedError("may be read by others", str(path), hint=f"chmod 600 {path}")
    return token
