"""The fields a query may name: kind, unit and meaning (docs/query.md shows this very table)."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from pumpdeck_fleet.core.health import Health
from pumpdeck_fleet.core.inventory import Link


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


_HEALTH = tuple(health.name.lower() for health in sorted(Health))
_LINKS = tuple(link.value for link in Link)

FIELDS: Mapping[str, Field] = {
    field.name: field
    for field in (
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
        Field("seen", FieldKind.TIME, "when the pump was last heard of", unit="age such as 2h, or a date"),
    )
}

WORD_FIELDS = ("pump", "tag", "site")
"""Where a bare word is looked for, as a part of the text."""
