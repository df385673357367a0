"""A bundle that came by mail: the same visit as from a stick, the answer goes into a file beside it that is mailed back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pumpdeck_agent.agent import Agent
from pumpdeck_agent.install_from import StickVisit, install_from
from pumpdeck_fleet.core.errors import PumpdeckError
from pumpdeck_packaging.bundle_index import MARK_MAX_BYTES, MARK_NAME
from pumpdeck_packaging.bundle_stick import stick_errors
from pumpdeck_packaging.bundle_tar import TarBundle, open_tar
from pumpdeck_packaging.bundle_tar_writer import TarPlace, real_place, write_answer_tar


def answer_path(source: Path, device: str) -> Path:
    """Where the answer goes when nobody says: `<file>.<device>.tar` beside the bundle."""
    return source.with_name(f"{source.stem}.{device}.tar")


def install_from_tar(
    agent: Agent,
    source: Path,
    answer: Path | None = None,
    place_of: Callable[[Path], TarPlace] = real_place,
    make_way: Callable[[], None] = lambda: None,
) -> StickVisit:
    """Take what the file brings and write the answer. As `install_from`; nothing is unpacked onto the disk.

    Raises:
        FormatError, TooLargeError: it is no bundle in one file.
    """
    target = answer or answer_path(source, agent.config.device)
    with stick_errors(source):
        letter = open_tar(source, agent.platform.fs)
    try:
        visit = install_from(agent, letter.stick(), make_way)
        return _answer(letter, source, visit, place_of(target)) if letter.written else visit
    finally:
        letter.close()


def _answer(letter: TarBundle, source: Path, visit: StickVisit, place: TarPlace) -> StickVisit:
    try:
        with stick_errors(source):
            mark = letter.read_bytes(source / MARK_NAME, MARK_MAX_BYTES)
        write_answer_tar(place, mark, letter.written)
    except PumpdeckError as error:
        return replace(
            visit, returned=-1, returned_bytes=0, problem=error.sentence(), exit_code=visit.exit_code or error.exit_code
        )
    return visit
