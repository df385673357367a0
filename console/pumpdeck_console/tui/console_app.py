"""The console app: holds the newest views, asks for more off the event loop, hands them to the screen on show."""

from __future__ import annotations

import gc
from collections.abc import Callable
from importlib import import_module
from typing import Any, ClassVar

from textual.binding import Binding
from textual.message import Message
from textual.screen import Screen

from pumpdeck_console.operations.views import FleetView, PlanView, health_counts
from pumpdeck_fleet.core.errors import PumpdeckError

from .action_desk import ActionDesk
from .asking import AskingApp, Threads
from .console_commands import console_commands
from .console_screen import ConsoleScreen
from .console_state import ActionMoved, Arrived, ConsoleSettings
from .dialogs import HelpDialog, PlanDialog
from .fleet_screen import FleetScreen
from .header import SCREENS, HeaderState, Notice
from .help_text import help_sections
from .lists_screen import ListsScreen
from .pages import ONE_SHOT, page_of
from .palette import PALETTES
from .readers import Actions
from .reading import ChangeSeen, ReadFailed, ViewRead
from .scroll_dialog import ScrollDialog
from .terminal import GLYPHS

REFRESH_S = 60.0
"""How often everything is read anew though nothing changed: ages grow and a silent pump becomes STALE."""
WATCH_S = 1.0
SLOW_AFTER = 3
"""Seconds after which a read under way is called slow."""
FIRST_SCREEN_S = 5.0
"""After this the first screen counts as done even when no fleet has come."""
HEADER_QUESTIONS = ("fleet", "rollouts", "link")


def _later(module: str, name: str) -> Callable[[], ConsoleScreen]:
    """Makes the screen when it is first gone to: start-up pays for the fleet alone."""

    def make() -> ConsoleScreen:
        found: ConsoleScreen = getattr(import_module(f".{module}", __package__), name)()
        return found

    return make


class ConsoleApp(AskingApp):
    """Pumpdeck's terminal console."""

    TITLE = "Pumpdeck"
    ENABLE_COMMAND_PALETTE = True
    DEFAULT_MODE = "fleet"
    MODES: ClassVar[dict[str, Any]] = {
        "fleet": FleetScreen,
        "models": _later("models_screen", "ModelsScreen"),
        "rollouts": _later("rollouts_screen", "RolloutsScreen"),
        "audit": _later("audit_screen", "AuditScreen"),
        "bundles": _later("bundles_screen", "BundlesScreen"),
        "runs": _later("runs_screen", "RunsScreen"),
        "trust": _later("trust_screen", "TrustScreen"),
        "upkeep": _later("upkeep_screen", "UpkeepScreen"),
    }
    BINDINGS: ClassVar[list[Any]] = [
        *(Binding(key, f"go('{name}')", name, show=False) for key, name, _title in SCREENS),
        Binding("slash", "filter", "filter", show=False),
        Binding("colon", "jump", "jump", show=False),
        Binding("question_mark,f1", "help", "help", show=False),
        Binding("c", "copy_command", "copy the command", show=False),
        Binding("x", "export('csv')", "export the table as CSV", show=False),
        Binding("X", "export('svg')", "export the screen as SVG", show=False),
        Binding("R", "reload", "read everything anew", show=False),
        Binding("ctrl+x", "cancel_action", "stop the running action", show=False),
        Binding("q,ctrl+q", "quit", "quit", show=False, priority=False),
    ]
    CSS = "ConsoleScreen { background: $background; } CommandPalette { background: transparent; }"

    def __init__(self, settings: ConsoleSettings, threads: Threads, actions: Actions) -> None:
        super().__init__(threads, ansi_color=settings.palette.theme.ansi)
        self.settings, self.actions = settings, actions
        self.palette, self.glyphs, self.selector = settings.palette, settings.glyphs, settings.selector
        self.failures: dict[str, PumpdeckError] = {}
        self.desk = ActionDesk(self, actions)
        self._info: Notice | None = None
        self._slow_ticks = 0
        self._is_slow = False
        self._first_screen_done = False
        if not settings.palette.uses_colour:
            self._filters = [one for one in self._filters if type(one).__name__ not in ("Monochrome", "NoColor")]
        for palette in PALETTES.values():
            self.register_theme(palette.theme)
        self.theme = settings.palette.name

    def now_ms(self) -> int:
        return self.settings.clock.now_ms()

    # Start and end

    def on_mount(self) -> None:
        if self.settings.is_paced:
            self.start_pacing()
        for thread in self.threads.all:
            thread.deliver_to(lambda outcome: self.post_from_thread(Arrived(outcome)))
        self.set_timer(FIRST_SCREEN_S, self._after_first_screen)
        self.set_interval(WATCH_S, self._watch)
        self.set_interval(REFRESH_S, self.action_reload)

    def post_from_thread(self, message: Message) -> None:
        """Post a message from any thread; dropped once the app has ended."""
        if self._running:
            self.post_message(message)

    def on_unmount(self) -> None:
        for thread in self.threads.all:
            thread.stop()
        if self.settings.on_fleet is not None and self.views.fleet is not None:
            self.settings.on_fleet(self.views.fleet)

    def _after_first_screen(self) -> None:
        """Once, when the fleet is on screen: freeze what will live for ever, then warm the worker."""
        if not self._first_screen_done:
            self._first_screen_done = True
            gc.collect()
            gc.freeze()
            gc.set_threshold(200_000, 20, 100)
            gc.enable()
            self.actions.warm()

    # Views

    @property
    def console_screen(self) -> ConsoleScreen | None:
        """The screen under any dialog."""
        return next((screen for screen in reversed(self.screen_stack) if isinstance(screen, ConsoleScreen)), None)

    def arrive_on(self, screen: ConsoleScreen) -> None:
        """A screen came to the front: draw what is known and ask for what it needs."""
        self.show_header()
        self._show_notice()
        screen.show_views()
        for name in screen.QUESTIONS:
            self.ask(name, at_once=False)

    @property
    def audit_words(self) -> str:
        return self.console_screen.filter_text() if self.console_screen else ""

    def on_arrived(self, message: Arrived) -> None:
        outcome = message.outcome
        if isinstance(outcome, ChangeSeen):
            self.failures.pop("change_token", None)
            self.show_header()
            self._show_notice()
            self._reload(at_once=False)
        elif isinstance(outcome, ReadFailed) and outcome.name in ONE_SHOT:
            self.say(outcome.error.sentence(), "error")
        elif isinstance(outcome, ReadFailed):
            self.failures[outcome.name] = outcome.error
            self.show_header()
            self._show_notice()
        else:
            self._take(outcome)

    def _take(self, read: ViewRead) -> None:
        self.failures.pop(read.name, None)
        if isinstance(read.view, PlanView):
            self.show_header()
            self._show_notice()
            self.desk.show(read.view)
            return
        page = page_of(read.name, read.view)
        if page is not None:
            if isinstance(self.screen, ConsoleScreen):
                self.push_screen(page)
            return
        self.views.take(read.name, read.view)
        self.show_header()
        self._show_notice()
        screen = self.console_screen
        if screen is not None and screen.is_mounted:
            screen.show_views()
        if isinstance(read.view, FleetView):
            self._prepare_filter(read.view)
            if not self._first_screen_done:
                self.call_after_refresh(self._after_first_screen)

    def _prepare_filter(self, view: FleetView) -> None:
        """Let the selector index new rows on the reader thread, so that the first key of a filter finds them ready."""
        self.threads.reading.ask("filter", lambda _readers: self.selector(view, "a"))

    def action_reload(self) -> None:
        self._reload(at_once=True)

    def _reload(self, *, at_once: bool) -> None:
        screen = self.console_screen
        for name in dict.fromkeys((*HEADER_QUESTIONS, *(screen.QUESTIONS if screen is not None else ()))):
            self.ask(name, at_once=at_once)
        if self.views.pump is not None and isinstance(screen, FleetScreen) and screen.pane.display:
            self.ask_pump(self.views.pump.pump_id)

    # Header and notices

    def show_header(self) -> None:
        screen = self.console_screen
        if screen is None:
            return
        views = self.views
        state = HeaderState(
            title=self.settings.title,
            screen=screen.NAME,
            as_of_ms=views.fleet.as_of_ms if views.fleet is not None else -1,
            counts=health_counts(views.fleet) if views.fleet is not None else (),
            rollout=views.running_rollout,
            link=views.link,
            is_stale=bool(self.failures) or self._is_slow,
            task=self.desk.words,
        )
        screen.show_header(state)

    def _show_notice(self) -> None:
        """The banner: a failing read wins over a slow one, that over a passing word."""
        screen = self.console_screen
        if screen is None:
            return
        notice = self._info
        if self.failures:
            name, error = next(iter(self.failures.items()))
            what = "" if name == "change_token" else f" ({name})"
            notice = Notice(f"Not up to date{what}: {error.sentence()}", "error")
        elif self._is_slow:
            notice = Notice(
                f"Reading ({self.threads.busy_with}) takes long; figures are old", "warn"
            )
        screen.show_notice(notice)

    def say(self, text: str, level: str = "info") -> None:
        """One line for the operator, until the next key."""
        self._info = Notice(text, level)
        self._show_notice()

    def unsay(self) -> None:
        """Take a passing word back."""
        if self._info is not None:
            self._info = None
            self._show_notice()

    def on_key(self) -> None:
        self.unsay()

    def _watch(self) -> None:
        """Once a second: has one read been under way for too long, is a slow question due, how long does an action take?"""
        self.ask_what_is_due()
        screen = self.console_screen
        for name in screen.WATCHED if screen is not None else ():
            self.ask(name)
        if self.desk.words and isinstance(screen, ListsScreen):
            screen.show_task()
        busy = bool(self.threads.busy_with)
        self._slow_ticks = self._slow_ticks + 1 if busy else 0
        is_slow = self._slow_ticks >= SLOW_AFTER
        if is_slow != self._is_slow:
            self._is_slow = is_slow
            self.show_header()
            self._show_notice()

    # Going places

    def action_go(self, name: str) -> None:
        if self.current_mode != name and not isinstance(self.screen, (HelpDialog, PlanDialog, ScrollDialog)):
            self.switch_mode(name)

    def action_filter(self) -> None:
        if isinstance(self.screen, ConsoleScreen) and self.screen.FILTER_HINT:
            self.screen.open_prompt("filter", self.screen.filter_text(), self.screen.FILTER_HINT)

    def action_jump(self) -> None:
        if isinstance(self.screen, ConsoleScreen):
            self.screen.open_prompt("jump", "", "P-101A  gannet  r-0007  models  theme mono")

    def jump(self, words: str) -> None:
        """Go to a screen, a pump, a site, a rollout or a model version, or change the theme or glyphs."""
        first, _, rest = words.partition(" ")
        if first in self.MODES and not rest:
            self.action_go(first)
        elif first == "theme" and rest in PALETTES:
            self.use_palette(rest)
        elif first == "glyphs" and rest in GLYPHS:
            self.use_glyphs(rest)
        elif words and isinstance(self.screen, ConsoleScreen) and not self.screen.jump_to(words):
            if isinstance(self.screen, FleetScreen):
                self.say(f"Nothing here is called {words}", "warn")
            else:
                self.switch_mode("fleet")
                self.call_after_refresh(self._jump_on_fleet, words)

    def _jump_on_fleet(self, words: str) -> None:
        if isinstance(self.screen, FleetScreen) and not self.screen.jump_to(words):
            self.say(f"Nothing here is called {words}", "warn")

    def use_palette(self, name: str) -> None:
        self.palette = PALETTES[name]
        self.ansi_color = self.palette.theme.ansi
        self.theme = name
        self._repaint()

    def use_glyphs(self, glyphs: str) -> None:
        self.glyphs = glyphs
        self._repaint()

    def _repaint(self) -> None:
        for stack in self._screen_stacks.values():
            for screen in stack:
                if isinstance(screen, ConsoleScreen):
                    screen.repaint()

    def action_help(self) -> None:
        if isinstance(self.screen, ConsoleScreen):
            self.push_screen(HelpDialog(help_sections(self.screen.NAME)))

    def action_copy_command(self) -> None:
        if isinstance(self.screen, ConsoleScreen):
            text = self.screen.command()
            self.copy_to_clipboard(text)
            self.say(f"$ {text}    (copied)")

    def action_export(self, kind: str) -> None:
        screen, exports = self.screen, self.settings.exports
        if not isinstance(screen, ConsoleScreen):
            return
        if exports is None:
            self.say("No folder to export to was given", "warn")
            return
        text = screen.csv_text() if kind == "csv" else self.export_screenshot(title=f"Pumpdeck {screen.NAME}")
        try:
            path = exports.write(screen.NAME, kind, text, self.now_ms())
        except OSError as error:
            self.say(f"Could not write {error.filename}: {error.strerror}", "error")
        else:
            self.say(f"Wrote {path}")

    # Actions

    def plan(self, operation: str, arguments: dict[str, str], reason_hint: str = "") -> None:
        """Plan an action and show the plan; with ``reason_hint`` the person is asked for a reason."""
        self.desk.plan(operation, arguments, reason_hint)

    def plan_in_worker(self, operation: str, planner: str, arguments: dict[str, str]) -> None:
        """As ``plan``, for a plan that only the worker can make."""
        self.desk.plan_in_worker(operation, planner, arguments)

    def on_action_moved(self, message: ActionMoved) -> None:
        has_ended = self.desk.moved(message)
        self.show_header()
        if isinstance(self.console_screen, ListsScreen):
            self.console_screen.show_task()
        if has_ended:
            self.action_reload()

    def action_cancel_action(self) -> None:
        self.desk.cancel()

    # Command palette

    def get_system_commands(self, screen: Screen[Any]) -> Any:  # noqa: ARG002 - Textual's signature
        yield from console_commands(self)
