"""Click groups whose commands are imported when they are called, and commands that all take `-w`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from pumpdeck_console.cli.session import Session

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _set_workspace(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.ensure_object(Session).choose(value)


def workspace_option() -> click.Option:
    """`-w DIR`, understood before and after the name of the command."""
    return click.Option(
        ["-w", "--workspace", "workspace"],
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        expose_value=False,
        callback=_set_workspace,
        help="The workspace folder; else PUMPDECK_WORKSPACE, else the platform's data folder.",
    )


class WorkspaceCommand(click.Command):
    """A command that takes `-w DIR` too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(workspace_option())
        self.context_settings = {**CONTEXT_SETTINGS, **self.context_settings}


class LazyGroup(click.Group):
    """A group that knows each command's one-line help and imports the command only when it is called.

    `lazy` maps a command's name to (``module:attribute``, one line of help); `default` names the command that runs
    when the first word is none of them, so that ``pumpdeck pumps site:gannet`` lists.
    """

    command_class = WorkspaceCommand

    def __init__(
        self,
        *args: Any,
        lazy: Mapping[str, tuple[str, str]] | None = None,
        default: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})
        self.default = default
        self.params.append(workspace_option())
        self.context_settings = {**CONTEXT_SETTINGS, **self.context_settings}

    def list_commands(self, ctx: click.Context) -> list[str]:
        names = [*self.lazy, *(name for name in super().list_commands(ctx) if name not in self.lazy)]
        if ctx.parent is None:
            return names  # the loop from first use to proof, as the table tells it
        return sorted(names, key=lambda name: (name != self.default, name))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in self.lazy and cmd_name not in self.commands:
            module, _, attribute = self.lazy[cmd_name][0].partition(":")
            self.add_command(getattr(importlib.import_module(module), attribute), cmd_name)
        return super().get_command(ctx, cmd_name)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if self.default and not self._names_a_command(ctx, args):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def _names_a_command(self, ctx: click.Context, args: list[str]) -> bool:
        rest = list(args)
        while rest and rest[0] in ("-w", "--workspace"):
            rest = rest[2:]
        return bool(rest) and (rest[0] in self.list_commands(ctx) or rest[0] in ctx.help_option_names)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, self.short_help_of(ctx, name)) for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def short_help_of(self, ctx: click.Context, name: str) -> str:
        """One line for the list of commands, without importing the command when the table knows it."""
        if name in self.lazy:
            return self.lazy[name][1]
        command = super().get_command(ctx, name)
        return command.get_short_help_str(80) if command is not None else ""
