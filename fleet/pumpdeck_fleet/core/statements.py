"""What a person signs so that it counts in other workspaces too: approvals, device keys, drivers, aliases, settled conflicts.

A statement travels inside a DSSE envelope of a type of its own, so no other signature can be taken for one. It names its kind,
its subject and all that it says, so it cannot be laid onto another subject. Its time is for people: no clock proves it, so a
statement counts by the keys that stand now, never by the time that it claims (ADR 0084).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import FormatError

STATEMENT_PAYLOAD_TYPE = "application/vnd.pumpdeck.statement.v1+json"
STATEMENT_FORMAT = 1
STATEMENT_MAX_BYTES = 32 * 1024
UNNAMED = "?"
"""The person behind keys of which nobody has said whose they are: all of them together are one."""


class Kind(enum.StrEnum):
    """What a statement is about. `subject` and the names in `about` follow from it."""

    APPROVAL = "rollout.approve"
    """A rollout; `plan`, `actor`, `at_ms`."""
    ADOPTION = "rollout.adopt"
    """A rollout; `workspace` that drives it from now on, `epoch`."""
    ENROLMENT = "device.enrol"
    """A device; `key_id`, `public_pem`, `host_key`, `enrolled_ms`."""
    END = "device.end"
    """A device; `key_id`, `ended_ms`, `ended`."""
    AGE_KEY = "device.age_key"
    """A device; `age_key`, `at_ms`."""
    ALIAS = "alias.move"
    """A model; `alias`, `at_ms`, `workspace`, `content_digest`."""
    OVERRIDE = "model.override"
    """A model; `content`, `actor`."""
    MERGE = "experiment.merge"
    """An experiment; the audit entry's digests, `actor`."""
    SETTLEMENT = "conflict.settle"
    """A conflict's digest; `kind` and `which` as it has them, what to `take` and what to `drop`, `because`."""


ABOUT: Mapping[Kind, frozenset[str]] = {
    Kind.APPROVAL: frozenset({"plan", "actor", "at_ms"}),
    Kind.ADOPTION: frozenset({"workspace", "epoch"}),
    Kind.ENROLMENT: frozenset({"key_id", "public_pem", "host_key", "enrolled_ms"}),
    Kind.END: frozenset({"key_id", "ended_ms", "ended"}),
    Kind.AGE_KEY: frozenset({"age_key", "at_ms"}),
    Kind.ALIAS: frozenset({"alias", "at_ms", "workspace", "content_digest"}),
    Kind.OVERRIDE: frozenset({"content", "actor"}),
    Kind.MERGE: frozenset({"run", "content", "spec", "actor"}),
    Kind.SETTLEMENT: frozenset({"kind", "which", "take", "drop", "because"}),
}
_NUMBERS = frozenset({"at_ms", "enrolled_ms", "ended_ms", "epoch"})


@dataclass(frozen=True, slots=True)
class Statement:
    """One signed word. `sites` are those whose people it needs; `seq` counts the statements of a workspace from 1.

    Numbers in `about` are decimal text.
    """

    format: int
    kind: Kind
    subject: str
    sites: tuple[str, ...]
    about: Mapping[str, str]
    workspace: str
    actor: str
    seq: int
    at_ms: int

    def number(self, name: str) -> int:
        """A number that it says."""
        return int(self.about[name])

    @property
    def claim(self) -> tuple[str, str, str]:
        """What it says, whoever says it: kind, subject and canonical JSON of `about`."""
        return claim_of(self.kind, self.subject, self.about)


@dataclass(frozen=True, slots=True)
class Believed:
    """A statement whose signatures hold, and the person who gave it, as far as the trust that stands here names people."""

    statement: Statement
    person: str


@dataclass(frozen=True, slots=True)
class Voice:
    """One yes: the pseudonym it stands under, and the person of the key that signed it; empty where it was not signed."""

    actor: str
    person: str = ""


def parse_statement(payload: bytes) -> Statement:
    """The statement in a payload.

    Raises:
        FormatError, TooLargeError: it is none.
    """
    found = canonical.decode(Statement, payload, "statement", max_bytes=STATEMENT_MAX_BYTES)
    if found.format != STATEMENT_FORMAT:
        raise FormatError("has an unknown format", "statement", expected=STATEMENT_FORMAT, found=found.format)
    if set(found.about) != ABOUT[found.kind]:
        expected, said = (", ".join(sorted(names)) for names in (ABOUT[found.kind], found.about))
        raise FormatError("says something else", f"statement {found.kind}", expected=expected, found=said[:200])
    for name in _NUMBERS & set(found.about):
        if not found.about[name].isdecimal() or len(found.about[name]) > 15:
            raise FormatError("is not a number", f"statement {found.kind}: {name}", found=found.about[name][:40])
    if not found.sites or list(found.sites) != sorted(set(found.sites)):
        raise FormatError("names no sites, or not in order", f"statement {found.kind}")
    return found


def claim_of(kind: Kind, subject: str, about: Mapping[str, str]) -> tuple[str, str, str]:
    """As `Statement.claim`."""
    return kind.value, subject, canonical.encode(dict(about)).decode("utf-8")


def count_people(voices: Iterable[Voice]) -> int:
    """How many different people have spoken, at the very least.

    Named people count by name. Unsigned voices count by pseudonym, but each may be one of the named: the two are not added up.
    """
    found = list(voices)
    named = {voice.person for voice in found if voice.person not in ("", UNNAMED)}
    unsigned = {voice.actor for voice in found if not voice.person}
    return max(len(named), len(unsigned), int(bool(found)))


def has_spoken(voices: Iterable[Voice], voice: Voice) -> bool:
    """True when this person has spoken before, as far as can be known: one more voice would not be one more person."""
    is_named = voice.person not in ("", UNNAMED)
    return any(other.actor == voice.actor or (is_named and other.person == voice.person) for other in voices)
