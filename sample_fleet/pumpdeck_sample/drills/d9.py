"""D9: commands repeated and in any order. D10: two deliverers at once, as SSH and a stick would be. One effect, one winner."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pumpdeck_agent.agent import Agent
from pumpdeck_agent.platform_here import FileLocks
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_agent.trial import TrialRunner
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_fleet.core.receipts import Outcome, ReturnKind
from pumpdeck_packaging.package import BuiltPackage
from pumpdeck_sample.drills.bench import (
    DeviceMaker,
    DrillSite,
    TrialBench,
    UnsyncedFileSystem,
    enrol,
    install,
    parse_receipt,
    push,
)
from pumpdeck_sample.drills.disk import RecordingDisk
from pumpdeck_sample.drills.packages import package

COMMANDS = 14


def drill_orders(folder: Path, trials: TrialBench, rounds: int, seed: int = 1) -> dict[str, Any]:
    """Commands of an older and a newer assignment by chance, restarts in between; then the newer one is asked for once more."""
    site, start = DrillSite(folder, keep_packages=9), RecordingDisk()
    maker = enrol(start, site)
    old, new = package(shift=0.0), package(shift=0.5)
    older, word = site.assign(old, "task-old"), site.downgrade_word(old)
    # One word of two people in two assignments, as after a copy: it serves one of them at most.
    back, copied = site.assign(old, "task-back", token=word), site.assign(old, "task-copied", token=word)
    newer = site.assign(new, "task-new")
    pairs = ((old, older), (old, back), (old, copied), (new, newer))
    figures = {"tried": 0, "commands": 0, "refused": 0, "other_effects": 0, "words_taken_twice": 0, "defects": 0}
    chance = random.Random(seed)
    for _ in range(rounds):
        disk = RecordingDisk(start.image())
        figures["tried"] += 1
        told = _shuffled(maker, trials, disk, chance, pairs, figures)
        agent = maker.agent(disk, trials.on(disk))
        told.append(install(agent, new, newer).body)
        receipts = {parse_receipt(data, maker.identity) for data in told if data}
        ends = [receipt for receipt in receipts if receipt.task == "task-new"]
        figures["words_taken_twice"] += {"task-back", "task-copied"} <= {receipt.task for receipt in receipts}
        state = StateFiles(disk, agent.layout).load()
        is_one = len(ends) == 1 and ends[0].outcome is Outcome.COMMITTED and len({r.counter for r in receipts}) == len(receipts)
        figures["other_effects"] += not (is_one and state is not None and state.active_sha256 == new.sha256)
    return figures


def _shuffled(
    maker: DeviceMaker,
    trials: TrialBench,
    disk: RecordingDisk,
    chance: random.Random,
    pairs: tuple[tuple[BuiltPackage, Mapping[str, bytes]], ...],
    figures: dict[str, int],
) -> list[bytes]:
    told: list[bytes] = []
    agent = maker.agent(disk, trials.on(disk))
    for _ in range(COMMANDS):
        built, files = chance.choice(pairs)
        command = chance.choice(("push", "chunk", "seal", "assign", "assign", "resume", "collect", "ack", "restart"))
        figures["commands"] += 1
        try:
            if command == "restart":
                agent = maker.agent(disk, trials.on(disk))
            else:
                told.extend(_command(agent, command, built, files))
        except PumpdeckError:
            figures["refused"] += 1
        except Exception:  # noqa: BLE001 - a defect is what is looked for
            figures["defects"] += 1
    return told


def _command(agent: Agent, command: str, built: BuiltPackage, files: Mapping[str, bytes]) -> list[bytes]:
    if command == "push":
        push(agent, built)
    elif command == "chunk":
        agent.chunk(built.sha256, 0, built.data[:65536])
    elif command == "seal":
        agent.seal(built.sha256, len(built.data))
    elif command == "assign":
        return [agent.assign(files).body]
    elif command == "resume":
        return [agent.resume().body]
    else:
        items, _ = agent.outbox.take(1 << 20)
        if command == "ack":
            agent.ack([item.digest for item, _ in items])
        return [data for item, data in items if item.kind is ReturnKind.RECEIPT]
    return []


def drill_two_at_once(folder: Path, pool: TrialRunner, rounds: int) -> dict[str, Any]:
    """Two deliverers on a real folder with real locks: both with the same word, or one of them with an older one."""
    site = DrillSite(folder)
    old, new = package(shift=0.0), package(shift=0.5)
    fs = UnsyncedFileSystem()
    figures = {"tried": 0, "other_effects": 0, "defects": 0, "leaked": 0}
    for number in range(rounds):
        maker = enrol(fs, site, folder / f"device-{number}")
        maker = replace(maker, limits=replace(maker.limits, lock_wait_s=60.0))
        first = (old, site.assign(old, f"old-{number}")) if number % 2 else None
        second = (new, site.assign(new, f"new-{number}"))
        figures["tried"] += 1
        told, defects = _race([maker.agent(fs, pool, locks=FileLocks()) for _ in range(2)], [first or second, second])
        figures["defects"] += defects
        agent = maker.agent(fs, pool)
        told.append(install(agent, *second).body)
        ends = {parse_receipt(data, maker.identity) for data in told if data}
        mine = [receipt for receipt in ends if receipt.task == f"new-{number}"]
        state = StateFiles(fs, agent.layout).load()
        is_one = len(mine) == 1 and state is not None and state.active_sha256 == new.sha256
        figures["other_effects"] += not is_one
        agent.resume()
        figures["leaked"] += bool(fs.listdir(agent.layout.incoming))
    return figures


def _race(agents: list[Agent], words: list[tuple[BuiltPackage, Mapping[str, bytes]]]) -> tuple[list[bytes], int]:
    told: list[bytes] = []
    defects: list[str] = []
    barrier = threading.Barrier(len(agents))

    def deliver(agent: Agent, built: BuiltPackage, files: Mapping[str, bytes]) -> None:
        barrier.wait()
        try:
            told.append(install(agent, built, files).body)
        except PumpdeckError:
            pass
        except Exception as error:  # noqa: BLE001 - a defect is what is looked for
            defects.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=deliver, args=(agent, *word)) for agent, word in zip(agents, words, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return told, len(defects)

