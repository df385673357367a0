"""What only the provider of a model can say: `[card]` of a pipeline spec. Empty means: not stated yet, and the card says so."""

from __future__ import annotations

from dataclasses import dataclass

STATEMENT_MAX = 2000


@dataclass(frozen=True, slots=True)
class CardStatements:
    """Plain sentences for the model card; nothing in them changes what is learned.

    Each answers an item of Annex IV of Regulation (EU) 2024/1689 that no training run can know.
    """

    provider: str = ""
    intended_use: str = ""
    not_for: str = ""
    instructions: str = ""
    human_oversight: str = ""
    risk_management: str = ""
    standards: str = ""
    declaration: str = ""
    post_market: str = ""
    tested_by: str = ""
