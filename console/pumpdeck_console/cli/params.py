"""Argument types that several commands share."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from pumpdeck_console.cli.session import Session
from pumpdeck_fleet.core.clock import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, parse_ms
from pumpdeck_fleet.core.errors import FormatError, UsageError
from pumpdeck_fleet.core.receipts import parse_terms

_AGO = re.compile(r"(\d{1,6})([smhdw])")
_UNITS = {"s": SECOND_MS, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS, "w": 7 * DAY_MS}
_DAY = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True, slots=True)
class _Moment:
    """A fixed time, or so long before now."""

    at_ms: int | None = None
    back_ms: int = 0

    def __call__(self, now_ms: int) -> int:
        return now_ms - self.back_ms if self.at_ms is None else self.at_ms


class When(click.ParamType[Any]):
    """A time: RFC 3339, a day in UTC, or so long ago (`24h`, `7d`). The value is a function of now, both in ms."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Callable[[int], int]:
        if isinstance(value, _Moment):
            return value
        text = str(value).strip().lower()
        if text == "now":
            return _Moment(back_ms=0)
        if ago := _AGO.fullmatch(text.removesuffix(" ago")):
            return _Moment(back_ms=int(ago[1]) * _UNITS[ago[2]])
        try:
            at_ms = parse_ms(f"{text}T00:00:00Z" if _DAY.fullmatch(text) else text.upper())
        except FormatError:
            self.fail(f"{value!r} is not a time; write 2026-01-31T06:00:00Z, 2026-01-31, 24h or 7d", param, ctx)
        return _Moment(at_ms=at_ms)


WHEN = When()


def models_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--model MODEL[=NUMBER or ALIAS]`, as often as needed."""
    return click.option(
        "--model",
        "models",
        multiple=True,
        metavar="MODEL[=VERSION]",
        help="Take this version (a number or an alias) of this model; may be given again.",
    )(command)


def terms_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--permit`, `--retry` and `--shadow-hours`, handed over as `terms`."""

    @functools.wraps(command)
    def with_terms(*args: Any, permit: str, retry: bool, shadow_h: float, **kwargs: Any) -> Any:
        return command(*args, terms=parse_terms(permit, retry, shadow_h), **kwargs)

    options = (
        click.option("--permit", default="", help="Permit or work-order number: stands in assignments, receipts and audit."),
        click.option("--retry", is_flag=True, help="Try again where this very package failed on a device before."),
        click.option(
            "--shadow-hours",
            "shadow_h",
            type=click.FloatRange(0, 720),
            default=0.0,
            help="Score beside the active model for so many hours of rows before it is committed.",
        ),
    )
    wrapped: Callable[..., Any] = with_terms
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def key_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--key-file NAME=PATH` and `--insecure-storage`, for commands that sign or log in."""
    command = click.option(
        "--insecure-storage",
        is_flag=True,
        expose_value=False,
        callback=_allow_insecure,
        help="Allow private keys in plain 0600 files. Only for throwaway fleets.",
    )(command)
    return click.option(
        "--key-file",
        "key_files",
        multiple=True,
        metavar="NAME=PATH",
        expose_value=False,
        callback=_choose_key_files,
        help="Take the key of that name (release, deploy, ssh, ..) from this file; may be given again.",
    )(command)


def yes_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--yes`: the plan was seen, nobody is asked."""
    return click.option("--yes", "is_agreed", is_flag=True, help="Do it without asking; for scripts.")(command)


def ask_to_go_on(is_agreed: bool, question: str) -> None:
    """Ask a person on the terminal; without one `--yes` must have been given.

    Raises:
        UsageError: nobody is there to be asked.
        click.Abort: the answer was no.
    """
    if is_agreed:
        return
    if not sys.stdin.isatty():
        raise UsageError("needs a person to say yes", question, hint="run it in a terminal, or add --yes")
    click.confirm(question, abort=True, err=True)


def _allow_insecure(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Session).insecure_storage = True


def _choose_key_files(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> None:
    session = context.ensure_object(Session)
    for text in values:
        name, sign, path = text.partition("=")
        if not name or not sign or not path:
            raise click.BadParameter(f"{text!r} is not NAME=PATH", context, parameter)
        session.key_files[name] = Path(path)


def new_passphrase(what: str) -> str:
    """A new passphrase, typed twice by a person.

    Raises:
        UsageError: nobody sits here.
    """
    if not sys.stdin.isatty():
        raise UsageError("needs a person to type a passphrase", what, hint="run it in a terminal")
    answer: str = click.prompt(f"Passphrase of {what}", hide_input=True, confirmation_prompt=True, err=True)
    return answer
