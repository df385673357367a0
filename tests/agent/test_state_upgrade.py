"""State records of other agents: an older one's is taken over and nothing of it is lost, a newer one's is left as it is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pumpdeck_agent import state as moves
from pumpdeck_agent.recovery import recover
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import Scorer
from pumpdeck_agent.sealed import seal, unseal
from pumpdeck_agent.state import STATE_FORMAT, Attempt, Candidate, DeviceState, Installed, Phase, UsedToken
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import IllegalMoveError, RefusedError
from support.devices import NOW_MS, Bench, package, quiet_rows

GOLDEN = Path(__file__).parents[1] / "golden" / "formats" / "state"
FIRST, SECOND = package(shift=0.0), package(shift=0.5)
LASTING = ("phase", "seq", "active", "previous", "failed", "counter", "receipted", "receipts")


def full_state() -> DeviceState:
    """A record with every field of the present format."""
    a, b = Installed("a" * 64, "1" * 64), Installed("b" * 64, "2" * 64)
    candidate = Candidate(b, "t-9", 640, 1, "local veto: welding", 7, "WO-1", "f" * 64, 86_400)
    state = replace(moves.fresh_state(0), active=a, failed=("c" * 64,), newest_release=5)
    state = moves.accept(state, 640, UsedToken("f" * 64, 640, 1000))
    return moves.stage(state, candidate)


@pytest.mark.parametrize("name", ["state-1-active", "state-1-staged"])
def test_a_record_of_the_first_format_is_read_and_taken_over(name: str) -> None:
    old = moves.decode_state((GOLDEN / name).read_bytes(), name)
    new = moves.upgrade(old)
    assert (old.format, new.format, new.record) == (1, STATE_FORMAT, old.record + 1)
    assert [getattr(new, field) for field in LASTING] == [getattr(old, field) for field in LASTING]
    assert moves.decode_state(moves.encode_state(new), name) == new
    assert (new.newest_release, new.tokens, new.attempt) == (0, (), Attempt())


def test_the_present_format_stands_still() -> None:
    data = (GOLDEN / "state-2-staged").read_bytes()
    assert moves.encode_state(full_state()) == data
    assert moves.decode_state(data, "state-2-staged") == full_state()


def test_a_record_of_an_old_format_is_never_written() -> None:
    old = moves.decode_state((GOLDEN / "state-1-active").read_bytes(), "state-1-active")
    with pytest.raises(IllegalMoveError):
        moves.encode_state(old)


def _as_first_format(bench: Bench) -> DeviceState:
    """What an agent of the first format would have left on this device: both copies."""
    layout = bench.agent().layout
    for which in (0, 1):
        path = layout.state_copy(which)
        plain = json.loads(unseal(path.read_bytes(), path.name))
        for name in ("newest_release", "tokens", "attempt"):
            del plain[name]
        for name in ("release", "shadow_s"):
            plain.get("candidate", {}).pop(name, None)
        path.write_bytes(seal(canonical.encode(plain | {"format": 1})))
    found = StateFiles(bench.fs, layout).load()
    assert found is not None
    assert found.format == 1
    return found


def test_the_first_start_takes_the_state_over(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.install(FIRST, "t-1")
    bench.install(SECOND, "t-2")
    old = _as_first_format(bench)
    bench.agent().resume()
    new = StateFiles(bench.fs, bench.agent().layout).load()
    assert new == replace(old, format=STATE_FORMAT, record=old.record + 1)
    other = moves.decode_state(bench.agent().layout.state_copy(old.record % 2).read_bytes(), "the other copy")
    assert other == old, "the old copy stands until the next record"
    assert bench.install(FIRST, "t-3")["outcome"] == "committed"


def test_a_cut_while_taking_over_leaves_the_old_record(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.install(FIRST, "t-1")
    old = _as_first_format(bench)
    layout = bench.agent().layout
    (record, *_) = recover(old, bench.fs, layout, bench.agent().installer._parts.receipts, 2)
    data = moves.encode_state(record)
    path = layout.state_copy(record.record % 2)
    for length in range(0, len(data), 97):
        path.write_bytes(data[:length])
        assert StateFiles(bench.fs, layout).load() == old
    agent = bench.agent()
    agent.resume()
    assert agent.status().fields["state"]["active"] == FIRST.sha256


def _as_newer_format(bench: Bench, **changes: object) -> tuple[bytes, bytes]:
    layout = bench.agent().layout
    for which in (0, 1):
        path = layout.state_copy(which)
        plain = json.loads(unseal(path.read_bytes(), path.name))
        path.write_bytes(seal(canonical.encode(plain | {"format": STATE_FORMAT + 1, "slots": [1, 2]} | changes)))
    first, second = (layout.state_copy(which).read_bytes() for which in (0, 1))
    return first, second


def _copies(bench: Bench) -> tuple[bytes, bytes]:
    first, second = (bench.agent().layout.state_copy(which).read_bytes() for which in (0, 1))
    return first, second


def test_a_newer_agents_state_is_left_alone_and_scoring_goes_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.install(FIRST, "t-1")
    written = _as_newer_format(bench)
    files = bench.assign(SECOND, "t-2")
    for act in (lambda: bench.agent().resume(), lambda: bench.agent().assign(files)):
        with pytest.raises(RefusedError, match="written by a newer agent"):
            act()
    assert _copies(bench) == written
    bench.spool("a.csv", {"P-101A": quiet_rows(20, 1)}, NOW_MS + 60_000 * np.arange(20))
    scorer = Scorer(bench.platform, bench.agent().layout, bench.config, bench.limits, ModelCache())
    assert scorer.score_spool().rows == 20
    assert bench.status()["active"] == FIRST.sha256


def test_a_newer_record_beside_an_old_one_is_the_one_that_counts(tmp_path: Path) -> None:
    """An agent that was upgraded and set back must not go on from the record before the newer agent's last."""
    bench = Bench(tmp_path)
    bench.install(FIRST, "t-1")
    layout = bench.agent().layout
    state = StateFiles(bench.fs, layout).load()
    assert state is not None
    plain = canonical.to_plain(state) | {"format": STATE_FORMAT + 1, "record": state.record + 1}
    layout.state_copy((state.record + 1) % 2).write_bytes(seal(canonical.encode(plain)))
    with pytest.raises(RefusedError):
        bench.agent().resume()


def test_a_newer_state_that_does_not_say_what_runs_runs_nothing_and_is_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.install(FIRST, "t-1")
    written = _as_newer_format(bench, active={"folder": "elsewhere"})
    with pytest.raises(RefusedError):
        bench.agent().resume()
    told = StateFiles(bench.fs, bench.agent().layout).load()
    assert told is not None
    assert (told.phase, told.active) == (Phase.FAILED_INCONSISTENT, None)
    assert _copies(bench) == written
