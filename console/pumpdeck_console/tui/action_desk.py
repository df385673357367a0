"""Actions that change things: planned first, shown, accepted by a person, then run in the worker.

One at a time, but for the urgent ones (``readers.URGENT``): halting a rollout never waits for the delivery that carries it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pumpdeck_console.operations.views import PlanView
from pumpdeck_fleet.core.errors import PumpdeckError

from .console_screen import ConsoleScreen
from .console_state import ActionMoved, Asked
from .dialogs import PlanDialog
from .header import task_text
from .outcomes import outcome_words
from .readers import URGENT, Actions, Submission
from .task_log import TaskLog

if TYPE_CHECKING:
    from .console_app import ConsoleApp


@dataclass
class _Running:
    """One submission; ``plan_for`` names the operation whose plan it works out, empty for an action itself."""

    operation: str
    title: str
    submission: Submission
    log: TaskLog
    plan_for: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)


class ActionDesk:
    """Keeps what is planned and what is under way."""

    def __init__(self, app: ConsoleApp, actions: Actions) -> None:
        self._app, self._actions = app, actions
        self.asked = Asked("", {}, "")
        self._running: dict[int, _Running] = {}
        self._next = 0
        self.log: TaskLog | None = None
        """The story of the newest action, also after its end."""

    @property
    def words(self) -> str:
        """What is under way, for the header."""
        one = self._ordinary()
        if one is None:
            return ""
        step = one.log.newest
        return task_text(one.title, one.log.part, step.name if step is not None else "starts")

    def _ordinary(self) -> _Running | None:
        return next((one for one in self._running.values() if one.operation not in URGENT), None)

    def _is_free(self, operation: str) -> bool:
        if operation in URGENT or self._ordinary() is None:
            return True
        self._app.say("One action is under way; ctrl+x stops it", "warn")
        return False

    def plan(self, operation: str, arguments: Mapping[str, str], reason_hint: str) -> None:
        """Ask what an action would do; the dialog opens when the answer comes."""
        if not self._is_free(operation):
            return
        asked = self.asked = Asked(operation, dict(arguments), reason_hint)
        self._app.say("Planning ...")
        self._app.threads.asking.ask("plan", lambda readers: readers.plan(operation, asked.arguments), operation)

    def plan_in_worker(self, operation: str, planner: str, arguments: Mapping[str, str]) -> None:
        """As ``plan``, for a plan that takes the worker: ``planner`` is the operation that works it out."""
        if self._is_free(operation):
            self.asked = Asked(operation, dict(arguments), "")
            self._submit(planner, f"Planning {operation}", dict(arguments), operation)

    def show(self, plan: PlanView) -> None:
        """Open the dialog for the plan that was asked for last."""
        self._app.unsay()
        asked = self.asked
        if plan.operation != asked.operation or not isinstance(self._app.screen, ConsoleScreen):
            return
        arguments: dict[str, object] = {**asked.arguments, **dict(plan.arguments)}

        def answered(reason: str | None) -> None:
            if reason is not None:
                self._submit(plan.operation, plan.title, {**arguments, "reason": reason} if reason else arguments)

        self._app.push_screen(PlanDialog(plan, asked.reason_hint), answered)

    def _submit(self, operation: str, title: str, arguments: Mapping[str, object], plan_for: str = "") -> None:
        if not self._is_free(operation):
            return
        number = self._next = self._next + 1

        def progress(step: str, done: int, total: int) -> None:
            self._app.post_from_thread(ActionMoved(number, step, done, total))

        try:
            submission = self._actions.submit(operation, arguments, progress)
        except PumpdeckError as error:
            self._app.say(error.sentence(), "error")
            return
        log = TaskLog(operation, title, self._app.now_ms())
        words = {name: str(value) for name, value in arguments.items()}
        self._running[number] = _Running(operation, title, submission, log, plan_for, words)
        if not plan_for:
            self.log = log
        self._app.show_header()
        submission.on_done(lambda: self._app.post_from_thread(ActionMoved(number, has_ended=True)))

    def moved(self, message: ActionMoved) -> bool:
        """Take progress or the end; true when an action has ended that may have changed something."""
        one = self._running.get(message.number)
        if one is None:
            return False
        if not message.has_ended:
            one.log.told(message.step, message.done, message.total, self._app.now_ms())
            return False
        del self._running[message.number]
        try:
            result = one.submission.result(0)
        except PumpdeckError as error:
            self._end(one, f"{one.title}: {error.sentence()}", "error")
            return not one.plan_for
        if one.plan_for:
            from pumpdeck_console.operations.worker_plans import plan_of_result  # deferred: few plans take the worker

            self.show(plan_of_result(one.plan_for, one.arguments, result))
            return False
        self._end(one, *outcome_words(one.operation, one.title, result))
        return True

    def _end(self, one: _Running, words: str, level: str) -> None:
        one.log.end(words, level, self._app.now_ms())
        self._app.say(words, level)

    def cancel(self) -> None:
        """Ask the running action to stop at its next safe point."""
        one = self._ordinary()
        if one is not None:
            one.submission.cancel()
            self._app.say("Asked the running action to stop")
