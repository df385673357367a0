"""The door: exit codes, one sentence, help for everything."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from pumpdeck_console import __version__, main
from pumpdeck_console.cli.lazy import LazyGroup
from pumpdeck_console.cli.root import root
from pumpdeck_fleet.core import errors

ROOT = Path(__file__).parents[3]
HEAVY = {
    "sklearn",
    "pandas",
    "onnxruntime",
    "onnx",
    "textual",
    "paramiko",
    "httpx",
    "numpy",
    "cryptography",
    "tuf",
    "rich",
}


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, name
        found.append(((*path, name), command))
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
    return found


ALL = commands(root)


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_every_command_and_every_option_has_help(path, command):
    assert command.help
    assert command.get_short_help_str(80).strip()
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{' '.join(path)} {parameter.opts}"


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_the_line_in_the_list_of_commands_is_the_one_of_the_command(path, command):
    parent: click.Command = root
    for name in path[:-1]:
        parent = parent.get_command(click.Context(parent), name)
    if isinstance(parent, LazyGroup) and path[-1] in parent.lazy:
        assert parent.lazy[path[-1]][1] == command.get_short_help_str(100)


def test_help_lists_every_command_and_ends_with_0(capsys):
    assert main.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in root.list_commands(click.Context(root)))


def test_the_version_is_that_of_the_distribution(capsys):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert main.main(["--version"]) == 0
    assert capsys.readouterr().out == f"pumpdeck {project['version']}\n"
    assert __version__ == project["version"]


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(importlib.import_module("pumpdeck_console.wiring"), "open_workspace", broken)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.PumpdeckError("defect"), 1),
        (errors.UsageError("usage"), 2),
        (errors.InputError("input"), 2),
        (errors.QueryError("query"), 2),
        (errors.RefusedError("refused"), 3),
        (errors.GateRefusedError("gate"), 3),
        (errors.TrustError("trust"), 3),
        (errors.UnreachableError("unreachable"), 4),
        (errors.DamagedError("damaged"), 5),
        (errors.DigestMismatchError("digest"), 5),
        (errors.NotFoundError("not found"), 6),
        (errors.ConflictError("conflict"), 7),
        (errors.BusyError("busy"), 7),
        (KeyboardInterrupt(), 130),
        (ZeroDivisionError("division by zero"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_every_error_ends_with_its_exit_code_and_one_line_on_stderr(error, code, monkeypatch, capsys):
    fail_with(error, monkeypatch)
    assert main.main(["sites"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip().count("\n") == 0
    assert "Traceback" not in err
    assert main.main(["sites", "--json"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["exit_code"] == code


def test_a_missing_workspace_is_not_found_and_says_what_to_type(tmp_path, capsys):
    assert main.main(["-w", str(tmp_path / "none"), "sites"]) == 6
    assert "init" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["nonsense"], ["sites", "--nonsense"], []], ids=["command", "option", "no terminal"])
def test_a_wrong_call_ends_with_2(words, capsys):
    assert main.main(words) == 2
    assert "--help" in capsys.readouterr().err


def test_version_and_help_import_nothing_heavy():
    code = (
        "import sys; from pumpdeck_console.main import main; main(['--version']); main(['--help'])\n"
        f"print('HEAVY', sorted(set(sys.modules) & {HEAVY!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_output_that_the_code_page_lacks_does_not_end_the_program():
    code = "import sys; from pumpdeck_console.main import main; c = main(['--version']); print('\\u2713'); sys.exit(c)"
    environment = {**__import__("os").environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False, timeout=60)
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith(b"?")


def test_listing_pumps_imports_nothing_heavy(seeded):
    code = (
        "import sys; from pumpdeck_console.main import main; c = main(sys.argv[1:])\n"
        f"sys.stderr.write('HEAVY ' + repr(sorted(set(sys.modules) & {HEAVY!r})))"
    )
    for words in (
        ["pumps", "--json"],
        ["pumps"],
        ["sites"],
        ["devices"],
        ["pumps", "site:gannet health>=drift"],
        ["drift"],
    ):
        command = [sys.executable, "-c", code, "-w", str(seeded), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert done.stderr == "HEAVY []", words
