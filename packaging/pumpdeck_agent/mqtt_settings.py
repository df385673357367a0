"""What a site may set about MQTT: the broker, which topics bring rows of which pump, and where alarms are published."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pumpdeck_fleet.core.errors import FormatError

TLS_PORT = 8883
PLAIN_PORT = 1883
_WHERE = "serve.json.mqtt"
_TOPIC_MAX_CHARACTERS = 256
_NAMED_LEVELS = ("{pump}", "{channel}")
_LEAST_ROW_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class RowTopic:
    """One topic that brings rows as JSON objects.

    topic: a filter, `+` and `#` allowed. pump: whose rows; empty: the message says it in its field `pump`. time: the field that
    holds the row's time, RFC 3339 or a number in `time_unit`; empty: the time of arrival, by the device's clock. channels: field
    to channel; empty: every other field is a channel of that name.
    """

    topic: str
    pump: str = ""
    time: str = "time"
    time_unit: str = "ms"
    channels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_filter(self.topic, f"{_WHERE}.rows.topic")
        if self.time_unit not in ("ms", "s"):
            raise FormatError("is no unit of time", f"{_WHERE}.rows.time_unit", expected="ms or s", found=self.time_unit)
        if len(set(self.channels.values())) != len(self.channels):
            raise FormatError("names a channel twice", f"{_WHERE}.rows.channels", found=self.topic)


@dataclass(frozen=True, slots=True)
class ValueTopic:
    """Topics that bring one plain number each.

    topic: levels by `/`; a level `{pump}` or `{channel}` says so, `+` is any one level. pump, channel: where the topic does not
    say it. channels: what the topic calls a channel to its name; empty: by the name it has. value: the number is this field of a
    JSON object; empty: the whole message is the number.
    """

    topic: str
    pump: str = ""
    channel: str = ""
    channels: Mapping[str, str] = field(default_factory=dict)
    value: str = ""

    def __post_init__(self) -> None:
        where = f"{_WHERE}.values"
        check_filter(self.filter, f"{where}.topic")
        levels = self.topic.split("/")
        for name, said in (("pump", self.pump), ("channel", self.channel)):
            if levels.count(f"{{{name}}}") + bool(said) != 1:
                expected = f"a level {{{name}}} in the topic, or {name}"
                raise FormatError(f"must say its {name} once", where, expected=expected, found=self.topic[:80])
        if len(set(self.channels.values())) != len(self.channels):
            raise FormatError("names a channel twice", f"{where}.channels", found=self.topic[:80])

    @property
    def filter(self) -> str:
        """What the broker is asked for."""
        return "/".join("+" if level in _NAMED_LEVELS else level for level in self.topic.split("/"))

    def parts_of(self, topic: str) -> dict[str, str]:
        """What the levels of a matching topic say, by `pump` and `channel`."""
        pairs = zip(self.topic.split("/"), topic.split("/"), strict=False)
        return {level.strip("{}"): found for level, found in pairs if level in _NAMED_LEVELS}


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """The broker and what goes through it. `host` empty: no MQTT at all. `port` 0: 1883, with TLS 8883.

    client_id: the broker keeps what it has for this name while the device is away; empty: the device's id. user, password_file:
    the password is the file's first line, 0600. ca_file: speak TLS and believe these authorities; cert_file, key_file: the
    device's own certificate. alarms: topic under which alarms are published; acknowledge: topic on which people may say that they
    have seen one. Empty: not so. values: topics of plain numbers; of the last ones a row is made every `row_every_s`, in which a
    value older than `hold_s` is missing (0: three rows' time).
    """

    host: str = ""
    port: int = 0
    client_id: str = ""
    user: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    rows: tuple[RowTopic, ...] = ()
    values: tuple[ValueTopic, ...] = ()
    row_every_s: float = 60.0
    hold_s: float = 0.0
    alarms: str = ""
    acknowledge: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise FormatError("is no port", f"{_WHERE}.port", found=self.port)
        if (self.cert_file or self.key_file) and not self.ca_file:
            raise FormatError("a certificate needs TLS: set ca_file", _WHERE)
        if bool(self.cert_file) != bool(self.key_file):
            raise FormatError("cert_file and key_file go together", _WHERE)
        if self.password_file and not self.user:
            raise FormatError("a password needs a user", _WHERE)
        for name, topic in (("alarms", self.alarms), ("acknowledge", self.acknowledge)):
            if topic:
                check_filter(topic, f"{_WHERE}.{name}")
            if "+" in topic or "#" in topic:
                raise FormatError("must be one topic, not a filter", f"{_WHERE}.{name}", found=topic)
        if not _LEAST_ROW_EVERY_S <= self.row_every_s <= 86_400 or not 0 <= self.hold_s <= 30 * 86_400:
            expected, where = f"{_LEAST_ROW_EVERY_S} to 86400 s, hold_s 0 to 30 days", f"{_WHERE}.row_every_s"
            raise FormatError("makes rows too often or too seldom", where, expected=expected, found=self.row_every_s)
        if len(set(self.filters)) != len(self.filters):
            raise FormatError("has a topic twice", f"{_WHERE}.rows and values")

    @property
    def filters(self) -> tuple[str, ...]:
        """Every filter that brings rows or values."""
        return (*(one.topic for one in self.rows), *(one.filter for one in self.values))

    @property
    def port_in_use(self) -> int:
        """The port to connect to."""
        return self.port or (TLS_PORT if self.ca_file else PLAIN_PORT)


def check_filter(topic: str, where: str) -> str:
    """The topic filter, when it is one (MQTT 3.1.1, 4.7). Raises: FormatError."""
    levels = topic.split("/")
    is_sound = 0 < len(topic) <= _TOPIC_MAX_CHARACTERS and topic.isprintable() and not topic.startswith("$")
    is_sound = is_sound and all(level == "+" or "+" not in level for level in levels)
    if not is_sound or any("#" in level for level in levels[:-1]) or ("#" in levels[-1] and levels[-1] != "#"):
        raise FormatError("is no topic filter", where, expected="levels by /, + for one level, # for the rest", found=topic[:80])
    return topic


def matches(pattern: str, topic: str) -> bool:
    """True when messages on this topic are meant by the filter."""
    wanted, found = pattern.split("/"), topic.split("/")
    for place, level in enumerate(wanted):
        if level == "#":
            return True
        if place >= len(found) or level not in ("+", found[place]):
            return False
    return len(wanted) == len(found)
