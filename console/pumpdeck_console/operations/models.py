"""Models, their immutable versions and the aliases in front of them."""

from __future__ import annotations

from dataclasses import dataclass

from pumpdeck_console.operations import accepting, overriding
from pumpdeck_console.operations.base import operation
from pumpdeck_console.operations.query_rows import select_models
from pumpdeck_console.operations.vouching import seal_chains
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core.errors import NotFoundError, UsageError
from pumpdeck_fleet.core.merging import parse_version_name
from pumpdeck_fleet.core.registry import Alias, GateVerdict, ModelVersion

CARD_MAX_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One version, the aliases that point at it and how many pumps' devices hold it in the newest package they run."""

    version: ModelVersion
    aliases: tuple[Alias, ...]
    pumps_running: int

    @property
    def verdict(self) -> GateVerdict:
        """The worst verdict of its quality gates."""
        return worst_verdict(self.version)


@dataclass(frozen=True, slots=True)
class PromoteReport:
    """What the aliases of a model are now; a number is 0 where there is none.

    missing_people: how many more must override a refusal. judged_against, was: the champion at registration and before this.
    """

    model: str
    champion: int
    previous: int
    changed: bool
    missing_people: int = 0
    judged_against: int = 0
    was: int = 0


def worst_verdict(version: ModelVersion) -> GateVerdict:
    """The worst of the gates; pass when there is none."""
    order = (GateVerdict.REFUSE, GateVerdict.WARN)
    verdicts = {gate.verdict for gate in version.gates}
    return next((verdict for verdict in order if verdict in verdicts), GateVerdict.PASS)


def running_by_version(workspace: Workspace) -> dict[tuple[str, int], int]:
    """How many pumps run each (model, number), by the receipts of their devices."""
    counts: dict[tuple[str, int], int] = {}
    for digest in workspace.store.devices.active().values():
        package = workspace.store.packages.get(digest)
        for pump in package.pumps if package is not None else ():
            key = (pump.model, pump.number)
            counts[key] = counts.get(key, 0) + 1
    return counts


@operation("models.list", runs_in="reader")
def list_models(workspace: Workspace, *, query: str = "") -> tuple[ModelRow, ...]:
    """The versions that `query` selects, newest first within a model.

    Raises:
        QueryError: the query cannot be read.
    """
    running = running_by_version(workspace)
    rows = []
    for model in workspace.store.registry.models():
        aliases = workspace.store.registry.aliases(model)
        for version in reversed(workspace.store.registry.versions(model)):
            held = tuple(sorted(alias for alias, number in aliases.items() if number == version.number))
            rows.append(ModelRow(version, held, running.get((model, version.number), 0)))
    return select_models(rows, query, workspace.clock.now_ms())


def find_version(workspace: Workspace, model: str, which: str = "") -> ModelVersion:
    """The version that `which` names: a number, an alias, or nothing for the candidate, else the champion.

    Raises:
        NotFoundError: no such model, number or alias. UsageError: `which` is neither.
    """
    registry = workspace.store.registry
    if model not in registry.models():
        raise NotFoundError("no such model", model, hint="list them with: pumpdeck models")
    number = parse_version_name(which)
    if number is not None:
        return registry.version(model, number)
    if which and which not in set(Alias):
        raise UsageError("is neither a number nor an alias", which, expected=", ".join(Alias))
    for alias in (Alias(which),) if which else (Alias.CANDIDATE, Alias.CHAMPION):
        if (version := registry.alias(model, alias)) is not None:
            return version
    raise NotFoundError("no version has this alias", f"{model} {which or 'candidate'}")


@operation("models.card", runs_in="reader")
def read_card(workspace: Workspace, *, model: str, which: str = "", shipped: bool = False) -> str:
    """The full model card of a version, Markdown; `shipped`, or for an old version: the short one that its packages hold."""
    version = find_version(workspace, model, which)
    digest = version.card_digest if shipped else version.full_card_digest or version.card_digest
    return workspace.artifacts.get(digest).decode("utf-8")


@operation("models.promote", runs_in="worker")
def promote(
    workspace: Workspace,
    *,
    model: str,
    which: str = "",
    reason: str = "",
    override: bool = False,
    accept_foreign: bool = False,
) -> PromoteReport:
    """Make a version the champion; the champion before it becomes `previous`. Repeating changes nothing.

    A version that a gate refused needs `override` from two people, each with a reason; the first one's word is kept in the
    audit chain and changes no alias. An imported version needs `accept_foreign` from as many people as the policy says.

    Raises:
        GateRefusedError: a quality gate refused this version. UsageError: an override or an acceptance without a reason.
        RefusedError: it is foreign, and nobody accepted it.
    """
    version = find_version(workspace, model, which)
    with workspace.store.atomic() as store:
        old = store.registry.aliases(model)
        champion, previous = old.get(Alias.CHAMPION, 0), old.get(Alias.PREVIOUS, 0)
        if champion == version.number:
            return PromoteReport(model, champion, previous, changed=False)
        if version.refusals:
            missing = overriding.override(workspace, version, reason) if override else overriding.missing(workspace, version)
            if missing and not override:
                overriding.refuse(version)
            if missing:
                return PromoteReport(model, champion, previous, changed=False, missing_people=missing)
        if missing := accepting.require(workspace, version, reason, accept=accept_foreign):
            return PromoteReport(model, champion, previous, changed=False, missing_people=missing)
        store.registry.set_alias(model, Alias.CHAMPION, version.number)
        if champion:
            store.registry.set_alias(model, Alias.PREVIOUS, champion)
        store.audit.append(
            workspace.actor,
            "model.promote",
            f"{model} {version.number}",
            reason=reason,
            digests={"content": version.content_digest},
        )
        seal_chains(workspace)
    judged = version.judged_against
    return PromoteReport(model, version.number, champion or previous, changed=True, judged_against=judged, was=champion)


@operation("models.demote", runs_in="worker")
def demote(workspace: Workspace, *, model: str, reason: str = "") -> PromoteReport:
    """Take the champion back to the version before it; the two change places, so that repeating undoes it.

    Raises:
        NotFoundError: no such model, or no version was champion before.
    """
    champion = find_version(workspace, model, Alias.CHAMPION)
    previous = find_version(workspace, model, Alias.PREVIOUS)
    if champion.number == previous.number:
        return PromoteReport(model, champion.number, previous.number, changed=False)
    with workspace.store.atomic() as store:
        store.registry.set_alias(model, Alias.CHAMPION, previous.number)
        store.registry.set_alias(model, Alias.PREVIOUS, champion.number)
        store.audit.append(
            workspace.actor,
            "model.demote",
            f"{model} {champion.number}",
            reason=reason,
            digests={"content": previous.content_digest},
        )
        seal_chains(workspace)
    return PromoteReport(model, previous.number, champion.number, changed=True)
