"""SSH against a real OpenSSH server that runs the real agent."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError, NotFoundError, RefusedError, TrustError, UnreachableError
from pumpdeck_fleet.core.inventory import Device
from pumpdeck_fleet.core.rpc import Op
from pumpdeck_fleet.transports.rpc_client import collect_all, push_blob
from pumpdeck_fleet.transports.ssh import SshConnector, SshLogin, SshTimeouts, open_ssh
from pumpdeck_fleet.transports.watchdog import Watchdog
from pumpdeck_packaging.signing import generate_key
from support.devices import Bench, package
from support.sshd import Sshd, agent_command, free_port, wait_for, why_no_sshd

pytestmark = pytest.mark.skipif(bool(why_no_sshd()), reason=why_no_sshd() or "sshd is here")
QUICK = SshTimeouts(connect_s=5, handshake_s=10, answer_s=60, attempts=2, pause_s=0.05)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def server(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd"), agent_command(bench.root)) as running:
        yield running


def test_a_package_travels_is_tried_and_committed_over_one_channel(bench: Bench, server: Sshd) -> None:
    built = package()
    files = bench.assign(built)
    channel = open_ssh(server.device(), server.login(), QUICK)
    assert channel.call(Op.HELLO, {"console": "0.1.0", "workspace": "w"})[0]["device"] == "gannet-d1"
    push_blob(channel, built.sha256, built.data)
    answer = bench.send_assignment(channel, files)
    assert (answer["outcome"], answer["active"]) == ("committed", built.sha256)
    assert answer["receipt"]["self_test"]["p50_us"] > 0
    kept: list[bytes] = []
    assert collect_all(channel, lambda batch: kept.extend(data for _, data in batch.items)) == 1
    assert bench.receipt(kept[0])["task"] == "task-1"
    assert channel.call(Op.STATUS, {})[0]["state"]["state"] == "ACTIVE"
    channel.close()


def test_large_blobs_survive_the_link_and_resume_on_a_new_one(bench: Bench, server: Sshd) -> None:
    blob = random.Random(1).randbytes(3_000_000)
    name = canonical.digest(blob)
    channel = open_ssh(server.device(), server.login(), QUICK)

    class Stop(Exception):
        pass

    def halfway(step: str, done: int, total: int) -> None:
        if done > total // 2:
            raise Stop

    with pytest.raises(Stop):
        push_blob(channel, name, blob, halfway)
    channel.close()
    again = open_ssh(server.device(), server.login(), QUICK)
    sent = push_blob(again, name, blob)
    assert 0 < sent < 0.6 * len(blob)
    assert (bench.root / "incoming" / name).read_bytes() == blob
    again.close()


def test_another_host_key_is_never_spoken_to(server: Sshd) -> None:
    """Somebody in between: refused before our key is offered, and not tried again."""
    connects = []
    connector = SshConnector(server.login(), QUICK, sleep=connects.append)
    with pytest.raises(TrustError) as caught:
        connector(server.device(host_key=generate_key().openssh_public))
    assert "host key" in caught.value.sentence()
    assert connects == []


def test_a_device_without_a_pinned_host_key_is_not_contacted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        device = Device("s", "d", "c", "127.0.0.1", listener.getsockname()[1])
        with pytest.raises(TrustError):
            open_ssh(device, SshLogin(key_text=generate_key().openssh_pem().decode()), QUICK)
        with pytest.raises(TimeoutError):
            listener.accept()


@pytest.mark.parametrize("line", ["ssh-ed25519", "ssh-ed25519 !!!!", "nonsense AAAA", "ssh-ed25519 AAAA"])
def test_a_host_key_that_is_none_is_named(server: Sshd, line: str) -> None:
    with pytest.raises(FormatError):
        open_ssh(server.device(host_key=line), server.login(), QUICK)


def test_a_key_the_device_does_not_know_is_refused_once(server: Sshd) -> None:
    waits: list[float] = []
    login = SshLogin(key_text=generate_key().openssh_pem().decode())
    with pytest.raises(TrustError) as caught:
        SshConnector(login, QUICK, sleep=waits.append)(server.device())
    assert "does not accept" in caught.value.sentence()
    assert waits == []


def test_a_protected_key_needs_its_passphrase(server: Sshd, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(server.client_key.openssh_pem(b"open sesame"))
    with pytest.raises(RefusedError):
        SshConnector(SshLogin(key_path=path))
    with pytest.raises(FormatError):
        SshConnector(SshLogin(key_path=path, passphrase="wrong"))
    channel = SshConnector(SshLogin(key_path=path, passphrase="open sesame"), QUICK)(server.device())
    assert channel.call(Op.STATUS, {})[0]["ok"] is True
    channel.close()


def test_a_login_without_a_key_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        SshConnector(SshLogin())
    with pytest.raises(NotFoundError):
        SshConnector(SshLogin(key_path=tmp_path / "absent"))
    with pytest.raises(FormatError):
        SshConnector(SshLogin(key_text="-----BEGIN NOTHING-----"))


def test_nobody_at_the_address_is_unreachable_and_may_be_tried_later() -> None:
    device = Device("s", "d", "c", address="127.0.0.1", port=free_port(), host_key=generate_key().openssh_public)
    with pytest.raises(UnreachableError) as caught:
        open_ssh(device, SshLogin(key_text=generate_key().openssh_pem().decode()), QUICK)
    assert caught.value.retryable


def test_a_device_without_an_agent_is_not_tried_again(bench: Bench, tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd", "/no/such/pumpdeck-agent rpc") as bare:
        channel = open_ssh(bare.device(), bare.login(), QUICK)
        with pytest.raises(UnreachableError) as caught:
            channel.call(Op.STATUS, {})
        assert not caught.value.retryable
        assert "no such" in caught.value.sentence().lower() or "not found" in caught.value.sentence().lower()
        channel.close()


def test_an_agent_on_a_folder_that_is_no_device_says_why(tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd", agent_command(tmp_path / "nothing")) as bare:
        channel = open_ssh(bare.device(), bare.login(), QUICK)
        with pytest.raises(UnreachableError) as caught:
            channel.call(Op.STATUS, {})
        assert "agent.json" in caught.value.sentence()
        channel.close()


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    """A listener that accepts and is silent: the handshake ends in time instead of hanging."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        device = Device("s", "d", "c", "127.0.0.1", listener.getsockname()[1], host_key=generate_key().openssh_public)
        login = SshLogin(key_text=generate_key().openssh_pem().decode())
        began = time.monotonic()
        with pytest.raises(UnreachableError):
            open_ssh(device, login, replace(QUICK, handshake_s=1.0, attempts=1))
        assert time.monotonic() - began < 60


def test_a_silent_agent_is_given_up_after_the_answer_time(tmp_path: Path) -> None:
    with Sshd(tmp_path / "sshd", "sleep 60") as silent:
        channel = open_ssh(silent.device(), silent.login(), replace(QUICK, answer_s=1.0))
        began = time.monotonic()
        with pytest.raises(UnreachableError) as caught:
            channel.call(Op.STATUS, {})
        assert time.monotonic() - began < 60
        assert caught.value.retryable
        channel.close()


def test_many_logins_at_once_pass_a_server_that_drops_some(bench: Bench, tmp_path: Path) -> None:
    """A server that refuses beyond 3 unauthenticated connections: gate and retry get everybody in."""
    with Sshd(tmp_path / "sshd", "cat", "MaxStartups 3:50:6") as busy:
        connector = SshConnector(busy.login(), replace(QUICK, attempts=10, pause_s=0.1))
        with ThreadPoolExecutor(16) as pool:
            channels = list(pool.map(lambda _: connector(busy.device()), range(24)))
        assert len(channels) == 24
        for channel in channels:
            channel.close()


def test_closed_connections_leave_no_threads_behind(server: Sshd) -> None:
    before = threading.active_count()
    for _ in range(3):
        channel = open_ssh(server.device(), server.login(), QUICK)
        channel.call(Op.STATUS, {})
        channel.close()
        channel.close()
    assert wait_for(lambda: threading.active_count() <= before + 1)


def test_the_watchdog_closes_what_is_late_and_nothing_else() -> None:
    closed: list[str] = []
    dog = Watchdog()
    with dog.guard(lambda: closed.append("slow"), 0.1), dog.guard(lambda: closed.append("patient"), 60):
        assert wait_for(lambda: closed, 5)
    with dog.guard(lambda: closed.append("quick"), 0.1):
        pass
    time.sleep(0.8)
    assert closed == ["slow"]
