"""What the endpoint answers, path by path (docs/device.md, The endpoint). One request in, one response out.

On loopback nobody needs a token, so a page in a browser on this computer must not be able to ask either: a POST needs
`Content-Type: application/json`, which such a page may not send unasked, and `Host` must name this computer.
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pumpdeck_agent.config import Layout
from pumpdeck_agent.http_wire import Head, HttpError, Response, refusal
from pumpdeck_agent.metrics import Metrics, metrics_text
from pumpdeck_agent.platform_port import Platform
from pumpdeck_agent.pump_scoring import RowResult
from pumpdeck_agent.retrain import RetrainDesk
from pumpdeck_agent.row_request import parse_object, parse_rows
from pumpdeck_agent.scorer import Scorer
from pumpdeck_agent.site_alarms import Acknowledgement, request_acknowledge
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.errors import ConflictError, NotFoundError, PumpdeckError, UsageError
from pumpdeck_fleet.core.health import Health, HealthFacts, HealthRules, health_of, worst

_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")

Route = Callable[[bytes], Response]


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """What an endpoint is told. `token`: empty, none is needed. `wake`: called when there is something to announce or to save.

    `mqtt`: figures of the connection to the broker.
    """

    token: str
    wake: Callable[[], None]
    mqtt: Callable[[], Mapping[str, int]] = dict


class Api:
    """Answers requests for one device."""

    def __init__(self, scorer: Scorer, desk: RetrainDesk, world: tuple[Platform, Layout], settings: ApiSettings) -> None:
        self._scorer = scorer
        self._desk = desk
        self._platform, self._layout = world
        self._token = settings.token
        self._wake = settings.wake
        self._mqtt = settings.mqtt
        self._answered: Counter[int] = Counter()
        self._routes: Mapping[str, tuple[str, Route]] = {
            "/score": ("POST", self._score),
            "/health": ("GET", self._health),
            "/model": ("GET", self._model),
            "/metrics": ("GET", self._metrics),
            "/retrain-request": ("POST", self._retrain_request),
            "/acknowledge": ("POST", self._acknowledge),
        }

    def admit(self, head: Head) -> Response | None:
        """The refusal of a request for which no body needs to be read: no token, no such path, not its method or type."""
        try:
            self._check(head)
        except HttpError as error:
            self._answered[error.status] += 1
            return refusal(error.status, error.what, **error.headers)
        return None

    def answer(self, head: Head, body: bytes) -> Response:
        """The response to a request; never raises."""
        response = self._try(head, body)
        self._answered[response.status] += 1
        return response

    def _try(self, head: Head, body: bytes) -> Response:
        try:
            self._check(head)
            return self._routes[head.path][1](body)
        except HttpError as error:
            return refusal(error.status, error.what, **error.headers)
        except UsageError as error:
            return refusal(400, error.sentence())
        except NotFoundError as error:
            return refusal(404, error.sentence())
        except ConflictError as error:
            return refusal(409, error.sentence())
        except (PumpdeckError, OSError) as error:
            # A full disk, a damaged package: the device's trouble, not the client's.
            return refusal(503, str(error))

    def _check(self, head: Head) -> None:
        if self._token:
            found = head.headers.get("authorization", "").encode("latin-1")
            if not hmac.compare_digest(found, f"Bearer {self._token}".encode("latin-1")):
                raise HttpError(401, "This needs Authorization: Bearer and the device's token.")
        elif _host_name(head.headers.get("host", "")) not in _LOCAL_NAMES:
            raise HttpError(421, "Without a token only requests to localhost are answered.")
        if head.path not in self._routes:
            raise HttpError(404, f"There is nothing here; ask for {', '.join(self._routes)}.")
        method = self._routes[head.path][0]
        if head.method != method and not (head.method == "HEAD" and method == "GET"):
            raise HttpError(405, f"{head.path} takes {method}.", Allow=method)
        if method == "POST" and head.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise HttpError(415, "Send JSON with Content-Type: application/json.")

    def _score(self, body: bytes) -> Response:
        if self._scorer.loaded is None:
            raise HttpError(503, "NO_MODEL: no package is installed on this device.")
        rows = parse_rows(body, self._scorer.pump)
        results = self._scorer.push(rows, is_explained=True)
        if self._scorer.is_save_due or any(result.notice for result in results):
            self._wake()
        return _json({"rows": [self._row(result) for result in results]})

    def _row(self, result: RowResult) -> dict[str, Any]:
        pump, answers = self._scorer.pump(result.pump.lower()), result.answers
        assert answers is not None
        parts = [] if pump is None else zip(pump.spec.channels, answers["contributions"][0].tolist(), strict=True)
        return {
            "pump": result.pump,
            "time": result.at_ms,
            "score": result.score,
            "probability": None if result.score is None else float(answers["probability"][0]),
            "limit": result.limit,
            "alarmed": result.alarmed,
            "drift_index": result.drift_index,
            "contributions": dict(parts),
        }

    def _health(self, _: bytes) -> Response:
        package, now_ms = self._scorer.loaded, self._platform.clock.now_ms()
        pumps = {}
        for tag, figures in self._scorer.figures().items():
            facts = HealthFacts(figures.alarmed, None, figures.last_row_ms, package is not None)
            pumps[tag] = health_of(facts, now_ms, HealthRules())
        whole = worst([*pumps.values(), None if package else Health.NO_MODEL])
        state = "NO_MODEL" if package is None else "ACTIVE"
        words = {tag: health.name if health is not None else None for tag, health in pumps.items()}
        return _json({"state": state, "health": whole.name if whole is not None else None, "pumps": words})

    def _model(self, _: bytes) -> Response:
        package = self._scorer.loaded
        if package is None:
            raise HttpError(503, "NO_MODEL: no package is installed on this device.")
        manifest = package.manifest
        models = [
            {"pump_type": one.pump_type, "model": one.model, "model_type": one.model_type, "content_digest": one.content_digest}
            for one in manifest.models
        ]
        pumps = {
            pump.tag: {
                "pump_type": pump.pump_type,
                "channels": {channel.name: channel.unit for channel in pump.channels},
                "window_s": pump.window_s,
                "limit": pump.limit,
                "deadband": pump.deadband,
                "persistence_s": pump.persistence_s,
            }
            for pump in manifest.pumps
        }
        trained_to = format_ms(manifest.data_end_ms)
        return _json({"package": package.sha256, "data_end": trained_to, "models": models, "pumps": pumps})

    def _metrics(self, _: bytes) -> Response:
        package = self._scorer.loaded
        found = Metrics(
            figures=self._scorer.figures(),
            outbox=self._scorer.outbox_counts(),
            package="" if package is None else package.sha256,
            unsaved_dropped_rows=self._scorer.dropped_rows,
            answered=dict(self._answered),
            mqtt=self._mqtt(),
        )
        return Response(200, metrics_text(found).encode("utf-8"), "text/plain; version=0.0.4; charset=utf-8")

    def _retrain_request(self, body: bytes) -> Response:
        value = parse_object(body)
        pump, reason = value.get("pump"), value.get("reason")
        if set(value) != {"pump", "reason"} or not isinstance(pump, str) or not isinstance(reason, str):
            raise HttpError(400, 'Send {"pump": tag, "reason": text}.')
        is_new = self._desk.ask(pump, reason, self._platform.clock.now_ms())
        return _json({"pump": pump, "state": "waits for the console" if is_new else "asked already"}, 202)

    def _acknowledge(self, body: bytes) -> Response:
        value = parse_object(body)
        pump, by = value.get("pump"), value.get("by")
        if set(value) != {"pump", "by"} or not isinstance(pump, str) or not isinstance(by, str):
            raise HttpError(400, 'Send {"pump": tag, "by": name}.')
        request_acknowledge(self._platform.fs, self._layout, Acknowledgement(pump, by))
        self._wake()
        return _json({"pump": pump, "by": by}, 202)


def _host_name(host: str) -> str:
    return host.lower().partition("]")[0] + "]" if host.startswith("[") else host.lower().partition(":")[0]


def _json(value: Mapping[str, Any], status: int = 200) -> Response:
    return Response(status, canonical.encode(value) + b"\n")
