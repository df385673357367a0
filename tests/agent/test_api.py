"""What the endpoint answers: scores, health, model, metrics, retrain requests; bad requests get 4xx and a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pumpdeck_agent.api import Api, ApiSettings
from pumpdeck_agent.http_wire import Head, Response
from pumpdeck_agent.retrain import EVERY_MS, RetrainDesk
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import Scorer
from pumpdeck_agent.serve_settings import EndpointSettings, ServeSettings, read_settings, read_token
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, NotFoundError, RefusedError
from pumpdeck_fleet.core.receipts import RetrainRequest, ReturnKind
from support.devices import LIMIT, NAMES, NOW_MS, Bench, package, quiet_rows

BUILT = package()


class Client:
    """Asks an API in this process."""

    def __init__(self, bench: Bench, token: str = "") -> None:
        agent = bench.agent()
        self.scorer = Scorer(bench.platform, agent.layout, agent.config, bench.limits, ModelCache())
        self.scorer.package()
        self.woken = 0
        desk = RetrainDesk(agent.config, self.scorer)
        self.api = Api(self.scorer, desk, (bench.platform, agent.layout), ApiSettings(token, self._wake))

    def _wake(self) -> None:
        self.woken += 1

    def raw(self, method: str, path: str, body: bytes = b"", **headers: str) -> Response:
        found = {"host": "localhost:8377", "content-type": "application/json"}
        found |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.api.answer(Head(method, path, found, len(body), True), body)

    def ask(self, method: str, path: str, value: Any = None, **headers: str) -> tuple[int, Any]:
        body = b"" if value is None else value if isinstance(value, bytes) else json.dumps(value).encode()
        response = self.raw(method, path, body, **headers)
        return response.status, json.loads(response.body)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    one = Bench(tmp_path)
    one.install(BUILT)
    return one


@pytest.fixture
def client(bench: Bench) -> Client:
    return Client(bench)


def row(at_ms: int, values: np.ndarray, pump: str = "P-101A") -> dict[str, Any]:
    return {"time": at_ms, "pump": pump, **dict(zip(NAMES, map(float, values), strict=True))}


def test_a_row_gets_score_probability_and_contributions(client: Client) -> None:
    status, answer = client.ask("POST", "/score", row(NOW_MS, quiet_rows(1, 1)[0]))
    assert status == 200
    (found,) = answer["rows"]
    assert (found["pump"], found["time"], found["limit"], found["alarmed"]) == ("P-101A", NOW_MS, LIMIT, False)
    assert list(found["contributions"]) == sorted(NAMES)
    assert found["score"] == max(found["contributions"].values())
    assert found["probability"] == pytest.approx(found["score"] / (found["score"] + LIMIT), rel=1e-6)


def test_rows_raise_an_alarm_and_wake_the_loop(client: Client, bench: Bench) -> None:
    rows = quiet_rows(10, 1)
    rows[4:, 2] += np.float32(30)
    sent = [row(NOW_MS + 60_000 * place, one) for place, one in enumerate(rows)]
    status, answer = client.ask("POST", "/score", {"rows": sent})
    assert status == 200
    assert [one["alarmed"] for one in answer["rows"]][-1]
    assert client.woken == 1
    assert [notice.raised for notice in client.scorer.take_changes()] == [True]
    client.scorer.flush()
    assert bench.status()["pumps"]["P-101A"]["alarmed"]
    assert client.ask("GET", "/health")[1]["pumps"]["P-101A"] == "ALARM"


def test_a_row_without_voting_channels_has_no_score(client: Client) -> None:
    _, answer = client.ask("POST", "/score", {"time": NOW_MS, "pump": "P-101A", "speed_rpm": 3000})
    assert (answer["rows"][0]["score"], answer["rows"][0]["probability"]) == (None, None)


BAD_ROWS: list[tuple[Any, int, str]] = [
    (b"not json", 400, "not JSON"),
    (b"[1]", 400, "not a JSON object"),
    (b'{"rows": []}', 400, "at least one row"),
    (b'{"rows": 3}', 400, "not a list"),
    (b'{"rows": [3]}', 400, "Row 0 has no pump"),
    (b"[" * 100_000, 400, "not JSON"),
    ({"time": NOW_MS}, 400, "has no pump"),
    ({"pump": "P-101A"}, 400, "time is neither"),
    ({"pump": "P-101A", "time": "noon"}, 400, "time is neither"),
    ({"pump": "P-101A", "time": True}, 400, "time is neither"),
    ({"pump": "P-101A", "time": -1}, 400, "time is neither"),
    ({"pump": "P-101A", "time": NOW_MS, "flow": 3}, 400, "unknown channel flow"),
    ({"pump": "P-101A", "time": NOW_MS, "speed_rpm": "3"}, 400, "speed_rpm is not a number"),
    ({"pump": "P-101A", "time": NOW_MS, "speed_rpm": True}, 400, "speed_rpm is not a number"),
    ({"pump": "P-101A", "time": NOW_MS, "speed_rpm": 1e300}, 400, "speed_rpm is not a number"),
    (b'{"pump": "P-101A", "time": 1, "speed_rpm": NaN}', 400, "not JSON"),
    ({"pump": "P-9", "time": NOW_MS}, 404, "No model scores pump P-9"),
    ({"rows": [{"pump": "P-101A", "time": NOW_MS}] * 1001}, 413, "Too many rows"),
    ({"rows": [{"pump": "P-101A", "time": NOW_MS}] * 2}, 409, "not later"),
]


@pytest.mark.parametrize(("body", "status", "sentence"), BAD_ROWS)
def test_bad_rows_are_refused_and_nothing_is_scored(client: Client, body: Any, status: int, sentence: str) -> None:
    found, answer = client.ask("POST", "/score", body)
    assert found == status
    assert sentence in answer["error"]
    assert not client.scorer.has_unsaved()
    assert client.ask("POST", "/score", {"pump": "p-101a", "time": NOW_MS})[0] == 200


def test_a_browser_page_cannot_ask(client: Client) -> None:
    good = json.dumps(row(NOW_MS, quiet_rows(1, 1)[0])).encode()
    assert client.raw("POST", "/score", good, content_type="text/plain").status == 415
    assert client.raw("POST", "/score", good, host="evil.example:8377").status == 421
    assert client.raw("GET", "/health", host="").status == 421
    assert not client.scorer.has_unsaved()
    assert client.raw("POST", "/score", good, host="127.0.0.1:8377").status == 200
    assert client.raw("GET", "/health", host="[::1]:8377").status == 200


def test_with_a_token_every_request_must_carry_it(bench: Bench) -> None:
    client = Client(bench, token="t" * 32)
    for path in ("/health", "/model", "/metrics", "/score"):
        assert client.raw("GET", path).status == 401
        assert client.raw("GET", path, authorization="Bearer " + "t" * 31).status == 401
    assert client.raw("GET", "/health", authorization="Bearer " + "t" * 32, host="10.0.0.7").status == 200


def test_unknown_paths_and_methods(client: Client) -> None:
    assert client.ask("GET", "/")[0] == 404
    assert client.ask("GET", "/score")[0] == 405
    assert client.raw("POST", "/health", b"{}").headers == {"Allow": "GET"}
    assert client.raw("HEAD", "/health").status == 200


def test_without_a_model_score_and_model_say_so(tmp_path: Path) -> None:
    client = Client(Bench(tmp_path))
    assert client.ask("POST", "/score", row(NOW_MS, quiet_rows(1, 1)[0]))[0] == 503
    assert "NO_MODEL" in client.ask("GET", "/model")[1]["error"]
    assert client.ask("GET", "/health") == (200, {"state": "NO_MODEL", "health": "NO_MODEL", "pumps": {}})


def test_model_names_package_channels_and_limit(client: Client) -> None:
    status, answer = client.ask("GET", "/model")
    assert status == 200
    assert answer["package"] == BUILT.sha256
    assert answer["pumps"]["P-101B"]["limit"] == LIMIT
    assert list(answer["pumps"]["P-101B"]["channels"]) == sorted(NAMES)


def test_metrics_are_prometheus_text(client: Client) -> None:
    client.ask("POST", "/score", row(NOW_MS, quiet_rows(1, 1)[0]))
    client.ask("GET", "/nothing")
    response = client.raw("GET", "/metrics")
    lines = response.body.decode().splitlines()
    assert response.content_type.startswith("text/plain; version=0.0.4")
    values = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in lines if not line.startswith("#")}
    assert values['pumpdeck_scored_rows_total{pump="P-101A"}'] == "1"
    assert values['pumpdeck_http_requests_total{code="404"}'] == "1"
    assert values[f'pumpdeck_active_package_info{{package="{BUILT.sha256}"}}'] == "1"
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    assert {name.partition("{")[0] for name in values} == set(families)


def test_a_retrain_request_waits_in_the_outbox_once(client: Client, bench: Bench) -> None:
    body = {"pump": "p-101a", "reason": "new impeller since Tuesday"}
    assert client.ask("POST", "/retrain-request", body) == (202, {"pump": "p-101a", "state": "waits for the console"})
    assert client.ask("POST", "/retrain-request", body)[1]["state"] == "asked already"
    items = [one for one in bench.agent().outbox.take(1 << 20)[0] if one[0].kind is ReturnKind.RETRAIN_REQUEST]
    (request,) = [canonical.decode(RetrainRequest, data, "request", max_bytes=4096) for _, data in items]
    assert (request.pump, request.trigger, request.package_sha256) == ("P-101A", "request", BUILT.sha256)
    bench.clock.advance(EVERY_MS)
    assert client.ask("POST", "/retrain-request", body)[1]["state"] == "waits for the console"


@pytest.mark.parametrize(
    ("body", "status"),
    [({}, 400), ({"pump": "P-101A"}, 400), ({"pump": "P-101A", "reason": " "}, 400), ({"pump": "X", "reason": "r"}, 404)],
)
def test_a_retrain_request_that_makes_no_sense_is_refused(client: Client, body: Any, status: int) -> None:
    found, answer = client.ask("POST", "/retrain-request", body)
    assert found == status
    assert answer["error"]


def test_settings_are_read_and_the_lan_needs_a_token(bench: Bench, tmp_path: Path) -> None:
    layout = bench.agent().layout
    assert read_settings(bench.fs, layout) == ServeSettings()
    (bench.root / "serve.json").write_text('{"endpoint": {"port": 0}, "save_every_s": 1}', encoding="utf-8")
    assert read_settings(bench.fs, layout) == ServeSettings(endpoint=EndpointSettings(port=0), save_every_s=1.0)
    (bench.root / "serve.json").write_text('{"endpoint": {"prot": 0}}', encoding="utf-8")
    with pytest.raises(FormatError, match="prot"):
        read_settings(bench.fs, layout)
    assert read_token(bench.fs, EndpointSettings()) == ""
    with pytest.raises(RefusedError, match="has no token"):
        read_token(bench.fs, EndpointSettings(host="0.0.0.0"))
    file = tmp_path / "token"
    lan = EndpointSettings(host="0.0.0.0", token_file=str(file))
    with pytest.raises(NotFoundError):
        read_token(bench.fs, lan)
    file.write_text("short", encoding="ascii")
    with pytest.raises(RefusedError, match="too short"):
        read_token(bench.fs, lan)
    file.write_text("x" * 40 + "\n", encoding="ascii")
    file.chmod(0o600)
    assert read_token(bench.fs, lan) == "x" * 40
