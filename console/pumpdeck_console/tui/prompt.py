"""The one-line prompt above the key line: ``/`` filters while you type, ``:`` jumps on Enter."""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding
from textual.message import Message
from textual.widgets import Input


class Prompt(Input):
    """An input that takes no room until it is asked for."""

    BINDINGS = [Binding("escape", "give_up", "close", show=False)]
    DEFAULT_CSS = """
    Prompt { height: 1; border: none; padding: 0 1; display: none; background: $panel; color: $foreground; }
    Prompt:focus { border: none; background-tint: $foreground 0%; }
    Prompt:ansi { background: ansi_default; color: ansi_default; }
    """

    @dataclass
    class Typed(Message):
        """The filter text changed."""

        text: str

    @dataclass
    class Closed(Message):
        """The prompt was left: ``accepted`` by Enter, or given up by Escape."""

        purpose: str
        text: str
        accepted: bool

    def __init__(self) -> None:
        super().__init__(id="prompt", select_on_focus=False, compact=True)
        self.cursor_blink = False
        self.purpose = ""

    def open(self, purpose: str, text: str, hint: str) -> None:
        """Show the prompt for ``filter`` or ``jump`` with a text to start from."""
        self.purpose = ""
        self.value = text
        self.placeholder = hint
        self.cursor_position = len(text)
        self.purpose = purpose
        self.display = True
        self.focus()

    def close(self, accepted: bool) -> None:
        purpose, self.purpose = self.purpose, ""
        self.display = False
        if purpose:
            self.post_message(self.Closed(purpose, self.value, accepted))

    def action_give_up(self) -> None:
        self.close(accepted=False)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if self.purpose == "filter":
            self.post_message(self.Typed(event.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.close(accepted=True)
