"""Rows and alarms through a real Mosquitto, to and from a real `serve`, over broker restarts, kills and bad messages."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.broker import Broker, why_no_broker
from support.devices import NAMES, NOW_MS, Bench, package, quiet_rows
from support.sshd import wait_for

COMMAND = [sys.executable, "-m", "pumpdeck_agent.main"]
ROWS = "gannet/p101a/rows"

pytestmark = [
    pytest.mark.skipif(bool(why_no_broker()), reason=why_no_broker() or "-"),
    pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM is a kill there"),
]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    made = Bench(tmp_path / "device")
    made.install(package())
    return made


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    with Broker(tmp_path / "broker") as running:
        yield running


@contextlib.contextmanager
def serving(bench: Bench, broker: Broker, **mqtt: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A `serve` that takes rows from the broker; it is connected when this is entered."""
    settings = {"host": "127.0.0.1", "port": broker.port, "rows": [{"topic": ROWS, "pump": "P-101A"}], "alarms": "gannet/d1"}
    settings |= {"acknowledge": "gannet/d1/seen", **mqtt}
    alarms = {"repeat_s": 1.0, "heartbeat_s": 0.2}
    whole = {"endpoint": {"is_on": False}, "alarms": alarms, "mqtt": settings, "save_every_s": 0.2}
    (bench.root / "serve.json").write_text(json.dumps(whole), encoding="utf-8")
    log = (bench.root / "log").open("ab")
    before = (bench.root / "log").read_bytes().count(b"mqtt: connected")
    process = subprocess.Popen([*COMMAND, "serve", "--root", str(bench.root), "--every-s", "0.1"], stderr=log)
    log.close()
    try:
        assert wait_for(lambda: (bench.root / "log").read_bytes().count(b"mqtt: connected") > before, 30), said(bench)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


def said(bench: Bench) -> str:
    return (bench.root / "log").read_text(encoding="utf-8")


class Site:
    """Somebody else on the broker: publishes, and keeps what is published."""

    def __init__(self, broker: Broker, **login: Any) -> None:
        from paho.mqtt import client as paho
        from paho.mqtt.enums import CallbackAPIVersion

        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id="site", clean_session=False)
        if login:
            self.client.tls_set(login["ca"])
            self.client.username_pw_set(login["user"], login["password"])
        self.heard: list[tuple[str, dict[str, Any], bool]] = []
        self.client.on_message = lambda c, u, m: self.heard.append((m.topic, json.loads(m.payload), bool(m.retain)))
        self.client.on_connect = lambda c, u, f, r, p: c.subscribe("gannet/d1/#", 1)
        self.client.reconnect_delay_set(1, 1)
        self.client.connect("127.0.0.1", broker.port)
        self.client.loop_start()

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def send(self, topic: str, value: Any, *, is_retained: bool = False) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.client.publish(topic, data, qos=1, retain=is_retained).wait_for_publish(20)

    def rows(self, start: int, values: np.ndarray) -> None:
        for place, row in enumerate(values):
            self.send(ROWS, row_of(start + place, row))

    def words(self, pump: str = "P-101A") -> list[str]:
        return [value["word"] for topic, value, _ in list(self.heard) if topic == f"gannet/d1/alarm/{pump}"]


def row_of(minute: int, values: np.ndarray) -> dict[str, Any]:
    return {"time": NOW_MS + 60_000 * minute, **dict(zip(NAMES, map(float, values), strict=True))}


def figures(bench: Bench) -> dict[str, Any]:
    return dict(bench.status()["pumps"].get("P-101A", {"scored_rows": 0, "late_rows": 0}))


def test_rows_become_scores_and_an_alarm_goes_out_is_repeated_acknowledged_and_cleared(bench: Bench, broker: Broker) -> None:
    rows = quiet_rows(60, 1)
    rows[20:30, 2] += np.float32(30)
    with Site(broker) as site, serving(bench, broker):
        assert wait_for(lambda: any(topic == "gannet/d1/heartbeat" for topic, _, _ in site.heard), 20)
        site.rows(0, rows[:30])
        assert wait_for(lambda: site.words()[:2] == ["raised", "repeated"], 20), site.heard
        site.send("gannet/d1/seen", {"pump": "P-101A", "by": "Ada"})
        assert wait_for(lambda: site.words()[-1] == "acknowledged", 20)
        site.rows(30, rows[30:])
        assert wait_for(lambda: site.words()[-1] == "cleared", 20)
        assert wait_for(lambda: figures(bench)["scored_rows"] == 60, 20)
    beats = [value["word"] for topic, value, _ in site.heard if topic == "gannet/d1/heartbeat"]
    assert set(beats[:-1]) == {"heartbeat"}
    with Site(broker) as late:
        # Whoever comes later sees how things stand: retained.
        assert wait_for(lambda: len(late.heard) >= 2, 20)
        stands = {topic: value["word"] for topic, value, is_retained in late.heard if is_retained}
        assert stands == {"gannet/d1/alarm/P-101A": "cleared", "gannet/d1/heartbeat": "stopped"}


def test_plain_values_of_a_topic_for_each_channel_become_rows(bench: Bench, broker: Broker) -> None:
    mapped = {"topic": "plc/{pump}/{channel}", "channels": {f"C{place}": name for place, name in enumerate(NAMES)}}
    values = quiet_rows(1, 1)[0]
    with Site(broker) as site, serving(bench, broker, rows=[], values=[mapped], row_every_s=0.2):

        def is_scored() -> bool:
            for place, value in enumerate(values):
                site.client.publish(f"plc/p-101a/C{place}", f"{value:.3f}", qos=1)
            return figures(bench)["scored_rows"] >= 5

        assert wait_for(is_scored, 30), said(bench)
    assert figures(bench)["late_rows"] == 0


def test_a_device_that_is_gone_is_seen_to_be_gone(bench: Bench, broker: Broker) -> None:
    with Site(broker) as site, serving(bench, broker) as process:
        assert wait_for(lambda: any(topic == "gannet/d1/heartbeat" for topic, _, _ in site.heard), 20)
        process.kill()
        process.wait(20)
        assert wait_for(lambda: site.heard[-1][1] == {"device": "gannet-d1", "word": "lost"}, 20), site.heard[-3:]


def test_no_row_is_lost_or_scored_twice_over_kills_and_broker_restarts(bench: Bench, broker: Broker) -> None:
    rows, sent = quiet_rows(240, 2), 0
    chance = np.random.default_rng(3)
    with Site(broker) as site:
        for turn in range(4):
            with serving(bench, broker) as process:
                for _ in range(3):
                    count = int(chance.integers(5, 15))
                    site.rows(sent, rows[sent : sent + count])
                    sent += count
                if turn % 2:
                    broker.stop()
                    broker.start()
                    assert wait_for(lambda: site.client.is_connected(), 20)
                    site.rows(sent, rows[sent : sent + 5])
                    sent += 5
                # At once: some of it is on the disk, some acknowledged, some neither.
                process.kill()
                process.wait(20)
            # While the device is away the broker keeps what comes.
            site.rows(sent, rows[sent : sent + 10])
            sent += 10
        with serving(bench, broker):
            assert wait_for(lambda: figures(bench)["scored_rows"] == sent, 30), (figures(bench), sent, said(bench))
    assert figures(bench)["last_row_ms"] == NOW_MS + 60_000 * (sent - 1)


def test_repeated_and_late_rows_are_scored_once_or_not_at_all(bench: Bench, broker: Broker) -> None:
    rows = quiet_rows(30, 4)
    with Site(broker) as site, serving(bench, broker):
        site.rows(0, rows[:20])
        assert wait_for(lambda: figures(bench)["scored_rows"] == 20, 20)
        site.rows(10, rows[10:20])
        # Not in order, and a row of a pump's past that was never here.
        site.send(ROWS, [row_of(minute, rows[minute]) for minute in (24, 22, 21, 23)])
        assert wait_for(lambda: figures(bench)["scored_rows"] == 24, 20)
        site.send(ROWS, {**row_of(5, rows[5]), "time": NOW_MS - 60_000})
        assert wait_for(lambda: figures(bench)["late_rows"] == 1, 20), figures(bench)
        assert figures(bench)["scored_rows"] == 24


def test_a_retained_row_counts_once_over_reconnects(bench: Bench, broker: Broker) -> None:
    rows = quiet_rows(2, 5)
    with Site(broker) as site:
        site.send(ROWS, row_of(0, rows[0]), is_retained=True)
        for _ in range(2):
            with serving(bench, broker):
                assert wait_for(lambda: figures(bench)["scored_rows"] == 1, 20)
        with serving(bench, broker):
            site.send(ROWS, row_of(1, rows[1]))
            assert wait_for(lambda: figures(bench)["scored_rows"] == 2, 20)


def test_bad_messages_are_kept_apart_with_a_sentence_and_stop_nothing(bench: Bench, broker: Broker) -> None:
    rows = quiet_rows(3, 6)
    with Site(broker) as site, serving(bench, broker):
        for bad in (b"not json", b"{}", b'{"time": 1}', b"\x00" * 100, b"[[[["):
            site.send(ROWS, bad)
        site.send("gannet/d1/seen", {"pump": "P-101A", "by": "Ada"})
        site.rows(0, rows)
        assert wait_for(lambda: figures(bench)["scored_rows"] == 3, 20)
    apart = sorted((bench.root / "spool" / "refused").glob("mqtt-*.txt"))
    # One of a topic in ten seconds is kept; all are said or counted.
    assert len(apart) == 2
    line, _, payload = apart[0].read_bytes().partition(b"\n")
    assert json.loads(line)["topic"] == ROWS
    assert "is not JSON" in json.loads(line)["error"]
    assert payload == b"not json"
    assert "has no alarm that stands" in json.loads(apart[1].read_bytes().partition(b"\n")[0])["error"]


def test_a_broker_that_is_away_is_waited_for(bench: Bench, tmp_path: Path) -> None:
    broker = Broker(tmp_path / "broker")
    (bench.root / "log").touch()
    with contextlib.ExitStack() as stack:
        stack.callback(broker.stop)
        broker.start()
        stack.enter_context(serving(bench, broker))
        broker.stop()
        assert wait_for(lambda: "mqtt: lost 127.0.0.1" in said(bench), 20), said(bench)
        broker.start()
        assert wait_for(lambda: said(bench).count("mqtt: connected") == 2, 30), said(bench)
        with Site(broker) as site:
            site.rows(0, quiet_rows(5, 7))
            assert wait_for(lambda: figures(bench)["scored_rows"] == 5, 20)


def test_tls_with_a_password_and_nothing_without(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    ca, cert, key = certificates(folder)
    passwords, password = folder / "passwords", folder / "password"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "pump", "s3cret-s3cret"], check=True, capture_output=True)
    password.write_text("s3cret-s3cret\n")
    password.chmod(0o600)
    for path in (passwords, key):
        path.chmod(0o600)
    extra = ("allow_anonymous false", f"password_file {passwords}", f"cafile {ca}", f"certfile {cert}", f"keyfile {key}")
    with Broker(tmp_path / "broker", *extra) as broker:
        login = {"ca_file": str(ca), "user": "pump", "password_file": str(password)}
        with (
            Site(broker, ca=str(ca), user="pump", password="s3cret-s3cret") as site,
            serving(bench, broker, **login),
        ):
            site.rows(0, quiet_rows(5, 8))
            assert wait_for(lambda: figures(bench)["scored_rows"] == 5, 20), said(bench)
        assert b"s3cret" not in (bench.root / "log").read_bytes()
        # Scoring goes on without a broker when the password cannot be used, and says why.
        password.chmod(0o644)
        done = subprocess.Popen([*COMMAND, "serve", "--root", str(bench.root)], stderr=subprocess.PIPE)
        assert done.stderr is not None
        assert b"may be read by others" in done.stderr.readline()
        done.send_signal(signal.SIGTERM)
        assert done.wait(30) == 0
        done.stderr.close()


def test_serve_without_a_broker_loads_no_mqtt(bench: Bench) -> None:
    code = (
        "import sys, pumpdeck_agent.serve\n"
        "found = [name for name in sys.modules if name.split('.')[0] in ('paho', 'ssl', '_ssl') or 'mqtt_link' in name]\n"
        "print(found)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert done.stdout.strip() == "[]"


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """An authority, and a certificate for 127.0.0.1 with its key."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    folder.mkdir()
    now = datetime.datetime.now(datetime.UTC)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    def builder(subject: str, public: Any) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name("authority")).public_key(public)
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        return made.not_valid_after(now + datetime.timedelta(days=1))

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = builder("authority", ca_key.public_key()).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    cert = builder("127.0.0.1", key.public_key()).add_extension(names, critical=False)
    paths = folder / "ca.pem", folder / "cert.pem", folder / "key.pem"
    pem = serialization.Encoding.PEM
    paths[0].write_bytes(ca.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    paths[1].write_bytes(cert.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths[2].write_bytes(private)
    return paths
