"""What a power cut or a bad disk leaves behind is put right: half-written items, a root with a flipped bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from pumpdeck_agent.serve import serve_spool
from pumpdeck_fleet.core.errors import TrustError
from pumpdeck_fleet.transports.rpc_client import push_blob
from support.devices import Bench, package

FIRST, SECOND = package(shift=0.0), package(shift=0.5)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    found = Bench(tmp_path)
    found.install(FIRST)
    return found


def test_a_half_written_item_goes_at_the_next_start(bench: Bench) -> None:
    folder = bench.root / "outbox"
    whole = sorted(path.name for path in folder.iterdir())
    (folder / "000000000099-receipt-abc.part").write_bytes(b"half")
    serve_spool(bench.root, bench.platform, every_s=0.1, is_once=True)
    assert sorted(path.name for path in folder.iterdir()) == whole


@pytest.mark.parametrize("name", ["root.json", "root.sealed"])
@pytest.mark.parametrize("spoil", [lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:], lambda _: b""])
def test_one_damaged_root_is_put_right_from_the_other(bench: Bench, name: str, spoil: object) -> None:
    trust = bench.root / "trust"
    true = (trust / "root.json").read_bytes()
    (trust / name).write_bytes(spoil((trust / name).read_bytes()))  # type: ignore[operator]
    assert bench.install(SECOND, "task-2")["outcome"] == "committed"
    assert (trust / "root.json").read_bytes() == true
    assert (trust / "root.sealed").read_bytes().endswith(true)


def test_with_both_damaged_nothing_is_believed_and_what_runs_goes_on(bench: Bench) -> None:
    for name in ("root.json", "root.sealed"):
        (bench.root / "trust" / name).write_bytes(b"")
    channel = bench.channel()
    push_blob(channel, SECOND.sha256, SECOND.data)
    with pytest.raises(TrustError, match="Enrol the device again"):
        bench.send_assignment(channel, bench.assign(SECOND, "task-2"))
    assert bench.status()["active"] == FIRST.sha256


def test_a_device_of_before_gets_its_sealed_copy_with_the_next_assignment(bench: Bench) -> None:
    (bench.root / "trust" / "root.sealed").unlink()
    bench.install(SECOND, "task-2")
    assert (bench.root / "trust" / "root.sealed").exists()
