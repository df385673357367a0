"""docs/cli.md names every command with its help, and every exit code (UPDATE_GOLDEN=1 writes the table)."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pumpdeck_console.cli.root import root
from pumpdeck_fleet.core import errors

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"
BEGIN = "<!-- commands: tests/console/cli/test_docs.py keeps this table -->\n"
END = "<!-- end of commands -->\n"


def rows(group: click.Group, path: str) -> list[str]:
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found += rows(command, f"{path} {name}")
            continue
        arguments = [p.make_metavar(context) for p in command.params if isinstance(p, click.Argument)]
        options = [
            max(p.opts, key=len)
            for p in command.params
            if isinstance(p, click.Option) and p.name not in ("workspace", "as_json")
        ]
        takes_json = any(p.name == "as_json" for p in command.params)
        usage = " ".join([f"{path} {name}".strip(), *arguments])
        more = " ".join(f"`{option}`" for option in [*options, *(["--json"] if takes_json else [])])
        found.append(f"| `{usage}` | {command.get_short_help_str(200)} | {more} |")
    return found


def table() -> str:
    return "\n".join(["| command | does | options |", "|---|---|---|", *rows(root, "")]) + "\n"


def test_the_page_names_every_command_as_its_help_does():
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    wanted = before + BEGIN + table() + END + after
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(wanted, encoding="utf-8", newline="\n")
        text = wanted
    assert text == wanted


def test_the_page_has_every_exit_code():
    text = PAGE.read_text(encoding="utf-8")
    codes = [getattr(errors, name) for name in dir(errors) if name.startswith("EXIT_")]
    for code in (0, *codes):
        assert f"| {code} |" in text
