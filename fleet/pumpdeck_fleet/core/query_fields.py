"""What a query may name, for each kind of thing: field, kind, unit and meaning (docs/query.md shows these very tables)."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from pumpdeck_fleet.core.health import Health
from pumpdeck_fleet.core.inventory import Link
from pumpdeck_fleet.core.registry import FOREIGN


class FieldKind(enum.StrEnum):
    """How a field's value is read and compared."""

    TEXT = "text"
    LIST = "list of texts"
    NUMBER = "number"
    CHOICE = "choice"
    ORDERED = "ordered choice"
    TIME = "time"


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `choices` are lower case; an ordered choice goes from good to bad."""

    name: str
    kind: FieldKind
    meaning: str
    unit: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """What a query may say of one kind of thing: its fields, and where a bare word is looked for, as a part of the text."""

    kind: str
    fields: Mapping[str, Field]
    words: tuple[str, ...]


def vocabulary(kind: str, words: tuple[str, ...], *fields: Field) -> Vocabulary:
    """A vocabulary of these fields."""
    return Vocabulary(kind, {field.name: field for field in fields}, words)


_HEALTH = tuple(health.name.lower() for health in sorted(Health))
_LINKS = tuple(link.value for link in Link)
_GATES = ("pass", "warn", "refuse")
_TIME = "age such as 2h, or a date"

PUMPS = vocabulary(
    "pump",
    ("pump", "tag", "site"),
    Field("pump", FieldKind.TEXT, "identity, `<site>/<tag>`"),
    Field("tag", FieldKind.TEXT, "tag such as P-101A"),
    Field("site", FieldKind.TEXT, "id of the site"),
    Field("kind", FieldKind.TEXT, "kind of the site: platform, pad, station"),
    Field("link", FieldKind.CHOICE, "how the site is reached", choices=_LINKS),
    Field("device", FieldKind.TEXT, "id of the device"),
    Field("type", FieldKind.TEXT, "pump type"),
    Field("maker", FieldKind.TEXT, "id of the maker"),
    Field("maker_model", FieldKind.TEXT, "the maker's name for the machine"),
    Field("criticality", FieldKind.NUMBER, "1 is the most critical"),
    Field("group", FieldKind.TEXT, "redundancy group (duty and standby)"),
    Field("label", FieldKind.LIST, "free labels of the pump"),
    Field("health", FieldKind.ORDERED, "worst that is known", choices=_HEALTH),
    Field("score", FieldKind.NUMBER, "last score"),
    Field("limit", FieldKind.NUMBER, "score at which the alarm starts"),
    Field("model", FieldKind.TEXT, "model that the device runs"),
    Field("version", FieldKind.NUMBER, "number of the model version that the device runs"),
    Field("drift", FieldKind.NUMBER, "largest PSI over the channels"),
    Field("seen", FieldKind.TIME, "when the pump was last heard of", unit=_TIME),
)
OWN = "own"
"""Origin of a model version that was learned here."""
MODELS = vocabulary(
    "model version",
    ("name", "type", "model_type", "alias", "note", "origin", "maker"),
    Field("name", FieldKind.TEXT, "model and version such as `esp-health v13`"),
    Field("model", FieldKind.TEXT, "the model line"),
    Field("version", FieldKind.NUMBER, "number of the version here"),
    Field("type", FieldKind.TEXT, "pump type"),
    Field("model_type", FieldKind.TEXT, "kind of model: maxz, pca, iforest .."),
    Field("alias", FieldKind.LIST, "names that point at it: candidate, champion, previous"),
    Field("gates", FieldKind.ORDERED, "worst verdict of its quality gates", choices=_GATES),
    Field("pumps", FieldKind.NUMBER, "pumps it was trained for"),
    Field("running", FieldKind.NUMBER, "pumps whose device runs it"),
    Field("made", FieldKind.TIME, "when it was registered", unit=_TIME),
    Field("digest", FieldKind.TEXT, "content digest; `digest:89ba*`"),
    Field("note", FieldKind.TEXT, "what was noted at its training"),
    Field("origin", FieldKind.CHOICE, "learned here or imported", choices=(OWN, FOREIGN)),
    Field("maker", FieldKind.TEXT, "who made what was imported"),
)
RUNS = vocabulary(
    "training run",
    ("run", "name", "type", "reason"),
    Field("run", FieldKind.TEXT, "digest of its record; `run:976d*`"),
    Field("name", FieldKind.TEXT, "model and version it gave, such as `esp-health v13`"),
    Field("model", FieldKind.TEXT, "the model line"),
    Field("version", FieldKind.NUMBER, "number of the version it gave; `none` where it gave none"),
    Field("type", FieldKind.TEXT, "pump type"),
    Field("state", FieldKind.CHOICE, "how it ended", choices=("done", "refused")),
    Field("kind", FieldKind.CHOICE, "whether it learned or took in", choices=("trained", "imported")),
    Field("at", FieldKind.TIME, "when it ended", unit=_TIME),
    Field("actor", FieldKind.TEXT, "who started it, as the audit chain names people"),
    Field("snapshot", FieldKind.TEXT, "digest of what it learned from"),
    Field("content", FieldKind.TEXT, "content digest of what it gave"),
    Field("reason", FieldKind.TEXT, "why it was refused, or gave nothing new"),
)
SNAPSHOTS = vocabulary(
    "snapshot",
    ("snapshot", "type", "model", "alias"),
    Field("snapshot", FieldKind.TEXT, "its digest; `snapshot:aa3e*`"),
    Field("type", FieldKind.TEXT, "pump type"),
    Field("model", FieldKind.TEXT, "the model line that learned from it"),
    Field("versions", FieldKind.NUMBER, "how many versions came of it"),
    Field("alias", FieldKind.LIST, "aliases of those versions"),
    Field("pumps", FieldKind.NUMBER, "pumps in it"),
    Field("held", FieldKind.CHOICE, "whether its rows can be read here", choices=("yes", "no")),
    Field("end", FieldKind.TIME, "when its data ends", unit=_TIME),
)
TEXTS = vocabulary("line", ("text",), Field("text", FieldKind.TEXT, "what the line says"))
"""For lists that have no fields of their own: only words are of use."""
KINDS = (PUMPS, MODELS, RUNS, SNAPSHOTS)
"""Every kind that docs/query.md shows."""
