"""MQTT for `serve`: the connection, the rows that come by it and the alarms that leave by it. paho-mqtt is loaded here only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from pumpdeck_agent.alarm_outputs import Output
from pumpdeck_agent.config import AgentConfig, AgentLimits, Layout
from pumpdeck_agent.mqtt_output import MqttOutput, Publisher, last_word
from pumpdeck_agent.mqtt_settings import MqttSettings
from pumpdeck_agent.mqtt_source import MqttSource, SourceWorld
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.site_alarms import Acknowledgement, request_acknowledge
from pumpdeck_agent.spool import Spool
from pumpdeck_fleet.core.errors import RefusedError


class SiteMqtt:
    """Everything that a device does with its site's broker. Nothing is loaded or connected before `start`."""

    def __init__(
        self,
        settings: MqttSettings,
        config: AgentConfig,
        world: tuple[Platform, Layout],
        wake: Callable[[], None],
        report: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._config = config
        self._platform, self._layout = world
        self._wake = wake
        self._report = report
        spool = Spool(self._platform.fs, self._layout, AgentLimits())
        self._source = MqttSource(
            settings, config, SourceWorld(spool, self._platform.clock, wake, self._acknowledge, report)
        )
        self._publisher: Publisher | None = None
        self._close_link: Callable[[tuple[str, bytes] | None], None] | None = None
        self._is_up: Callable[[], bool] = lambda: False

    def outputs(self) -> list[Output]:
        """The alarm output, where a topic for it is set."""
        return [MqttOutput(self._settings.alarms, lambda: self._publisher)] if self._settings.alarms else []

    def start(self) -> None:
        """Connect in the background, when a broker is set.

        Raises:
            RefusedError: paho-mqtt is not installed, or a certificate or the password cannot be used; scoring goes on without.
        """
        settings = self._settings
        if not settings.host:
            return
        if not settings.ca_file and "ssl" not in sys.modules:
            # As in light_hashes: paho is written for the absence of TLS, and its libraries take most of what MQTT costs.
            sys.modules["ssl"] = None  # type: ignore[assignment]
        try:
            # Deferred: what a device without a broker does not spend.
            from pumpdeck_agent.mqtt_link import MqttLink
        except ImportError as error:
            raise RefusedError("needs paho-mqtt, which is not installed", "serve.json.mqtt", hint="install it") from error
        link = MqttLink(settings, self._config.device, self._source.receive, self._report)
        self._publisher, self._close_link, self._is_up = link, link.close, lambda: link.is_up
        self._source.start(link)
        filters = [*settings.filters] + ([settings.acknowledge] if settings.acknowledge else [])
        link.open(filters, last_word(settings.alarms, self._config.device, "lost") if settings.alarms else None)

    def close(self) -> None:
        """Write and acknowledge what came, say that no more heartbeats follow, end."""
        if self._close_link is None:
            return
        self._source.close()
        settings = self._settings
        self._close_link(last_word(settings.alarms, self._config.device, "stopped") if settings.alarms else None)

    def figures(self) -> Mapping[str, int]:
        """For `/metrics`: whether there is a connection, and what came by it. Empty without a broker."""
        if self._close_link is None:
            return {}
        names = ("rows", "repeated", "refused", "acknowledgements")
        counts = self._source.counts
        return {"connected": int(self._is_up()), **{name: counts.get(name, 0) for name in names}}

    def _acknowledge(self, seen: Acknowledgement) -> None:
        request_acknowledge(self._platform.fs, self._layout, seen)
        self._wake()
