"""D2: the agent is killed (SIGKILL) at each of its steps and at any moment, on a real disk.

It takes packages of three sizes, one that is scored in the shadow first, and an older one that failed before and comes back
by two people's word.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pumpdeck_agent.agent import Agent
from pumpdeck_agent.platform_here import run_in_fork
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_agent.trial import TrialReport, TrialRequest, TrialRunner, failed
from pumpdeck_fleet.core.errors import PumpdeckError, ReplayError
from pumpdeck_fleet.core.ports import OpenFile
from pumpdeck_fleet.core.receipts import Outcome, Terms
from pumpdeck_packaging.package import BuiltPackage
from pumpdeck_packaging.package_reader import load_folder
from pumpdeck_sample.drills.bench import DeviceMaker, DrillSite, UnsyncedFileSystem, enrol, install, parse_receipt
from pumpdeck_sample.drills.packages import package
from pumpdeck_sample.drills.scenarios import SHADOW_S, score_beside

LIFE_S = 120.0
# With so many kills an update none of its steps is left out.
_EACH_STEP_FROM = 100
SIZES = {"small": 0, "200_kb": 200_000, "3_mb": 3_000_000}


class KillingFileSystem(UnsyncedFileSystem):
    """Kills its own process before the step of that number; None: never."""

    def __init__(self, at: int | None) -> None:
        self.steps = 0
        self._at = at

    def step(self) -> None:
        if self.steps == self._at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.steps += 1

    def open_write(self, path: Path, *, truncate: bool = True) -> OpenFile:
        self.step()
        handle = super().open_write(path, truncate=truncate)
        write = handle.write

        def write_in_two(data: bytes) -> int:
            self.step()
            done = write(data[: len(data) // 2])
            self.step()
            return done + write(data[len(data) // 2 :])

        handle.write = write_in_two  # type: ignore[method-assign]
        return handle

    def mkdir(self, path: Path) -> None:
        self.step()
        super().mkdir(path)

    def rename(self, source: Path, target: Path) -> None:
        self.step()
        super().rename(source, target)

    def unlink(self, path: Path) -> None:
        self.step()
        super().unlink(path)


class _ForkRunner:
    def run(self, request: TrialRequest) -> TrialReport:
        """A real trial in a fork of this process, which has everything imported."""
        from pumpdeck_agent.trial_pool import try_in_fork  # deferred: it loads onnxruntime

        return try_in_fork(request)


class _FailingRunner:
    def run(self, request: TrialRequest) -> TrialReport:
        """What a package must have met that is tried a second time."""
        del request
        return failed("a drill")


@dataclass(frozen=True)
class _Update:
    """A device that runs `before` in the folder `start`, and the update to `built` it is asked for.

    `replay`: a later assignment with the same downgrade word; empty where there is none.
    """

    maker: DeviceMaker
    start: Path
    before: str
    built: BuiltPackage
    files: Mapping[str, bytes]
    is_shadowed: bool = False
    replay: Mapping[str, bytes] = field(default_factory=dict)

    def run(self, agent: Agent) -> bytes:
        """The receipt's envelope, after everything that it needs."""
        answer = install(agent, self.built, self.files)
        if self.is_shadowed and not answer.body:
            score_beside(agent, self.built)
            answer = agent.assign(self.files)
        return answer.body


def drill_kills(folder: Path, pool: TrialRunner, kills: int, seed: int = 1) -> dict[str, Any]:
    """At least `kills` kills over all updates: one before each step (in the short form some), the others at random."""
    chance = random.Random(seed)
    figures: dict[str, Any] = {
        "tried": 0,
        "bricked": 0,
        "wrong_model": 0,
        "cannot_retry": 0,
        "leaked": 0,
        "evidence": [],
    }
    share = -(-kills // (len(SIZES) + 2))
    for place, (name, update) in enumerate(_updates(folder, pool, chance)):
        steps, took_s = _in_child(update, None, None)
        every = 1 if share >= _EACH_STEP_FROM else max(1, -(-steps // max(1, share // 2)))
        moments: list[tuple[int | None, float | None]] = [(at, None) for at in range(0, steps, every)]
        moments += [(None, chance.uniform(0, took_s * 1.1)) for _ in range(max(0, share - len(moments)))]
        figures |= {f"steps_{name}": steps, f"kills_{name}": len(moments)}
        for number, moment in enumerate(moments):
            _kill_once(update, pool, moment, figures, f"{place}.{number}")
    return figures


def _updates(folder: Path, pool: TrialRunner, chance: random.Random) -> Iterator[tuple[str, _Update]]:
    for name, extra in SIZES.items():
        card = b"# Card\n" + chance.randbytes(extra).hex().encode()
        first, second = package(shift=0.0, card=card), package(shift=0.5, card=card[::-1])
        site, maker = _device(folder / name, pool, [first])
        yield name, _ready(maker, first, second, site.assign(second, "task-second"))
    first, second, third = (package(shift=shift) for shift in (0.0, 0.5, 0.9))
    site, maker = _device(folder / "shadow", pool, [first])
    shadowed = site.assign(second, "task-second", Terms(shadow_s=SHADOW_S))
    yield "shadow", replace(_ready(maker, first, second, shadowed), is_shadowed=True)
    site, maker = _device(folder / "downgrade", pool, [first, second, third])
    install(
        maker.agent(UnsyncedFileSystem(), _FailingRunner()),
        first,
        site.assign(first, "task-failed", token=site.downgrade_word(first, "1" * 32)),
    )
    token = site.downgrade_word(first, "2" * 32)
    down = site.assign(first, "task-down", Terms(retry=True), token)
    replay = site.assign(first, "task-replay", Terms(retry=True), token)
    yield "downgrade", replace(_ready(maker, third, first, down), replay=replay)


def _device(folder: Path, pool: TrialRunner, history: Sequence[BuiltPackage]) -> tuple[DrillSite, DeviceMaker]:
    """A device that ran these packages one after the other and runs the last."""
    site, fs = DrillSite(folder, keep_packages=9), UnsyncedFileSystem()
    maker = enrol(fs, site, folder / "device")
    for number, built in enumerate(history):
        install(maker.agent(fs, pool), built, site.assign(built, f"task-{number}"))
    return site, maker


def _ready(maker: DeviceMaker, before: BuiltPackage, built: BuiltPackage, files: Mapping[str, bytes]) -> _Update:
    start = maker.root.with_name("start")
    shutil.copytree(maker.root, start)
    return _Update(maker, start, before.sha256, built, files)


def _in_child(update: _Update, kill_at: int | None, kill_s: float | None) -> tuple[int, float]:
    """Update in a fork that is killed at a step or after a time; returns the steps it counted (0 when killed) and its life."""

    def work() -> bytes:
        fs = KillingFileSystem(kill_at)
        update.run(update.maker.agent(fs, _ForkRunner()))
        return str(fs.steps).encode()

    began = time.monotonic()
    data, _ = run_in_fork(work, LIFE_S if kill_s is None else kill_s, 32)
    return int(data or 0), time.monotonic() - began


def _kill_once(
    update: _Update, pool: TrialRunner, moment: tuple[int | None, float | None], figures: dict[str, Any], where: str
) -> None:
    at, kill_s = moment
    root = update.maker.root
    shutil.rmtree(root)
    shutil.copytree(update.start, root)
    _in_child(update, at, kill_s)
    figures["tried"] += 1
    try:
        found = _look(update, pool)
    except (PumpdeckError, OSError) as error:
        found = ("bricked", f"{type(error).__name__}: {error}")
    if found is not None:
        figures[found[0]] += 1
        figures["evidence"].append(f"{found[0]}: {where} {moment}: {found[1]}")


def _look(update: _Update, pool: TrialRunner) -> tuple[str, str] | None:
    fs = UnsyncedFileSystem()
    agent = update.maker.agent(fs, pool)
    agent.resume()
    state = StateFiles(fs, agent.layout).load()
    if state is None or state.active is None:
        return "bricked", "nothing runs"
    if state.active_sha256 not in (update.before, update.built.sha256):
        return "wrong_model", state.active_sha256
    load_folder(fs, agent.layout.package(state.active_sha256), manifest_digest=state.active.manifest)
    again = update.maker.agent(fs, pool)
    receipt = parse_receipt(update.run(again), update.maker.identity)
    if receipt.outcome is not Outcome.COMMITTED or receipt.active_sha256 != update.built.sha256:
        return "cannot_retry", receipt.reason
    if update.is_shadowed and not receipt.shadow:
        return "wrong_model", "committed without its shadow hours"
    if update.replay and not _is_refused(again, update.replay):
        return "wrong_model", "a downgrade word was taken twice"
    state = StateFiles(fs, agent.layout).load()
    kept = state.packages_in_use if state else frozenset()
    left = [*fs.listdir(agent.layout.incoming), *(set(fs.listdir(agent.layout.store)) - kept)]
    return ("leaked", left[0]) if left else None


def _is_refused(agent: Agent, files: Mapping[str, bytes]) -> bool:
    try:
        agent.assign(files)
    except ReplayError:
        return True
    return False
