"""D2: the agent is killed (SIGKILL) at each of its steps and at any moment, on a real disk, with packages of three sizes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pumpdeck_agent.platform_here import run_in_fork
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_agent.trial import TrialReport, TrialRequest, TrialRunner
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.ports import OpenFile
from pumpdeck_fleet.core.receipts import Outcome
from pumpdeck_packaging.package import BuiltPackage
from pumpdeck_packaging.package_reader import load_folder
from pumpdeck_sample.drills.bench import DeviceMaker, DrillSite, UnsyncedFileSystem, enrol, install, parse_receipt
from pumpdeck_sample.drills.packages import package

LIFE_S = 120.0
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


@dataclass(frozen=True)
class _Size:
    """A device that runs `first` in the folder `start`, and the update it is asked for."""

    maker: DeviceMaker
    start: Path
    first: BuiltPackage
    second: BuiltPackage
    files: dict[str, bytes]


def drill_kills(folder: Path, pool: TrialRunner, kills: int, seed: int = 1) -> dict[str, Any]:
    """At least `kills` kills over the three sizes: one before each step, the others at random moments."""
    chance = random.Random(seed)
    figures: dict[str, Any] = {"tried": 0, "bricked": 0, "wrong_model": 0, "cannot_retry": 0, "leaked": 0, "evidence": []}
    for place, (name, extra) in enumerate(SIZES.items()):
        size = _prepare(folder / name, pool, extra, chance)
        steps, took_s = _in_child(size, None, None)
        share = -(-kills // len(SIZES))
        every = max(1, -(-steps // max(1, share // 2)))
        moments: list[tuple[int | None, float | None]] = [(at, None) for at in range(0, steps, every)]
        moments += [(None, chance.uniform(0, took_s * 1.1)) for _ in range(max(0, share - len(moments)))]
        figures[f"steps_{name}"] = steps
        for number, moment in enumerate(moments):
            _kill_once(size, pool, moment, figures, f"{place}.{number}")
    return figures


def _prepare(folder: Path, pool: TrialRunner, extra: int, chance: random.Random) -> _Size:
    site, fs = DrillSite(folder), UnsyncedFileSystem()
    root = folder / "device"
    maker = enrol(fs, site, root)
    card = b"# Card\n" + chance.randbytes(extra).hex().encode()
    first, second = package(shift=0.0, card=card), package(shift=0.5, card=card[::-1])
    install(maker.agent(fs, pool), first, site.assign(first, "task-first"))
    start = folder / "start"
    shutil.copytree(root, start)
    return _Size(maker, start, first, second, site.assign(second, "task-second"))


def _in_child(size: _Size, kill_at: int | None, kill_s: float | None) -> tuple[int, float]:
    """Update in a fork that is killed at a step or after a time; returns the steps it counted (0 when killed) and its life."""

    def update() -> bytes:
        fs = KillingFileSystem(kill_at)
        install(size.maker.agent(fs, _ForkRunner()), size.second, size.files)
        return str(fs.steps).encode()

    began = time.monotonic()
    data, _ = run_in_fork(update, LIFE_S if kill_s is None else kill_s, 32)
    return int(data or 0), time.monotonic() - began


def _kill_once(
    size: _Size, pool: TrialRunner, moment: tuple[int | None, float | None], figures: dict[str, Any], where: str
) -> None:
    at, kill_s = moment
    root = size.maker.root
    shutil.rmtree(root)
    shutil.copytree(size.start, root)
    _in_child(size, at, kill_s)
    figures["tried"] += 1
    try:
        found = _look(size, pool)
    except (PumpdeckError, OSError) as error:
        found = ("bricked", f"{type(error).__name__}: {error}")
    if found is not None:
        figures[found[0]] += 1
        figures["evidence"].append(f"{found[0]}: {where} {moment}: {found[1]}")


def _look(size: _Size, pool: TrialRunner) -> tuple[str, str] | None:
    fs = UnsyncedFileSystem()
    agent = size.maker.agent(fs, pool)
    agent.resume()
    state = StateFiles(fs, agent.layout).load()
    if state is None or state.active is None:
        return "bricked", "nothing runs"
    if state.active_sha256 not in (size.first.sha256, size.second.sha256):
        return "wrong_model", state.active_sha256
    load_folder(fs, agent.layout.package(state.active_sha256), manifest_digest=state.active.manifest)
    receipt = parse_receipt(install(size.maker.agent(fs, pool), size.second, size.files).body, size.maker.identity)
    if receipt.outcome is not Outcome.COMMITTED or receipt.active_sha256 != size.second.sha256:
        return "cannot_retry", receipt.reason
    left = [*fs.listdir(agent.layout.incoming), *(set(fs.listdir(agent.layout.store)) - {size.first.sha256, size.second.sha256})]
    return ("leaked", left[0]) if left else None
