"""Which rows of authority of another store are believed: those under a statement that a person signed, and no other.

Approvals, device keys and their ends, age keys, moves of aliases and a change of driver come in under statements; entries of
audit chains under signed heads; receipts under keys that stand here. What is measured needs no belief.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pumpdeck_fleet.core.audit import AuditCheckpoint
from pumpdeck_fleet.core.errors import DamagedError, PumpdeckError, TrustError
from pumpdeck_fleet.core.merging import Key, Row, join_rows
from pumpdeck_fleet.core.rollout_plan import RolloutPlan
from pumpdeck_fleet.core.rollout_states import RolloutState
from pumpdeck_fleet.core.statements import Believed, Kind, Statement, Voice, claim_of, count_people
from pumpdeck_fleet.store.json_rows import from_text, to_text

if TYPE_CHECKING:
    from pumpdeck_fleet.store.store import Store

Doubt = Callable[[Key, Row], str]
"""Why the row of a receipt is not believed; empty when it is."""

HOST_KEY = "host key"
"""The kind of conflict that one row can settle: a device has one host key."""
_UNAPPROVED = frozenset({RolloutState.DRAFT, RolloutState.PLANNED, RolloutState.ABORTED})
_SIGN_THERE = "nobody who may sign for it signed this; look at it there, then: pumpdeck trust vouch"


@dataclass(frozen=True, slots=True)
class Beliefs:
    """How words from outside are proven: each raises a PumpdeckError where it does not hold, `receipt` gives the reason."""

    statement: Callable[[bytes], Believed]
    seal: Callable[[bytes], AuditCheckpoint]
    receipt: Doubt


class Gate:
    """Judges the rows of one merge, table by table in the order of `TABLES`. `refused` is (which, why) of what stays out."""

    def __init__(self, mine: Store, beliefs: Beliefs, refused: list[tuple[str, str]]) -> None:
        self._mine = mine
        self._beliefs = beliefs
        self._refused = refused
        self._claims: set[tuple[str, str, str]] | None = None
        self._people: dict[str, str] = {}
        self._devices: set[str] = set()
        self._keys: list[tuple[Key, Row]] = []
        self._settled = SettledHosts(mine)
        self.chosen: set[str] = set()
        """Devices of which a person chose the host key."""

    def believed(self, table: str, key: Key, theirs: Row, mine: Row | None) -> Row | None:
        """The row as far as it is believed; None where nothing of it is, or nothing of it is new."""
        if theirs == mine:
            return None
        judge = _JUDGES.get(table)
        return theirs if judge is None else judge(self, key, theirs, mine)

    def refuse(self, which: str, why: str) -> None:
        """Name what stays out."""
        self._refused.append((which, why))

    def _statement(self, key: Key, theirs: Row, mine: Row | None) -> Row | None:
        which = f"statement {theirs['kind']} of {theirs['subject']}"
        if mine is not None:
            return None
        try:
            believed = self._beliefs.statement(theirs["envelope"])
            statement = believed.statement
            check_row(key, theirs, statement)
            self._check_key_is_free(statement)
        except PumpdeckError as error:
            self.refuse(which, error.sentence())
            return None
        self._people[str(key[0])] = believed.person
        if statement.kind in (Kind.ENROLMENT, Kind.END):
            self._devices.add(statement.subject)
        if statement.kind is Kind.SETTLEMENT and statement.about["kind"] == HOST_KEY:
            self.chosen.add(statement.about["which"])
        return theirs

    def _check_key_is_free(self, statement: Statement) -> None:
        if statement.kind is Kind.ENROLMENT:
            sql = "SELECT device FROM device_key WHERE key_id = ? AND device != ?"
            row = self._mine.side().sql.row(sql, (statement.about["key_id"], statement.subject))
            if row is not None:
                found = f"key {statement.about['key_id'][:12]}"
                raise TrustError("has the key of another device", statement.subject, expected=str(row[0]), found=found)

    def _has(self, kind: Kind, subject: str, about: Mapping[str, object]) -> bool:
        if self._claims is None:
            self._claims = self._mine.statements.claims()
        return claim_of(kind, subject, {name: str(value) for name, value in about.items()}) in self._claims

    def _device_key(self, key: Key, theirs: Row, _mine: Row | None) -> Row | None:
        # Judged when the statements have been applied: a row is what they add up to.
        self._keys.append((key, theirs))
        return None

    def device_rows(self, get: Callable[[Key], Row | None]) -> list[tuple[Key, Row]]:
        """The rows of device keys that new statements add up to, to be joined in this order."""
        rows: list[tuple[Key, Row]] = []
        for device in sorted(self._devices):
            found: dict[Key, Row] = {}
            for row in self._mine.statements.of(Kind.ENROLMENT, device):
                key, new = (device, row.statement.about["key_id"]), enrolled_row(row.statement)
                found[key] = join_rows("device_key", found[key], new) if key in found else new
            found = {key: settled_row(device, row, self._settled) for key, row in found.items()}
            for row in self._mine.statements.of(Kind.END, device):
                key, about = (device, row.statement.about["key_id"]), row.statement.about
                base = found.get(key) or get(key)
                if base is not None:
                    ended = {**base, "ended_ms": int(about["ended_ms"]), "ended": about["ended"]}
                    found[key] = join_rows("device_key", base, ended)
            rows += sorted(found.items())
        return rows

    def judge_keys(self, get: Callable[[Key], Row | None]) -> None:
        """Name the device keys of the other side that nobody signed."""
        for key, theirs in self._keys:
            mine = get(key)
            joined = None if mine is None else settled_row(key[0], join_rows("device_key", mine, theirs), self._settled)
            # The end of a replaced key follows from the enrolment of the next one.
            if mine is None or (joined != mine and theirs["ended"] != "replaced"):
                self.refuse(f"device key {key[1][:12]} of {key[0]}", _SIGN_THERE)

    def _age_key(self, key: Key, theirs: Row, mine: Row | None) -> Row | None:
        if mine is not None and join_rows("device_age_key", mine, theirs) == mine:
            return None
        if self._has(Kind.AGE_KEY, key[0], {"age_key": theirs["age_key"], "at_ms": theirs["at_ms"]}):
            return theirs
        self.refuse(f"age key of {key[0]}", _SIGN_THERE)
        return None

    def _alias_move(self, key: Key, theirs: Row, _mine: Row | None) -> Row | None:
        model, alias, at_ms, workspace, content = key
        about = {"alias": alias, "at_ms": at_ms, "workspace": workspace, "content_digest": content}
        if self._has(Kind.ALIAS, model, about):
            return theirs
        self.refuse(f"{alias} of {model}, moved to {content[:12]} by {workspace}", _SIGN_THERE)
        return None

    def _receipt(self, key: Key, theirs: Row, mine: Row | None) -> Row | None:
        if mine is None and (why := self._beliefs.receipt(key, theirs)):
            self.refuse(f"receipt {key[2]} of {key[0]}", why)
            return None
        return theirs

    def _rollout(self, key: Key, theirs: Row, mine: Row | None) -> Row | None:
        rollout, here = str(key[0]), self._mine.workspace
        driven_here = mine is not None and mine["home"] == here
        if theirs["home"] == here and not driven_here:
            self.refuse(f"rollout {rollout}", "says that this workspace drives it, which knows nothing of that")
            return None
        plain = json.loads(theirs["body"])
        plan = from_text(RolloutPlan, to_text(plain["plan"]), f"plan of {rollout}")
        is_taken_over = driven_here and mine is not None and theirs["home"] != here and theirs["epoch"] > mine["epoch"]
        if is_taken_over and not self._is_adopted(rollout, plan, theirs):
            self.refuse(f"rollout {rollout}", f"says that {theirs['home']} took it over: {_SIGN_THERE}")
            return None
        voices, given = self._approvals(rollout, plan, theirs["approvals"], {} if mine is None else mine["approvals"])
        state, needs, has = RolloutState(plain["state"]), plan.policy.approvals, count_people(voices)
        if theirs["home"] != here and state not in _UNAPPROVED and has < needs and not _runs_here(mine, plain["plan"]):
            self.refuse(f"rollout {rollout}", f"{state}, but its plan asks for {needs} signed approvals and has {has}")
            return None
        return {**theirs, "approvals": given}

    def _is_adopted(self, rollout: str, plan: RolloutPlan, theirs: Row) -> bool:
        """True when people of all its sites signed that this workspace drives it from this epoch on."""
        claim = claim_of(Kind.ADOPTION, rollout, {"workspace": theirs["home"], "epoch": str(theirs["epoch"])})
        signed = (row.statement for row in self._mine.statements.of(Kind.ADOPTION, rollout))
        return any(one.claim == claim and plan.sites <= set(one.sites) for one in signed)

    def _approvals(
        self, rollout: str, plan: RolloutPlan, theirs: Mapping[str, str], mine: Mapping[str, str]
    ) -> tuple[list[Voice], dict[str, str]]:
        """Who has signed for this very plan, and the approvals that may stand in the row: signed ones, and those known here."""
        people = self._spoken(rollout, plan)
        given = {actor: text for actor, text in theirs.items() if mine.get(actor) == text}
        for actor, text in theirs.items():
            if actor in people and actor not in given:
                # Whose key it was is told by the key, not by the row.
                given[actor] = to_text({**json.loads(text), "actor": actor, "person": people[actor], "plan_digest": plan.digest})
            elif actor not in given:
                self.refuse(f"approval of {rollout} by {self._mine.persons.name_of(actor)}", _SIGN_THERE)
        return [Voice(actor, person) for actor, person in people.items()], given

    def _spoken(self, rollout: str, plan: RolloutPlan) -> dict[str, str]:
        """Actor -> person, of everybody who signed an approval of that plan for all of its sites."""
        found = {}
        for row in self._mine.statements.of(Kind.APPROVAL, rollout):
            if row.statement.about["plan"] != plan.digest or not plan.sites <= set(row.statement.sites):
                continue
            person = self._people.get(row.digest)
            if person is None:
                try:
                    person = self._beliefs.statement(row.envelope).person
                except PumpdeckError:
                    # The key has left since: what it said stands where it was known, and gives no new leave.
                    continue
            found[row.statement.about["actor"]] = person
        return found


def _runs_here(mine: Row | None, plan: object) -> bool:
    """True when this very plan was approved already as far as this workspace knows: its approvals are no news."""
    if mine is None:
        return False
    known = json.loads(mine["body"])
    return RolloutState(known["state"]) not in _UNAPPROVED and known["plan"] == plan


class SettledHosts:
    """Which host key a person chose where two stood for one device: (device, host key dropped) -> host key taken.

    Read at the first question: in a merge that is after the statements have come in.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._told: list[Statement] | None = None

    def choice(self, device: str) -> list[tuple[str, str]]:
        """(dropped, taken) in the order in which people decided."""
        if self._told is None:
            rows = (row.statement for row in self._store.statements.of(Kind.SETTLEMENT))
            told = [one for one in rows if one.about["kind"] == HOST_KEY]
            self._told = sorted(told, key=lambda one: (one.at_ms, one.workspace, one.seq))
        return [(one.about["drop"], one.about["take"]) for one in self._told if one.about["which"] == device]


def settled_row(device: str, row: Row, settled: SettledHosts) -> Row:
    """The row of a device key with the host key that people chose."""
    host_key = row["host_key"]
    for dropped, taken in settled.choice(device):
        host_key = taken if host_key == dropped else host_key
    return {**row, "host_key": host_key}


def check_row(key: Key, row: Row, statement: Statement) -> None:
    """Raises: DamagedError: the columns beside an envelope say something else than what was signed."""
    kind, subject, _ = statement.claim
    told = (row["kind"], row["subject"], row["workspace"], row["seq"], row["body"])
    if told != (kind, subject, statement.workspace, statement.seq, to_text(statement)):
        raise DamagedError("is not what was signed", f"statement {str(key[0])[:12]}", expected=kind, found=str(row["kind"]))


def enrolled_row(statement: Statement) -> Row:
    """The row of a device key that an enrolment says."""
    about = statement.about
    return {
        "public_pem": about["public_pem"],
        "host_key": about["host_key"],
        "enrolled_ms": int(about["enrolled_ms"]),
        "ended_ms": None,
        "ended": "",
    }


def take_chains(
    mine: Store, theirs: Store, beliefs: Beliefs, refused: list[tuple[str, str]]
) -> tuple[int, list[tuple[str, int]]]:
    """Take in audit chains as far as signed heads reach: how many entries, and (chain, entries) of what no head covers yet."""
    upto: dict[str, int] = {}
    unsealed = []
    for chain in sorted(theirs.audit.chains()):
        head, known = theirs.audit.head(chain), mine.audit.head(chain).position
        if chain == mine.workspace:
            if head.position > known:
                words = f"goes on behind its entry {known}, the last one here; only this workspace writes it"
                refused.append((f"audit of {chain}", words))
            upto[chain] = min(head.position, known)
            continue
        upto[chain] = max(known, _sealed(mine, theirs, chain, beliefs)) if head.position > known else head.position
        if head.position > upto[chain]:
            unsealed.append((chain, head.position - upto[chain]))
    return mine.audit.take(theirs.audit, upto), unsealed


def _sealed(mine: Store, theirs: Store, chain: str, beliefs: Beliefs) -> int:
    """The furthest position of a chain that a person's signature covers; that head is kept. 0: none does."""
    for seal in theirs.statements.seals(chain):
        try:
            said = beliefs.seal(seal.envelope)
        except PumpdeckError:
            continue
        at = (said.chain, said.position)
        if at == (chain, seal.position) and theirs.audit.digest_at(said.position, chain) == said.digest:
            mine.statements.put_seal(seal)
            return said.position
    return 0


_JUDGES: Mapping[str, Callable[[Gate, Key, Row, Row | None], Row | None]] = {
    "statement": Gate._statement,
    "rollout": Gate._rollout,
    "device_key": Gate._device_key,
    "device_age_key": Gate._age_key,
    "alias_move": Gate._alias_move,
    "receipt": Gate._receipt,
}

