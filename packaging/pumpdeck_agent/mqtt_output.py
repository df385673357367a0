"""Alarms as MQTT messages: retained under `<topic>/alarm/<pump>`, so that whoever subscribes later sees what
stands; a heartbeat beside.

When the device is gone without a word the broker itself says `lost` on the heartbeat's topic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from pumpdeck_agent.alarm_outputs import Standing, plain
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import PumpdeckError


class Publisher(Protocol):
    """Where messages go."""

    @property
    def is_up(self) -> bool:
        """True while there is a connection."""
        ...

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, is_retained: bool = False) -> None:
        """Hand one over. Raises: PumpdeckError."""
        ...


class MqttOutput:
    """One way out of the announcer. `find`: the connection, None while there is none yet."""

    name = "mqtt"

    def __init__(self, topic: str, find: Callable[[], Publisher | None]) -> None:
        self._topic = topic
        self._find = find

    def say(self, standing: Standing) -> None:
        """An announcement at QoS 1, kept until the broker is back; a heartbeat at QoS 0, for an old one is worth nothing."""
        link = self._find()
        if link is None:
            raise OSError("no connection was set up")
        payload = canonical.encode(plain(standing))
        try:
            if standing.announcement is None:
                if link.is_up:
                    link.publish(heartbeat_topic(self._topic), payload, qos=0, is_retained=True)
            else:
                link.publish(f"{self._topic}/alarm/{standing.announcement.alarm.pump}", payload, qos=1, is_retained=True)
        except PumpdeckError as error:
            raise OSError(str(error)) from error


def heartbeat_topic(topic: str) -> str:
    """Where the heartbeat stands."""
    return f"{topic}/heartbeat"


def last_word(topic: str, device: str, word: str) -> tuple[str, bytes]:
    """Topic and payload of what is said when no more heartbeats follow: `lost` by the broker, `stopped` by the device."""
    return heartbeat_topic(topic), canonical.encode({"device": device, "word": word})
