"""The door of the program: arguments in, exit code out. Nothing heavy is imported before a command asks for it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pumpdeck_console import __version__
from pumpdeck_fleet.core.errors import EXIT_DEFECT, EXIT_INTERRUPTED, EXIT_USAGE, PumpdeckError
from pumpdeck_fleet.core.plain_text import plain

if TYPE_CHECKING:
    import click

# Read by onnxruntime when it is first imported, here and in every process started from here: its wheels phone home.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

DETAILS_ENV = "PUMPDECK_TRACEBACK"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (docs/cli.md has the table)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _make_streams_safe()
    if words in (["--version"], ["-V"]):
        sys.stdout.write(f"pumpdeck {__version__}\n")
        return 0
    as_json = "--json" in words
    try:
        return _open_console(None) if not words and _is_terminal() else _call(words, as_json)
    except PumpdeckError as error:
        _say(error.as_dict() if as_json else error.sentence(), as_json)
        return error.exit_code
    except KeyboardInterrupt:
        return _end_interrupted(as_json)
    except BrokenPipeError:
        return _end_broken_pipe()
    except Exception as error:  # noqa: BLE001 - the last door: a defect still ends as one sentence and exit code 1
        return _end_defect(error, as_json)


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _open_console(path: Path | None) -> int:
    from pumpdeck_console.start import open_console  # deferred: only the console needs it

    return open_console(path)


def _call(words: list[str], as_json: bool) -> int:
    import click  # deferred: neither `--version` nor the console's first frame waits for it

    from pumpdeck_console.cli.root import root  # deferred with click
    from pumpdeck_console.cli.session import ConsoleWanted  # deferred with click

    try:
        result: object = root.main(args=words, prog_name="pumpdeck", standalone_mode=False)
    except click.exceptions.Exit as done:
        return int(done.exit_code)
    except click.Abort:
        return _end_interrupted(as_json)
    except click.ClickException as error:
        return _end_usage(error, as_json)
    if isinstance(result, ConsoleWanted):
        try:
            return _open_console(result.path)
        finally:
            result.on_end()
    return result if isinstance(result, int) else 0


def _end_interrupted(as_json: bool) -> int:
    _say({"error": "Interrupted", "exit_code": EXIT_INTERRUPTED} if as_json else "interrupted", as_json)
    return EXIT_INTERRUPTED


def _end_usage(error: click.ClickException, as_json: bool) -> int:
    context = getattr(error, "ctx", None)
    hint = f"see: {context.command_path} --help" if context is not None else "see: pumpdeck --help"
    what = error.format_message().rstrip(".")
    if as_json:
        found = {"error": "UsageError", "what": what, "which": "", "expected": "", "found": "", "hint": hint}
        _say({**found, "exit_code": EXIT_USAGE}, True)
    else:
        _say(f"{what}. {hint[0].upper()}{hint[1:]}", False)
    return EXIT_USAGE


def _end_broken_pipe() -> int:
    # The reader of our output went away (`pumpdeck pumps | head`). Python would complain again while it flushes at exit.
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    return 0


def _end_defect(error: Exception, as_json: bool) -> int:
    if os.environ.get(DETAILS_ENV):
        import traceback  # deferred: only a defect needs it

        traceback.print_exception(error, file=sys.stderr)
    what = f"a defect in pumpdeck: {type(error).__name__}: {error}".rstrip(": ")
    hint = f"run it again with {DETAILS_ENV}=1 for the details and report them"
    if as_json:
        _say({"error": "Defect", "what": what, "hint": hint, "exit_code": EXIT_DEFECT}, True)
    else:
        _say(f"{what}. {hint[0].upper()}{hint[1:]}", False)
    return EXIT_DEFECT


def _say(message: object, as_json: bool) -> None:
    text = json.dumps(message, sort_keys=True) if as_json else plain(f"pumpdeck: {message}")
    sys.stderr.write(text + "\n")


def _make_streams_safe() -> None:
    """Never end in a UnicodeEncodeError: an old Windows code page shows `?` where it lacks a character."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
