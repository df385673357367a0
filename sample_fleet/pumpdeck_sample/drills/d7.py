"""D7: a model that takes the device down in every trial, and power cuts on each of 20 boots. D8: clocks that jump."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from pumpdeck_agent.state import Phase
from pumpdeck_agent.state_files import StateFiles
from pumpdeck_agent.trial import TrialReport, TrialRequest
from pumpdeck_fleet.core.clock import DAY_MS
from pumpdeck_fleet.core.receipts import Outcome
from pumpdeck_sample.drills.bench import DeviceMaker, install, parse_receipt
from pumpdeck_sample.drills.disk import Image, RecordingDisk, Step
from pumpdeck_sample.drills.losses import Medium, Model
from pumpdeck_sample.drills.packages import NOW_MS
from pumpdeck_sample.drills.scenarios import Said, Scenario, Stories

BOOTS = 20
TEN_YEARS_MS = 3653 * DAY_MS


class PowerCut(BaseException):
    """The power is gone. Not an Exception: no handler of the program may catch it."""


class _CrashingRunner:
    def __init__(self) -> None:
        self.trials = 0

    def run(self, request: TrialRequest) -> TrialReport:
        del request
        self.trials += 1
        raise PowerCut


def drill_endless_crash(stories: Stories, every: int = 1, tries: int = 2) -> dict[str, Any]:
    """Starts until the old model runs again with nothing on trial: with no other cut, and with each boot cut at each step."""
    scenario = stories.named("update")
    maker = replace(stories.maker, limits=replace(stories.maker.limits, max_tries=tries))
    worst, most_trials, bricked, tried = 0, 0, 0, 0
    for cut_at in (None, *range(0, 60, every)):
        for model in Model:
            tried += 1
            starts, trials, is_fine = _boots(stories, maker, scenario, (cut_at, model))
            bricked += not is_fine
            most_trials = max(most_trials, trials)
            worst = max(worst, starts) if cut_at is None else worst
    return {
        "tried": tried,
        "starts": worst,
        "allowed_starts": tries + 1,
        "trials": most_trials,
        "too_many": int(worst > tries + 1) + int(most_trials > tries),
        "bricked": bricked,
    }


def drill_worn_out(stories: Stories, max_moves: int = 12) -> dict[str, int]:
    """A model that takes the device down in every trial, where the tries alone would go on for ever: the cap must end it."""
    scenario, limits = stories.named("update"), replace(stories.maker.limits, max_tries=1000, max_moves=max_moves)
    maker, runner, image = replace(stories.maker, limits=limits), _CrashingRunner(), scenario.start
    for boot in range(max_moves + 2):
        disk = RecordingDisk(image)
        try:
            agent = maker.agent(disk, runner)
            if boot == 0:
                install(agent, scenario.built, scenario.files)
            agent.resume()
        except PowerCut:
            pass
        image = disk.image()
    seen = RecordingDisk(image)
    state = StateFiles(seen, maker.layout).load()
    is_over = state is not None and state.phase is Phase.FAILED_INCONSISTENT and state.active_sha256 == scenario.before
    told = state is not None and state.receipts[-1].outcome is Outcome.FAILED_INCONSISTENT
    return {
        "trials_before_giving_up": runner.trials,
        "not_given_up": int(not (is_over and told)) + int(runner.trials > max_moves),
    }


def _boots(stories: Stories, maker: DeviceMaker, scenario: Scenario, cut: tuple[int | None, Model]) -> tuple[int, int, bool]:
    cut_at, model = cut
    runner, chance, is_fine = _CrashingRunner(), random.Random(7), True
    image: Image = scenario.start
    for boot in range(BOOTS + maker.limits.max_tries + 1):
        disk = RecordingDisk(image, fault=_cut(cut_at) if boot < BOOTS else None)
        try:
            agent = maker.agent(disk, runner)
            if boot == 0:
                disk.fault = None
                install(agent, scenario.built, scenario.files)
            agent.resume()
        except PowerCut:
            image = _left(image, disk, model, chance)
        else:
            image = disk.image()
        seen = RecordingDisk(image)
        state = StateFiles(seen, maker.layout).load()
        is_fine = is_fine and state is not None and state.active_sha256 == scenario.before
        is_fine = is_fine and stories.is_true(seen, scenario.before)
        if cut_at is None and state is not None and state.phase is Phase.ACTIVE:
            return boot, runner.trials, is_fine
    state = StateFiles(RecordingDisk(image), maker.layout).load()
    return BOOTS, runner.trials, is_fine and state is not None and state.phase is Phase.ACTIVE


def _cut(cut_at: int | None) -> Callable[[Step], None] | None:
    if cut_at is None:
        return None
    left = [cut_at]

    def cut(step: Step) -> None:
        del step
        left[0] -= 1
        if left[0] < 0:
            raise PowerCut

    return cut


def _left(start: Image, disk: RecordingDisk, model: Model, chance: random.Random) -> Image:
    """One of the disks that this cut may leave."""
    medium = Medium(start)
    for step in disk.steps:
        medium.apply(step)
    return chance.choice(list(medium.images(model, None, chance, 4)))


class _Jumping:
    """A clock that is ten years behind and ten years ahead by turns."""

    def __init__(self) -> None:
        self._asked = 0

    def now_ms(self) -> int:
        self._asked += 1
        return NOW_MS + (TEN_YEARS_MS if self._asked % 2 else -TEN_YEARS_MS)


class _Standing:
    def __init__(self, at_ms: int) -> None:
        self._at_ms = at_ms

    def now_ms(self) -> int:
        return self._at_ms


def drill_clocks(stories: Stories) -> dict[str, Any]:
    """Every scenario under four clocks: the decisions must be those of the right one."""
    clocks = {
        "ten_years_behind": lambda: _Standing(NOW_MS - TEN_YEARS_MS),
        "ten_years_ahead": lambda: _Standing(NOW_MS + TEN_YEARS_MS),
        "jumping": _Jumping,
    }
    figures = {"tried": 0, "other_decisions": 0}
    for scenario in stories.scenarios:
        right = _decisions(stories, scenario, _Standing(NOW_MS))
        for make in clocks.values():
            figures["tried"] += 1
            figures["other_decisions"] += _decisions(stories, scenario, make()) != right
    return figures


def _decisions(stories: Stories, scenario: Scenario, clock: Any) -> tuple[object, ...]:
    disk = RecordingDisk(scenario.start)
    agent = stories.maker.agent(disk, stories.trials.on(disk), clock)
    words = {word.said: word for word in scenario.run(agent)}
    receipt = parse_receipt(words[Said.ANSWERED].data, stories.maker.identity)
    state = StateFiles(disk, agent.layout).load()
    kept = (state.phase, state.active, state.previous, state.seq, state.failed, state.counter) if state else ()
    return (receipt.outcome, receipt.reason, receipt.active_sha256, receipt.counter, *kept)
