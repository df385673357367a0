"""Power cuts at every step of scoring: no row is lost, none counts twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pumpdeck_agent.return_items import close_open_segments
from pumpdeck_agent.runtime import ModelCache
from pumpdeck_agent.scorer import Scorer
from pumpdeck_fleet.core.receipts import ReturnKind
from pumpdeck_fleet.numeric.columns import decode_chunk
from support.devices import NOW_MS, Bench, package, quiet_rows
from support.forgetful_disk import ForgetfulDisk, Loss, PowerCut

ROOT = Path("/device")
ROWS = 40
MODELS = ModelCache()


class Drill:
    """A device with a model and three files of two pumps in its spool; each try starts from there."""

    def __init__(self, tmp_path: Path) -> None:
        disk = ForgetfulDisk()
        self.bench = Bench(tmp_path, fs=disk, root=ROOT)
        self.bench.install(package())
        at = NOW_MS + 60_000 * np.arange(3 * ROWS, dtype=np.int64)
        rows = {tag: quiet_rows(3 * ROWS, seed) for seed, tag in enumerate(self.bench.tags)}
        rows["P-101A"][30:90, 2] += np.float32(6)
        for number in range(3):
            part = slice(number * ROWS, (number + 1) * ROWS)
            self.bench.spool(f"{number}.csv", {tag: values[part] for tag, values in rows.items()}, at[part])
        disk.sync_all()
        self.start = disk.after_cut(Loss.NOTHING)
        self.expected = self.outcome(self.start.after_cut(Loss.NOTHING))

    def use(self, disk: ForgetfulDisk) -> Scorer:
        bench = self.bench
        bench.fs = disk
        bench.platform = bench.platform.__class__(
            disk, bench.clock, bench.platform.locks, bench.platform.is_clock_synced
        )
        agent = bench.agent()
        return Scorer(bench.platform, agent.layout, agent.config, bench.limits, MODELS)

    def close(self) -> None:
        agent = self.bench.agent()
        close_open_segments(self.bench.platform, agent.layout, agent.config, self.bench.limits, agent.outbox)

    def run(self, disk: ForgetfulDisk) -> None:
        """Score, let a console ask in between, score on."""
        scorer = self.use(disk)
        scorer.score_spool(max_files=1)
        self.close()
        scorer.score_spool()

    def outcome(self, disk: ForgetfulDisk) -> dict[str, object]:
        """Finish the work and say what came out: rows and scores by time, alarms, sketched rows, counts."""
        self.run(disk)
        self.close()
        agent = self.bench.agent()
        found: dict[str, object] = {"waiting": disk.listdir(agent.layout.spool_in)}
        for item, data in agent.outbox.take(1 << 30)[0]:
            key = f"{item.kind.value} {item.pump}"
            if item.kind in (ReturnKind.SCORES, ReturnKind.SEGMENT):
                frame = decode_chunk(data.partition(b"\n")[2])
                rows = found.setdefault(key, [])
                rows += zip(frame.at_ms.tolist(), map(tuple, frame.values.tolist()), strict=True)  # type: ignore[operator]
            elif item.kind is not ReturnKind.RECEIPT:
                found.setdefault(key, []).append((item.start_ms, data))  # type: ignore[attr-defined]
        found["pumps"] = self.bench.status()["pumps"]
        return {key: sorted(value) if isinstance(value, list) else value for key, value in found.items()}


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Drill:
    return Drill(tmp_path_factory.mktemp("site"))


def test_the_undisturbed_run_scores_everything(drill: Drill) -> None:
    assert drill.expected["waiting"] == []
    assert len(drill.expected["scores P-101A"]) == 3 * ROWS  # type: ignore[arg-type]
    assert len(drill.expected["alarm P-101A"]) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", list(Loss))
def test_a_cut_at_any_step_loses_no_row_and_repeats_none(drill: Drill, loss: Loss) -> None:
    step = 0
    while True:
        disk = drill.start.after_cut(Loss.NOTHING)
        disk.cut_at = step
        try:
            drill.run(disk)
        except PowerCut:
            assert drill.outcome(disk.after_cut(loss, seed=step)) == drill.expected
            step += 1
            continue
        break
    print(f"scoring, {loss.name}: {step} cuts, 0 rows lost, 0 repeated")
    assert step > 60
