"""How two workspaces that worked apart become one: for each table one rule by which two rows of one identity are joined.

Every rule is commutative, associative and idempotent, so any order of merges, also repeated ones, ends with the same rows.
Pure; `store/merge_tables.py` reads and writes the rows, docs/sync.md says why each rule is what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pumpdeck_fleet.core.errors import ConflictError

Row = Mapping[str, Any]
Key = tuple[Any, ...]
Tables = Mapping[str, Mapping[Key, Row]]
Join = Callable[[Row, Row], Row]


class ForkedError(ConflictError):
    """Two workspaces wrote different things under one identity that only one of them may use."""


@dataclass(frozen=True, slots=True)
class MergeConflict:
    """Something on which two workspaces differ and a person should look at; the merge went on with `kept`.

    `ours` is which of the two this workspace had: `kept`, `other`, or empty where it is neither of them whole.
    """

    kind: str
    which: str
    kept: str
    other: str
    advice: str
    ours: str = ""


@dataclass(frozen=True, slots=True)
class TaskClaim:
    """A started task as far as two of them may compete for one device. `is_void`: it ended and no device can have seen it."""

    device: str
    task: str
    rollout: str
    seq: int
    is_handed_over: bool
    is_live: bool
    is_void: bool


def join_rows(table: str, mine: Row, theirs: Row) -> Row:
    """The row that stands after both are known."""
    return JOINS[table](mine, theirs)


def join_tables(mine: Tables, theirs: Tables) -> dict[str, dict[Key, Row]]:
    """Both histories together; rows that only one of them has are taken as they are."""
    found: dict[str, dict[Key, Row]] = {}
    for table in JOINS:
        rows = dict(mine.get(table, {}))
        for key, row in theirs.get(table, {}).items():
            rows[key] = join_rows(table, rows[key], row) if key in rows else row
        found[table] = rows
    return found


def standing_claims(claims: Iterable[TaskClaim]) -> dict[str, TaskClaim]:
    """Device -> the claim that stands. The device obeys the highest number it has seen, so that one decides here too.

    Between equal numbers the one that was handed over stands, then the one whose task has the greater name.
    """
    standing: dict[str, TaskClaim] = {}
    for claim in claims:
        if not claim.is_void and (claim.device not in standing or _rank(claim) > _rank(standing[claim.device])):
            standing[claim.device] = claim
    return standing


def beaten_claims(claims: Iterable[TaskClaim]) -> list[tuple[TaskClaim, TaskClaim]]:
    """(live claim that must give way, the claim it gives way to), by device and task."""
    listed = list(claims)
    standing = standing_claims(listed)
    beaten = [(claim, standing[claim.device]) for claim in listed if claim.is_live and standing[claim.device] != claim]
    return sorted(beaten, key=lambda pair: (pair[0].device, pair[0].task))


def _rank(claim: TaskClaim) -> tuple[int, bool, str]:
    return claim.seq, claim.is_handed_over, claim.task


# Rules


def _most(*columns: str) -> Join:
    """The row that is greater in these columns, the first one deciding; the whole row comes from one side."""

    def join(mine: Row, theirs: Row) -> Row:
        return theirs if _order(theirs, columns) > _order(mine, columns) else mine

    return join


def _least(*columns: str) -> Join:
    def join(mine: Row, theirs: Row) -> Row:
        return theirs if _order(theirs, columns) < _order(mine, columns) else mine

    return join


def _order(row: Row, columns: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(row[column] for column in columns)


def _join_person(mine: Row, theirs: Row) -> Row:
    # An erased name must not come back with a copy made before.
    is_erased = mine["is_erased"] or theirs["is_erased"]
    return {
        "name": "" if is_erased else min(mine["name"], theirs["name"]),
        "workspace": "" if is_erased else min(mine["workspace"], theirs["workspace"]),
        "is_erased": is_erased,
    }


def _join_version(mine: Row, theirs: Row) -> Row:
    """One content: the record that was made first, and every name it has: workspace -> number."""
    first = _least("created_ms", "body")(mine, theirs)
    names = dict(mine["names"])
    for workspace, number in theirs["names"].items():
        names[workspace] = min(number, names.get(workspace, number))
    return {**first, "names": names}


def _join_rollout(mine: Row, theirs: Row) -> Row:
    """The copy of whoever drove it last, by (epoch, moves); approvals of both."""
    latest = _most("epoch", "moves", "body", "home")(mine, theirs)
    approvals = dict(mine["approvals"])
    for actor, approval in theirs["approvals"].items():
        approvals[actor] = min(approval, approvals.get(actor, approval))
    return {**latest, "approvals": approvals}


def _join_device_key(mine: Row, theirs: Row) -> Row:
    """A key was enrolled when it first was, and once it has ended on one side it has ended."""
    ends = [(row["ended_ms"], row["ended"]) for row in (mine, theirs) if row["ended_ms"] is not None]
    ended_ms, ended = min(ends) if ends else (None, "")
    return {
        "public_pem": min(mine["public_pem"], theirs["public_pem"]),
        "host_key": max(mine["host_key"], theirs["host_key"]),
        "enrolled_ms": min(mine["enrolled_ms"], theirs["enrolled_ms"]),
        "ended_ms": ended_ms,
        "ended": ended,
    }


JOINS: Mapping[str, Join] = {
    "person": _join_person,
    "statement": _least("envelope"),
    "label": _least("body"),
    "source": _least("at_ms", "body"),
    "version": _join_version,
    "alias_move": _least(),
    "package": _least("created_ms", "body"),
    "rollout": _join_rollout,
    "device_age_key": _most("at_ms", "age_key"),
    "device_key": _join_device_key,
    "device_trust": _most("at_ms", "version", "root", "site", "how"),
    "status": _most("status_ms", "status"),
    "receipt": _least("received_ms", "body", "envelope"),
    "receipt_apart": _least("received_ms", "reason", "body"),
    "stick": _most("changed_ms", "state", "body"),
    "return_counter": _most("counter"),
    "alarm": _least("body"),
    # Closed goes before open; of two that closed it the later one.
    "retrain_request": _most("closed_ms", "body"),
    "sketch_day": _most("rows", "put_ms", "data"),
    "drift": _most("worst", "body"),
}


def conflict_of(table: str, key: Key, mine: Row, theirs: Row) -> MergeConflict | None:
    """What a person should look at when these two rows meet; None where the rule says all there is to say."""
    kept = join_rows(table, mine, theirs)
    other = mine if kept == theirs else theirs
    if table == "device_key":
        other = mine if kept["host_key"] == theirs["host_key"] else theirs
    if table == "device_key" and mine["host_key"] != theirs["host_key"]:
        advice = "a device has one host key: look at it and enrol it again"
        ours = "kept" if kept["host_key"] == mine["host_key"] else "other"
        return MergeConflict("host key", str(key[0]), kept["host_key"], other["host_key"], advice, ours)
    if table == "receipt" and mine["body"] != theirs["body"]:
        which = f"receipt {key[2]} of {key[0]}"
        return MergeConflict(
            "receipt", which, kept["body"], other["body"], "two receipts carry one counter: look at the device"
        )
    is_same_move = (mine.get("epoch"), mine.get("moves")) == (theirs.get("epoch"), theirs.get("moves"))
    if table == "rollout" and is_same_move and mine["body"] != theirs["body"]:
        return MergeConflict(
            "rollout",
            str(key[0]),
            f"as {kept['home']} has it",
            f"as {other['home']} has it",
            "it was driven in two places, which only a copied workspace does; compare its tasks",
        )
    return None


def alias_conflict(model: str, alias: str, mine: Iterable[Key], theirs: Iterable[Key]) -> MergeConflict | None:
    """Where an alias was moved on both sides without either knowing of the other; keys as in table `alias_move`."""
    own, other = set(mine), set(theirs)
    if not own or not other or max(own, key=_moved) in other or max(other, key=_moved) in own:
        return None
    kept, lost = sorted((max(own, key=_moved), max(other, key=_moved)), key=_moved, reverse=True)
    if kept[4] == lost[4]:
        return None
    return MergeConflict(
        "alias",
        f"{model} {alias}",
        f"version {kept[4][:12]}, moved later by {kept[3]}",
        f"version {lost[4][:12]}, moved by {lost[3]}",
        f"choose with: pumpdeck models promote {model}",
        "kept" if kept in own else "other",
    )


def last_move(moves: Iterable[Key]) -> Key:
    """The move of an alias that counts: the latest, then the greater workspace id."""
    return max(moves, key=_moved)


def _moved(key: Key) -> tuple[int, str, str]:
    _model, _alias, at_ms, workspace, content_digest = key
    return at_ms, workspace, content_digest


# Names of model versions

OWN_NUMBERS = 1 << 20
"""A workspace's own numbers stay below this; above it a number says in which workspace it was given."""


def local_number(names: Mapping[str, int], workspace: str) -> int:
    """How `workspace` calls a version: by its own number, else by the number of the workspace with the least name."""
    if workspace in names:
        return names[workspace]
    home, number = min(names.items())
    return (_tail(home) << 20) | number


def version_name(number: int) -> str:
    """`13`, or `13@3f2a9c01` for a number that another workspace gave: the last 8 characters of that workspace's id."""
    tail, plain = divmod(number, OWN_NUMBERS)
    return f"{plain}@{tail:08x}" if tail else str(plain)


def version_word(number: int) -> int | str:
    """The number itself where it is this workspace's own, else its name: for lists that are read by programs."""
    return number if number < OWN_NUMBERS else version_name(number)


def parse_version_name(text: str) -> int | None:
    """The number of a name; None when the text is none."""
    plain, at, tail = text.removeprefix("v").partition("@")
    if not plain.isdecimal() or not 0 < int(plain) < OWN_NUMBERS:
        return None
    if not at:
        return int(plain)
    tail = tail.removeprefix("ws-")[-8:]
    if not tail or any(character not in "0123456789abcdef" for character in tail):
        return None
    return (int(tail, 16) << 20) | int(plain)


def _tail(workspace: str) -> int:
    # Never 0: that would be one of our own numbers.
    return int(workspace[-8:], 16) or 1
