"""Actions that change things: planned first, shown, accepted by a person, then run in the worker; one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pumpdeck_console.operations.views import PlanView
from pumpdeck_fleet.core.errors import PumpdeckError

from .console_screen import ConsoleScreen
from .console_state import ActionMoved
from .dialogs import PlanDialog
from .header import task_text
from .outcomes import outcome_words
from .readers import Actions, Submission

if TYPE_CHECKING:
    from .console_app import ConsoleApp


class ActionDesk:
    """Keeps the one action that is planned or under way."""

    def __init__(self, app: ConsoleApp, actions: Actions) -> None:
        self._app, self._actions = app, actions
        self._operation = ""
        self._arguments: dict[str, str] = {}
        self._reason_hint = ""
        self._submission: Submission | None = None
        self.words = ""
        """What is under way, for the header."""

    def plan(self, operation: str, arguments: dict[str, str], reason_hint: str) -> None:
        """Ask what an action would do; the dialog opens when the answer comes."""
        if self._submission is not None:
            self._app.say("One action is under way; ctrl+x stops it", "warn")
            return
        self._operation, self._arguments, self._reason_hint = operation, arguments, reason_hint
        self._app.say("Planning ...")
        self._app.asking.ask("plan", lambda readers: readers.plan(operation, arguments), operation)

    def show(self, plan: PlanView) -> None:
        """Open the dialog for the plan that was asked for last."""
        self._app.unsay()
        if plan.operation != self._operation or not isinstance(self._app.screen, ConsoleScreen):
            return
        arguments = {**self._arguments, **dict(plan.arguments)}

        def answered(reason: str | None) -> None:
            if reason is not None:
                self._submit(plan, {**arguments, "reason": reason} if reason else arguments)

        self._app.push_screen(PlanDialog(plan, self._reason_hint), answered)

    def _submit(self, plan: PlanView, arguments: dict[str, str]) -> None:
        title = plan.title

        def progress(part: float, step: str) -> None:
            self._app.post_from_thread(ActionMoved(title, part, step))

        try:
            submission = self._actions.submit(plan.operation, arguments, progress)
        except PumpdeckError as error:
            self._app.say(error.sentence(), "error")
            return
        self._submission = submission
        self.words = task_text(title, float("nan"), "starts")
        self._app.show_header()
        submission.on_done(lambda: self._app.post_from_thread(ActionMoved(title, 1.0, "", submission)))

    def moved(self, message: ActionMoved) -> bool:
        """Take progress or the end; true when the action has ended."""
        if message.ended is None:
            if self._submission is not None:
                self.words = task_text(message.title, message.part, message.step)
            return False
        self._submission, self.words = None, ""
        try:
            result = message.ended.result(0)
        except PumpdeckError as error:
            self._app.say(f"{message.title}: {error.sentence()}", "error")
        else:
            self._app.say(*outcome_words(self._operation, message.title, result))
        return True

    def cancel(self) -> None:
        """Ask the running action to stop at its next safe point."""
        if self._submission is not None:
            self._submission.cancel()
            self._app.say("Asked the running action to stop")
