"""Rows from a site's MQTT broker, into the spool: a message is acknowledged once its rows are on the medium, never before.

So a cut, a kill or a full disk loses nothing that came at QoS 1: the broker sends it again, and a row that is there already is a
row once. What MQTT itself does not promise stands in docs/device.md.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pumpdeck_agent.config import AgentConfig
from pumpdeck_agent.mqtt_rows import Delivery, Message, Repeats, Row, RowReader
from pumpdeck_agent.mqtt_settings import MqttSettings
from pumpdeck_agent.mqtt_values import ValueRows
from pumpdeck_agent.site_alarms import Acknowledgement
from pumpdeck_agent.spool import Spool
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import Clock
from pumpdeck_fleet.core.errors import PumpdeckError

PREFIX = "mqtt-"
# A file holds what comes within so long, or until nothing has come for a moment: a broker may hold back until it is acknowledged.
_GATHER_S = 0.25
_PAUSE_S = 0.05
_GATHER_MAX = 500
# Beyond that the connection is not read, and the broker waits.
_QUEUED_MAX = 2000
_RETRY_S = 1.0
_APART_EVERY_S = 10.0
_APART_MAX_BYTES = 64 * 1024


class Link(Protocol):
    """What the source needs of a connection."""

    def acknowledge(self, delivery: Delivery) -> None:
        """The broker may forget this message."""
        ...


@dataclass(frozen=True, slots=True)
class SourceWorld:
    """What the source works with. `wake`: called when a file is in the spool; `acknowledge`: somebody has seen an alarm."""

    spool: Spool
    clock: Clock
    wake: Callable[[], None]
    acknowledge: Callable[[Acknowledgement], None]
    report: Callable[[str], None]


class MqttSource:
    """Takes deliveries in one thread, writes spool files in its own. `counts`: rows, repeats, messages refused, so far."""

    def __init__(self, settings: MqttSettings, config: AgentConfig, world: SourceWorld) -> None:
        self._settings = settings
        self._world = world
        pumps = {pump.tag.lower(): pump.tag for pump in config.pumps}
        self._reader = RowReader(settings.rows, lambda tag: pumps.get(tag.lower()))
        self._values = ValueRows(settings, lambda tag: pumps.get(tag.lower()))
        self._repeats = Repeats()
        self._waiting: queue.Queue[Delivery | None] = queue.Queue(_QUEUED_MAX)
        self._closing = threading.Event()
        self._counts: Counter[str] = Counter()
        self._apart_at: dict[str, float] = {}
        self._newest = self._newest_file()
        self._said = ""
        self._thread = threading.Thread(target=self._work, name="mqtt-rows", daemon=True)

    @property
    def counts(self) -> Mapping[str, int]:
        """How many `rows`, `repeated` rows, `refused` messages and `acknowledgements` there were."""
        return dict(self._counts)

    def start(self, link: Link) -> None:
        """Begin to write; what was written is acknowledged on this connection."""
        self._link = link
        self._thread.start()

    def receive(self, delivery: Delivery) -> None:
        """Take one delivery. Blocks while too much waits."""
        while not self._closing.is_set():
            try:
                self._waiting.put(delivery, timeout=0.2)
                return
            except queue.Full:
                continue

    def close(self, limit_s: float = 5.0) -> None:
        """Write what is here, then end. What is not written was not acknowledged, and comes again."""
        self._closing.set()
        self._thread.join(limit_s)

    def _work(self) -> None:
        while not (self._closing.is_set() and self._waiting.empty()):
            batch = self._gather()
            due = self._values.due(self._world.clock.now_ms())
            if batch or due:
                self._keep(batch, due)

    def _gather(self) -> list[Delivery]:
        batch: list[Delivery] = []
        until = time.monotonic() + _GATHER_S
        while len(batch) < _GATHER_MAX and (not batch or time.monotonic() < until):
            try:
                found = self._waiting.get(timeout=_PAUSE_S if batch else 0.2)
            except queue.Empty:
                break
            if found is not None:
                batch.append(found)
        return batch

    def _keep(self, batch: list[Delivery], due: list[Row]) -> None:
        """Write these rows and those of the batch, acknowledge it. While the disk takes nothing, try again: nothing else is read
        meanwhile.
        """
        fresh = due + [row for delivery in batch for row in self._rows(delivery)]
        name = self._next_name()
        while fresh:
            try:
                self._world.spool.put(name, b"".join(row.line() for row in fresh))
                break
            except OSError as error:
                self._say(f"mqtt: rows cannot be written ({error}); tried again")
                if self._closing.wait(_RETRY_S):
                    self._repeats.forget(fresh)
                    return
        for delivery in batch:
            self._link.acknowledge(delivery)
        self._counts["rows"] += len(fresh)
        if fresh:
            self._world.wake()

    def _rows(self, delivery: Delivery) -> list[Row]:
        try:
            if self._settings.acknowledge and delivery.topic == self._settings.acknowledge:
                self._acknowledge_alarm(delivery)
                return []
            now_ms = self._world.clock.now_ms()
            message = Message(delivery.topic, delivery.payload, now_ms, delivery.is_retained)
            if self._values.take(message):
                return []
            found = self._reader.read(message)
        except PumpdeckError as error:
            self._refuse(delivery, error)
            return []
        fresh = [row for row in found if self._repeats.is_new(row)]
        self._counts["repeated"] += len(found) - len(fresh)
        return fresh

    def _acknowledge_alarm(self, delivery: Delivery) -> None:
        if delivery.is_retained:
            # It was meant for an alarm of the past.
            return
        self._world.acknowledge(canonical.decode(Acknowledgement, delivery.payload, delivery.topic[:80], max_bytes=4096))
        self._counts["acknowledgements"] += 1

    def _refuse(self, delivery: Delivery, error: PumpdeckError) -> None:
        """Count it, and keep it apart for people: one of a topic in ten seconds, so that a flood does not wear out the disk."""
        self._counts["refused"] += 1
        self._say(f"mqtt: a message on {error}")
        last = self._apart_at.get(delivery.topic)
        if last is not None and time.monotonic() - last < _APART_EVERY_S:
            return
        if len(self._apart_at) > _QUEUED_MAX:
            self._apart_at.clear()
        self._apart_at[delivery.topic] = time.monotonic()
        said = {"topic": delivery.topic[:256], "error": str(error), "at_ms": self._world.clock.now_ms()}
        name = self._next_name().removesuffix(".jsonl") + ".txt"
        try:
            self._world.spool.keep_apart(name, canonical.encode(said) + b"\n" + delivery.payload[:_APART_MAX_BYTES])
        except OSError as failure:
            self._say(f"mqtt: a refused message cannot be kept ({failure})")

    def _next_name(self) -> str:
        """Names rise, over restarts and a clock that is set back too: files are scored in order of name."""
        self._newest = max(self._newest + 1, self._world.clock.now_ms())
        return f"{PREFIX}{self._newest:015d}.jsonl"

    def _newest_file(self) -> int:
        numbers = [name.removeprefix(PREFIX).removesuffix(".jsonl") for name in self._world.spool.names()]
        return max((int(one) for one in numbers if one.isascii() and one.isdigit()), default=0)

    def _say(self, sentence: str) -> None:
        if sentence != self._said:
            self._said = sentence
            self._world.report(sentence)
