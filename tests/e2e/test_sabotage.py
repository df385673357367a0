"""What the demo says when somebody tampered with a finished one: never `ok`, and always which device or entry.

Each test works on a copy of the demo, breaks one thing, and runs the loop again.
"""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from support import recount
from support.demo_runs import SMALL, Demo, Ran, Watched, command

pytestmark = pytest.mark.e2e

# gannet-d1's agent is a process of its own, gannet-d2's lives in the simulator: a finding must not depend on that.
PROCESS, HOSTED = "gannet-d1", "gannet-d2"
BOUND_S = 240.0
no_sigkill = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")


def expect_bad(ran: Ran, step: str, *names: str) -> list[str]:
    """The problems of the step that must have noticed; every one of `names` stands in one of them."""
    assert ran.out, f"exit {ran.code}: {ran.err}"
    summary, code = ran.json, ran.code
    assert code == 1, bad_steps(summary)
    assert summary["ok"] is False
    assert summary["steps"][step]["ok"] is False, bad_steps(summary)
    problems: list[str] = summary["steps"][step]["evidence"]["problems"]
    for name in names:
        assert any(name in problem for problem in problems), problems
    return problems


def bad_steps(summary: dict[str, Any]) -> dict[str, list[str]]:
    return {name: step["evidence"]["problems"] for name, step in summary["steps"].items() if not step["ok"]}


def expect_good(demo: Demo, *steps: str, ran: Ran) -> None:
    """These steps saw nothing wrong: a finding stands where it belongs and nowhere else."""
    assert not {name for name in bad_steps(ran.json) if name in steps}, bad_steps(ran.json)


def flip_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(bytes(data))


def package_of(demo: Demo, device: str) -> str:
    (found,) = [one["sha256"] for one in demo.evidence("package")["packages"] if one["device"] == device]
    return str(found)


@contextmanager
def store_of(demo: Demo) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(demo.workspace / "pumpdeck.db")
    try:
        with connection:
            yield connection
    finally:
        connection.close()


def new_key() -> tuple[bytes, str]:
    """A private key as a device keeps it, and its public half."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")


def test_a_byte_of_a_package_in_the_artifacts(copy: Demo) -> None:
    digest = package_of(copy, HOSTED)
    flip_byte(copy.workspace / "artifacts" / "sha256" / digest[:2] / digest)
    ran = copy.again()
    expect_bad(ran, "package", HOSTED)
    expect_good(copy, "ingest", "train", "rollout", "receipts", "scores", "drift", "audit", ran=ran)


@pytest.mark.parametrize(("device", "member"), [(PROCESS, "model-*.onnx"), (HOSTED, "pumps/*.block")])
def test_a_byte_of_a_package_in_a_device_store(copy: Demo, device: str, member: str) -> None:
    folder = copy.devices / device / "store" / package_of(copy, device)
    flip_byte(next(iter(sorted(folder.glob(member)))))
    ran = copy.again()
    expect_bad(ran, "rollout", device)
    expect_good(copy, "ingest", "train", "package", "drift", "audit", ran=ran)


def test_a_damaged_device_store_is_mended_by_the_next_rollout(copy: Demo) -> None:
    """The device falls back by itself, says so in a signed receipt, and takes the same package again."""
    folder = copy.devices / HOSTED / "store" / package_of(copy, HOSTED)
    flip_byte(folder / "manifest.json")
    expect_bad(copy.again(), "rollout", HOSTED)
    ran = copy.again()
    assert ran.code == 0, bad_steps(ran.json)
    receipts = [one for one in ran.json["steps"]["receipts"]["evidence"]["receipts"] if one["device"] == HOSTED]
    assert [one["outcome"] for one in receipts] == ["committed", "failed_inconsistent", "committed"]
    recount.check_manifest(recount.folder_members(folder))


def test_an_exchanged_key_in_the_store(copy: Demo) -> None:
    _, public_pem = new_key()
    with store_of(copy) as store:
        changed = store.execute(
            "UPDATE device SET public_pem = ?, key_id = ? WHERE device = ?",
            (public_pem, recount.key_id(public_pem), HOSTED),
        )
        assert changed.rowcount == 1
    ran = copy.again()
    expect_bad(ran, "receipts", HOSTED)
    expect_good(copy, "ingest", "train", "package", "drift", "audit", ran=ran)


def test_an_exchanged_key_on_the_device(copy: Demo) -> None:
    private, public_pem = new_key()
    root = copy.devices / PROCESS
    (root / "device.key").write_bytes(private)
    (root / "device.pub").write_text(public_pem, encoding="ascii")
    ran = copy.again()
    expect_bad(ran, "receipts", PROCESS)
    expect_good(copy, "ingest", "train", "package", "drift", "audit", ran=ran)


def test_a_receipt_with_other_words(copy: Demo) -> None:
    with store_of(copy) as store:
        ((envelope,),) = store.execute("SELECT envelope FROM receipt WHERE device = ?", (HOSTED,)).fetchall()
        at = envelope.index(b'"payload":"') + 40
        forged = envelope[:at] + (b"B" if envelope[at : at + 1] != b"B" else b"C") + envelope[at + 1 :]
        store.execute("UPDATE receipt SET envelope = ? WHERE device = ?", (forged, HOSTED))
    expect_bad(copy.again(), "receipts", HOSTED)


@pytest.mark.parametrize(
    ("sabotage", "position"),
    [
        ("UPDATE audit SET reason = 'nothing happened' WHERE position = 20", 20),
        ("DELETE FROM audit WHERE position = 20", 20),
        ("DELETE FROM audit WHERE position = (SELECT max(position) FROM audit)", None),
    ],
    ids=["altered", "deleted", "last one deleted"],
)
def test_an_audit_row(copy: Demo, sabotage: str, position: int | None) -> None:
    last = copy.evidence("audit")["entries"]
    with store_of(copy) as store:
        for trigger in ("audit_is_final", "audit_is_kept"):
            store.execute(f"DROP TRIGGER {trigger}")
        assert store.execute(sabotage).rowcount == 1
    ran = copy.again()
    expect_bad(ran, "audit", f"audit entry {position or last} of ")
    expect_good(copy, "ingest", "train", "package", "rollout", "receipts", "scores", "drift", ran=ran)


@no_sigkill
def test_a_device_killed_before_its_package_came(tmp_path: Path) -> None:
    began_s = time.monotonic()
    workspace = tmp_path / "ws"
    watched = Watched(command("-w", str(workspace), "demo", "--no-tui", "--json", *SMALL))
    os.kill(watched.device_pid(PROCESS), signal.SIGKILL)
    ran = watched.end()
    assert time.monotonic() - began_s < BOUND_S
    expect_bad(ran, "rollout", PROCESS)
    expect_bad(ran, "scores", PROCESS)


@no_sigkill
def test_a_device_killed_after_its_package_came(copy: Demo) -> None:
    began_s = time.monotonic()
    watched = copy.watched()
    os.kill(watched.device_pid(PROCESS), signal.SIGKILL)
    ran = watched.end()
    assert time.monotonic() - began_s < BOUND_S
    expect_bad(ran, "rollout", PROCESS)
    expect_good(copy, "ingest", "train", "package", "drift", "audit", ran=ran)


@no_sigkill
def test_a_killed_simulator_is_every_device_killed(copy: Demo) -> None:
    began_s = time.monotonic()
    watched = copy.watched()
    os.kill(watched.simulator_pid(), signal.SIGKILL)
    ran = watched.end()
    assert time.monotonic() - began_s < BOUND_S
    expect_bad(ran, "rollout", *(path.name for path in copy.devices.iterdir()))
    expect_good(copy, "ingest", "train", "package", "audit", ran=ran)


@pytest.mark.parametrize("device", [PROCESS, HOSTED])
def test_a_device_whose_folder_is_gone(copy: Demo, device: str) -> None:
    began_s = time.monotonic()
    shutil.rmtree(copy.devices / device)
    ran = copy.again()
    assert time.monotonic() - began_s < BOUND_S
    expect_bad(ran, "rollout", device)
    expect_good(copy, "ingest", "train", "package", "drift", "audit", ran=ran)


def test_a_second_run_is_good_and_adds_nothing(copy: Demo) -> None:
    before = counts(copy)
    ran = copy.again()
    assert ran.code == 0, bad_steps(ran.json)
    assert counts(copy) == before
    for name in ("package", "drift", "receipts", "scores"):
        assert ran.json["steps"][name] == copy.summary["steps"][name]
    models = {one["model"]: one["content_digest"] for one in copy.evidence("train")["models"]}
    assert {one["model"]: one["content_digest"] for one in ran.json["steps"]["train"]["evidence"]["models"]} == models
    assert all(one["new"] == 0 for one in ran.json["steps"]["ingest"]["evidence"]["files"])


def counts(demo: Demo) -> dict[str, int]:
    tables = ("model_version", "package", "rollout", "receipt", "series", "chunk", "alarm", "sketch_day", "drift", "label")
    with store_of(demo) as store:
        return {table: store.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}
