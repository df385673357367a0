"""Digests of what a run depends on besides its rows: the code that computes, and the installed packages."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pumpdeck_fleet.numeric
import pumpdeck_trainer
from pumpdeck_fleet.core.canonical import digest, encode


@cache
def code_digest() -> str:
    """SHA-256 over the sources of the trainer and the numeric layer, by name; line ends do not count."""
    found: dict[str, str] = {}
    for package in (pumpdeck_fleet.numeric, pumpdeck_trainer):
        for folder in package.__path__:
            for path in sorted(Path(folder).glob("*.py")):
                found[f"{package.__name__}/{path.name}"] = digest(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest(encode(found))


@cache
def lock_digest() -> str:
    """SHA-256 over sorted name==version of everything installed, Pumpdeck itself left out (`code_digest` covers it)."""
    return digest_of_installed((one.name, one.version) for one in importlib.metadata.distributions())


def installed() -> list[str]:
    """name==version of everything installed, sorted: the lines that `lock_digest` is taken over."""
    return _lines((one.name, one.version) for one in importlib.metadata.distributions())


def digest_of_installed(pairs: Iterable[tuple[str, str]]) -> str:
    """The lock digest of (name, version) pairs; names are normalised, doubles count once."""
    return digest("\n".join(_lines(pairs)).encode("utf-8"))


def _lines(pairs: Iterable[tuple[str, str]]) -> list[str]:
    lines = {f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}" for name, version in pairs}
    return sorted(line for line in lines if not line.startswith("pumpdeck=="))
