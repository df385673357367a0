"""What a pipeline knows of an imported file: where it comes from, its tensors, how its score is read. Light to import."""

from __future__ import annotations

from dataclasses import dataclass

from pumpdeck_fleet.core.registry import FOREIGN

__all__ = ["FOREIGN", "NEVER_FOLLOWS_S", "ForeignInput"]

NEVER_FOLLOWS_S = 1e20
"""Time constant of a baseline that stands still to the last bit: a file from outside sees rows as they were measured."""


@dataclass(frozen=True, slots=True)
class ForeignInput:
    """Part of the pipeline spec of an imported version, so that its digest covers the file.

    Scores on devices are (raw - zero) / unit, or (zero - raw) / unit where lower is worse, never below 0: how far beyond the
    healthy rows, in steps of their spread. zero, unit: None until learned from healthy rows. limit: in the file's own unit;
    None: from the alarm budget. source, reference: digests of the files handed in; graph: of the checked graph inside.
    """

    made_by: str
    licence: str
    says: str
    meaning: str
    tensor: str = ""
    in_widths: bool = False
    output: str = ""
    column: int = 0
    is_lower_worse: bool = False
    zero: float | None = None
    unit: float | None = None
    limit: float | None = None
    contributions: str = ""
    file: str = ""
    source: str = ""
    graph: str = ""
    reference: str = ""

    @property
    def sign(self) -> float:
        """1 where higher is worse, else -1."""
        return -1.0 if self.is_lower_worse else 1.0
