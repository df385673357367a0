"""The models screen says of a version that it was not learned here."""

from __future__ import annotations

import dataclasses

import pytest

from pumpdeck_console.operations.views import ModelsView, ModelVersionRow
from pumpdeck_console.tui.models_screen import models_table, version_lines

OWN = ModelVersionRow("esp-health", "esp", 2, ("champion",), "a" * 64, 0, (("parity", "pass", "fine"),), (("pumps", 4.0),), 4)
FOREIGN = dataclasses.replace(
    OWN, version=3, aliases=(), origin=("m.onnx by Institute of Pumps", "licence CC-BY-4.0", "bench of 2024", "score: distance")
)


def text_of(row: ModelVersionRow, width: int = 48) -> str:
    return "\n".join("".join(part for part, _ in line) for line in version_lines(row, width))


def test_a_foreign_version_says_so_before_its_gates() -> None:
    text = text_of(FOREIGN)
    assert "Institute of Pumps" in text and "CC-BY-4.0" in text
    assert text.index("FOREIGN") < text.index("GATES")
    assert "FOREIGN" not in text_of(OWN)


@pytest.mark.parametrize(("row", "words"), [(OWN, "champion"), (FOREIGN, "foreign")])
def test_the_list_marks_it(row: ModelVersionRow, words: str) -> None:
    table = models_table(ModelsView(0, (row,)), 1)
    alias = next(column for column in table.columns if column.key == "alias")
    assert words == "".join(part for part, _ in alias.draw(0, 20)).strip()
