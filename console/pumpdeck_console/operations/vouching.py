"""This person's word, signed so that it counts in other workspaces too; and how words of others are proven.

A word is signed with the person's own deploy key of each site it is about, else their release key. Where no key is at hand the
word counts in this workspace alone, and the reason is said.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.audit import CHECKPOINT_FORMAT, CHECKPOINT_MAX_BYTES, CHECKPOINT_PAYLOAD_TYPE, AuditCheckpoint
from pumpdeck_fleet.core.errors import FormatError, NotFoundError, PumpdeckError, TrustError
from pumpdeck_fleet.core.statements import (
    STATEMENT_FORMAT,
    STATEMENT_MAX_BYTES,
    STATEMENT_PAYLOAD_TYPE,
    UNNAMED,
    Believed,
    Kind,
    Statement,
    Voice,
    parse_statement,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pumpdeck_console.wiring import Workspace
    from pumpdeck_fleet.core.ports import Signer
    from pumpdeck_packaging.people import Signatory

_ROLES = ("deploy", "release")
_ENVELOPE_MAX_BYTES = 2 * STATEMENT_MAX_BYTES + 8 * 1024


@dataclass(frozen=True, slots=True)
class Pen:
    """What a person signs with at some sites; without `signers` nothing is signed, and `why` says why not."""

    sites: tuple[str, ...]
    signers: tuple[Signer, ...] = ()
    person: str = ""
    why: str = ""

    def write(self, workspace: Workspace, kind: Kind, subject: str, about: Mapping[str, str]) -> bool:
        """Sign a word and keep it; call inside `store.atomic()`, with the change it speaks of. False: there is no key."""
        if not self.signers:
            return False
        from pumpdeck_packaging.signing import add_dsse_signature, sign_dsse  # deferred: cryptography

        table, store = workspace.store.statements, workspace.store
        words = (self.sites, dict(about), store.workspace, workspace.actor, table.next_seq(), workspace.clock.now_ms())
        statement = Statement(STATEMENT_FORMAT, kind, subject, *words)
        first, *others = self.signers
        envelope = sign_dsse(canonical.encode(statement), STATEMENT_PAYLOAD_TYPE, first)
        for signer in others:
            envelope = add_dsse_signature(envelope, signer, _ENVELOPE_MAX_BYTES)
        return table.add(statement, envelope)


class Circle:
    """The people of every site as the trust that stands here names them, and what they can prove.

    `beside`: another workspace's trust folder, which counts for a site where it is the newer one from the very same first root.
    """

    def __init__(self, workspace: Workspace, beside: Path | None = None) -> None:
        self._workspace = workspace
        self._beside = beside
        self._sites: dict[str, Mapping[str, Signatory]] = {}

    def people(self, site: str) -> Mapping[str, Signatory]:
        """Who may sign for a site, by key id; nobody where its trust does not hold, or was not founded."""
        if site not in self._sites:
            found: dict[str, Signatory] = {}
            with suppress(PumpdeckError):
                trust = self._workspace.trust(site)
                found = self._newer(site) or (trust.signatories() if trust.exists else {})
            self._sites[site] = found
        return self._sites[site]

    def _newer(self, site: str) -> dict[str, Signatory]:
        if self._beside is None:
            return {}
        from pumpdeck_packaging.people import signatories  # deferred: TUF
        from pumpdeck_packaging.trust_merge import newer_side

        folders = (self._workspace.trust_path / site, self._beside / site)
        found = newer_side(*folders, self._workspace.fs, self._workspace.clock.now_ms())
        return {} if found is None else signatories(found)

    @property
    def founded(self) -> tuple[str, ...]:
        """The sites that have people here."""
        return tuple(site.id for site in self._workspace.fleet.sites if self.people(site.id))

    def person(self, sites: Iterable[str], keys: Iterable[str]) -> str:
        """Whose keys these are at these sites; `UNNAMED` where nobody said, or sites say different things."""
        held, wanted = set(keys), tuple(sites)
        people = {one.person for site in wanted for key, one in self.people(site).items() if key in held}
        return next(iter(people)) if len(people) == 1 and "" not in people else UNNAMED

    def statement(self, envelope: bytes) -> Believed:
        """A statement that somebody signed who may sign for every site it is about, now.

        Raises:
            TrustError: no such key, or a signature does not hold. DamagedError: it is no statement.
        """
        from pumpdeck_packaging.signing import signed_payload, verify_dsse  # deferred: cryptography

        sites = parse_statement(signed_payload(envelope, STATEMENT_PAYLOAD_TYPE, _ENVELOPE_MAX_BYTES)).sites
        keys = {key: one.public_pem for site in sites for key, one in self.people(site).items()}
        statement = parse_statement(verify_dsse(envelope, STATEMENT_PAYLOAD_TYPE, keys, _ENVELOPE_MAX_BYTES))
        signed = _signers_of(envelope)
        for site in statement.sites:
            if not signed & set(self.people(site)):
                raise TrustError("is signed by nobody of the site", site, expected="a deploy or release key of it")
        self._check_subject(statement)
        return Believed(statement, self.person(statement.sites, signed))

    def _check_subject(self, statement: Statement) -> None:
        from pumpdeck_packaging.signing import key_id_of  # deferred: cryptography

        fleet, kind = self._workspace.fleet, statement.kind
        if kind in (Kind.ENROLMENT, Kind.END, Kind.AGE_KEY):
            site = fleet.device(statement.subject).site
            if statement.sites != (site,):
                found = ", ".join(statement.sites)
                raise TrustError("is signed for another site", statement.subject, expected=site, found=found)
        if kind is Kind.ENROLMENT:
            found = key_id_of(statement.about["public_pem"], f"device key of {statement.subject}")
            said = statement.about["key_id"]
            if found != said:
                raise TrustError("names another key", statement.subject, expected=said[:12], found=found[:12])

    def seal(self, envelope: bytes) -> AuditCheckpoint:
        """The head of an audit chain that somebody signed who may sign for any site here. Raises: TrustError, DamagedError."""
        from pumpdeck_packaging.signing import verify_dsse  # deferred: cryptography

        keys = {key: one.public_pem for site in self.founded for key, one in self.people(site).items()}
        payload = verify_dsse(envelope, CHECKPOINT_PAYLOAD_TYPE, keys, CHECKPOINT_MAX_BYTES)
        found = canonical.decode(AuditCheckpoint, payload, "signed head", max_bytes=CHECKPOINT_MAX_BYTES)
        if found.format != CHECKPOINT_FORMAT:
            raise FormatError("has an unknown format", "signed head", expected=CHECKPOINT_FORMAT, found=found.format)
        return found

    def pen(self, sites: Iterable[str]) -> Pen:
        """This person's keys for these sites; without them, why not."""
        wanted = tuple(sorted(set(sites)))
        if not wanted:
            return Pen(wanted, why="it is about no site")
        signers: dict[str, Signer] = {}
        for site in wanted:
            held = self.people(site)
            if not held:
                return Pen(wanted, why=f"{site} has no trust repository here")
            if any(key in held for key in signers):
                continue
            try:
                signer = self._signer(held)
            except PumpdeckError as error:
                return Pen(wanted, why=error.sentence())
            signers[signer.key_id] = signer
        return Pen(wanted, tuple(signers.values()), self.person(wanted, signers))

    def any_pen(self) -> Pen:
        """This person's key for what belongs to no site: that of the first site whose key is at hand."""
        pens = (self.pen((site,)) for site in self.founded)
        return next((pen for pen in pens if pen.signers), Pen((), why="no key of any site is at hand"))

    def _signer(self, held: Mapping[str, Signatory]) -> Signer:
        problem: PumpdeckError | None = None
        for role in _ROLES:
            try:
                return self._workspace.find_key(role, {key for key, one in held.items() if one.role == role}).signer
            except PumpdeckError as error:
                problem = problem or error
        raise problem or NotFoundError("no private key", "deploy")


def write_device_words(workspace: Workspace, pen: Pen, device: str) -> bool:
    """Sign who a device is by its newest key: who enrolled it says so. Call inside `store.atomic()`."""
    row = workspace.store.devices.keys(device)[-1]
    about = {
        "key_id": row.key_id, "public_pem": row.public_pem, "host_key": row.host_key, "enrolled_ms": str(row.enrolled_ms),
    }  # fmt: skip
    return pen.write(workspace, Kind.ENROLMENT, device, about)


def voices(workspace: Workspace, kind: Kind, subject: str, said: Mapping[str, str], action: str) -> tuple[Voice, ...]:
    """Who has said exactly this: signed, under keys that stand now; and unsigned, as the audit chain of this workspace tells."""
    circle, found = Circle(workspace), []
    for row in workspace.store.statements.of(kind, subject):
        if {**row.statement.about, "actor": ""} == {**said, "actor": ""}:
            with suppress(PumpdeckError):
                found.append(Voice(row.statement.about["actor"], circle.statement(row.envelope).person))
    signed = {voice.actor for voice in found}
    here = workspace.store.audit.actors(action, said)
    return (*found, *(Voice(actor) for actor in here if actor not in signed))


def seal_chains(workspace: Workspace, pen: Pen | None = None) -> tuple[str, ...]:
    """Sign where every audit chain that stands here ends, as far as no signed head covers it, and what this workspace did itself:
    moves of aliases, and rollouts that it took over with a restore.

    The chains signed; empty where all were, or where no key is at hand: then others wait for them.
    """
    store = workspace.store
    with store.atomic():
        heads = [store.audit.head(chain) for chain in store.audit.chains()]
        lacking = [head for head in heads if head.position > store.statements.sealed(head.chain)]
        moves, driven = unsigned_moves(workspace), _unsigned_adoptions(workspace)
        if not lacking and not moves and not driven:
            return ()
        own = pen if pen is not None and pen.signers else Circle(workspace).any_pen()
        if not own.signers:
            return ()
        from pumpdeck_fleet.store.statements import (
            SealRow,  # deferred: the console reads voices before it opens a store
        )
        from pumpdeck_packaging.signing import sign_dsse  # deferred: cryptography

        for model, about in moves:
            own.write(workspace, Kind.ALIAS, model, about)
        for rollout, sites, about in driven:
            Circle(workspace).pen(sites).write(workspace, Kind.ADOPTION, rollout, about)
        for head in lacking:
            checkpoint = AuditCheckpoint(CHECKPOINT_FORMAT, head.chain, head.position, head.digest, workspace.clock.now_ms())
            envelope = sign_dsse(canonical.encode(checkpoint), CHECKPOINT_PAYLOAD_TYPE, own.signers[0])
            store.statements.put_seal(SealRow(head.chain, head.position, envelope))
    return tuple(head.chain for head in lacking)


def _unsigned_adoptions(workspace: Workspace) -> list[tuple[str, tuple[str, ...], dict[str, str]]]:
    """Rollouts that this workspace took over and nobody has said so: (rollout, its sites, what a statement says)."""
    store, found = workspace.store, []
    for rollout, epoch in store.rollouts.taken_over():
        about = {"workspace": store.workspace, "epoch": str(epoch)}
        if not store.statements.has_claim(Kind.ADOPTION, rollout, about):
            sites = tuple(store.rollouts.load(rollout).plan.sites)
            found.append((rollout, sites, about))
    return found


def unsigned_moves(workspace: Workspace) -> list[tuple[str, dict[str, str]]]:
    """Moves of aliases made in this workspace that nobody has signed: (model, what a statement says)."""
    rows = workspace.store.registry.own_moves()
    if not rows:
        return []
    claims = {row.statement.claim for row in workspace.store.statements.of(Kind.ALIAS)}
    found = []
    for model, alias, at_ms, name, content in rows:
        about = {"alias": alias, "at_ms": str(at_ms), "workspace": name, "content_digest": content}
        if (Kind.ALIAS.value, model, canonical.encode(about).decode("utf-8")) not in claims:
            found.append((model, about))
    return found


def _signers_of(envelope: bytes) -> set[str]:
    plain = canonical.parse_json(envelope, "statement", max_bytes=_ENVELOPE_MAX_BYTES)
    return {one["keyid"] for one in plain["signatures"]}
