"""One connection to a site's MQTT broker (3.1.1, paho). The only importer of paho-mqtt; `serve` loads it when a broker is set.

The session is persistent: what comes at QoS 1 while the device is away waits at the broker, as long as that keeps it. A message
is acknowledged when the caller says so, and only on the connection that brought it: on the next one its number may be another's.
"""

from __future__ import annotations

import stat
import sys
import threading
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from pumpdeck_agent.mqtt_rows import Delivery
from pumpdeck_agent.mqtt_settings import MqttSettings
from pumpdeck_fleet.core.errors import RefusedError, UnreachableError

_KEEPALIVE_S = 30
_FIRST_WAIT_S = 1
_LONGEST_WAIT_S = 60
_BROKEN_WAIT_S = 5.0
_SEND_LIMIT_S = 2.0
# Announcements that wait for a broker that is away; what no longer fits is said again by the next repeat.
_QUEUED_MAX = 256


class _NeverRaisedError(OSError):
    """Stands for errors of TLS where there is no TLS."""


if paho.ssl is None:
    # `serve` loads paho without ssl where no broker wants TLS. paho names ssl's errors in its `except` clauses even then, so a
    # reset or a message that comes in two halves would end its thread with an AttributeError.
    paho.ssl = types.SimpleNamespace(SSLWantReadError=_NeverRaisedError, SSLWantWriteError=_NeverRaisedError)


class _LastingClient(paho.Client):  # type: ignore[misc]
    """paho's client, whose thread does not end with an error: else rows would stop for ever, and nobody would be told.

    paho lets some errors of the network out of its loop: those of the call after a refused version, for one.
    `recover` is told the error and says whether to go on, with a new connection.
    """

    recover: Callable[[Exception], bool] | None = None

    def loop_forever(self, timeout: float = 1.0, retry_first_connection: bool = False) -> Any:
        while True:
            try:
                return super().loop_forever(timeout, retry_first_connection)
            except Exception as error:  # noqa: BLE001 - whatever it was, the rows of the next hour must come in
                if self.recover is None or not self.recover(error):
                    return paho.MQTT_ERR_UNKNOWN


class MqttLink:
    """The connection; it comes back by itself, waiting 1 s, 2 s, 4 s, .. a minute at most.

    `receive` is called in the connection's own thread: while it blocks nothing more comes in. `report` gets a sentence when the
    connection changes.
    """

    def __init__(
        self, settings: MqttSettings, client_id: str, receive: Callable[[Delivery], None], report: Callable[[str], None]
    ) -> None:
        self._settings = settings
        self._receive = receive
        self._report = report
        self._connection = 0
        self._is_up = threading.Event()
        self._is_closing = threading.Event()
        self._was_told = ""
        self._client = _LastingClient(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id or client_id,
            clean_session=False,
            protocol=paho.MQTTv311,
            manual_ack=True,
        )
        self._client.reconnect_delay_set(_FIRST_WAIT_S, _LONGEST_WAIT_S)
        self._client.max_queued_messages_set(_QUEUED_MAX)
        self._client.on_connect = self._on_connect
        self._client.on_connect_fail = self._on_connect_fail
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.recover = self._recover
        self._filters: Sequence[str] = ()
        self._log_in()

    @property
    def is_up(self) -> bool:
        """True while there is a connection."""
        return self._is_up.is_set()

    def open(self, filters: Sequence[str], will: tuple[str, bytes] | None = None) -> None:
        """Connect in the background and subscribe to these. `will`: what the broker says, retained, when the device is gone."""
        self._filters = tuple(filters)
        if will is not None:
            self._client.will_set(will[0], will[1], qos=1, retain=True)
        self._aim()
        self._client.loop_start()

    def wait_until_up(self, limit_s: float) -> bool:
        """True once there is a connection; False after so long."""
        return self._is_up.wait(limit_s)

    def acknowledge(self, delivery: Delivery) -> None:
        """The broker may forget this one. Does nothing when it came on an earlier connection: then it comes again."""
        if delivery.connection == self._connection:
            self._client.ack(delivery.number, delivery.qos)

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, is_retained: bool = False) -> None:
        """Hand it to the broker. At QoS 1 it is kept and sent when the broker is back.

        Raises:
            UnreachableError: the broker is away and too much waits for it already, or QoS 0 has nobody to go to.
        """
        found = self._client.publish(topic, payload, qos=qos, retain=is_retained)
        if found.rc == paho.MQTT_ERR_QUEUE_SIZE or (qos == 0 and found.rc != paho.MQTT_ERR_SUCCESS):
            raise UnreachableError(f"the broker did not take it ({paho.error_string(found.rc)})", self._settings.host)

    def close(self, last: tuple[str, bytes] | None = None) -> None:
        """Say a last word, when there is a connection, and end it."""
        self._is_closing.set()
        if last is not None and self.is_up:
            said = self._client.publish(last[0], last[1], qos=1, retain=True)
            try:
                said.wait_for_publish(_SEND_LIMIT_S)
            except (RuntimeError, ValueError):
                self._report("mqtt: the last word was not taken")
        self._client.disconnect()
        self._client.loop_stop()

    def _aim(self) -> None:
        self._client.connect_async(self._settings.host, self._settings.port_in_use, _KEEPALIVE_S)

    def _recover(self, error: Exception) -> bool:
        self._is_up.clear()
        self._tell(f"mqtt: lost {self._settings.host} ({type(error).__name__}: {error}); tried again by and by")
        if self._is_closing.wait(_BROKEN_WAIT_S):
            return False
        self._aim()
        return True

    def _log_in(self) -> None:
        settings = self._settings
        if settings.user:
            self._client.username_pw_set(settings.user, _read_password(settings.password_file))
        if settings.ca_file:
            try:
                self._client.tls_set(settings.ca_file, settings.cert_file or None, settings.key_file or None)
            except (OSError, ValueError) as error:
                what = ", ".join(filter(None, (settings.ca_file, settings.cert_file, settings.key_file)))
                raise RefusedError(f"cannot be used for TLS ({error})", what) from error

    def _on_connect(self, client: Any, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._tell(f"mqtt: {self._settings.host} refuses: {reason}")
            return
        self._connection += 1
        if self._filters:
            client.subscribe([(one, 1) for one in self._filters])
        self._is_up.set()
        self._tell(f"mqtt: connected to {self._settings.host}:{self._settings.port_in_use}")

    def _on_connect_fail(self, _client: Any, _userdata: Any) -> None:
        self._tell(f"mqtt: {self._settings.host}:{self._settings.port_in_use} cannot be reached; tried again by and by")

    def _on_disconnect(self, _client: Any, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._is_up.clear()
        if reason.is_failure:
            self._tell(f"mqtt: lost {self._settings.host} ({reason}); tried again by and by")

    def _on_message(self, _client: Any, _userdata: Any, message: Any) -> None:
        found = message.topic, bytes(message.payload), bool(message.retain), int(message.mid), int(message.qos)
        self._receive(Delivery(*found, self._connection))

    def _tell(self, sentence: str) -> None:
        if sentence != self._was_told:
            self._was_told = sentence
            self._report(sentence)


def _read_password(name: str) -> str | None:
    if not name:
        return None
    path = Path(name)
    try:
        if sys.platform != "win32" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise RefusedError("may be read by others", name, hint=f"chmod 600 {name}")
        return path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except OSError as error:
        raise RefusedError(f"cannot be read ({error})", name) from error
