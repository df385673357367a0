"""Estimators become files that can be imported, and only when the files compute what the estimators do."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pumpdeck_fleet.core.errors import GateRefusedError, InputError, RefusedError
from pumpdeck_trainer.foreign import Statement, export
from pumpdeck_trainer.foreign_reader import read_graph
from pumpdeck_trainer.foreign_reference import parse_reference
from pumpdeck_trainer.foreign_rules import check_graph

warnings.filterwarnings("ignore", category=FutureWarning)
NAMES = ("a", "b", "c")
ROWS = np.random.default_rng(3).standard_normal((300, 3)).astype(np.float32)
ILL = (np.abs(ROWS).max(axis=1) > 1.8).astype(int)


def statement(**change: Any) -> Statement:
    told = {"pump_type": "esp", "channels": tuple((name, "bar") for name in NAMES), "made_by": "me", "licence": "MIT",
            "says": 'rows "of" a\\bench', "meaning": "strangeness", "worse": "lower"}  # fmt: skip
    return Statement(**{**told, **change})


def estimators() -> dict[str, tuple[Any, dict[str, Any]]]:
    from sklearn.ensemble import IsolationForest, RandomForestClassifier
    from sklearn.mixture import GaussianMixture
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC, OneClassSVM

    ill = {"worse": "higher", "method": "predict_proba"}
    return {
        "isolation forest": (IsolationForest(n_estimators=5, random_state=1).fit(ROWS), {}),
        "one-class machine": (OneClassSVM().fit(ROWS), {"method": "decision_function"}),
        "mixture": (GaussianMixture(2, random_state=1).fit(ROWS), {}),
        "forest": (RandomForestClassifier(5, random_state=1).fit(ROWS, ILL), ill),
        "scaled network": (
            make_pipeline(StandardScaler(), MLPClassifier((6,), max_iter=30, random_state=1)).fit(ROWS, ILL),
            ill,
        ),
        "machine": (SVC().fit(ROWS, ILL), {"worse": "higher", "method": "decision_function"}),
    }


@pytest.mark.parametrize(
    "name", ["isolation forest", "one-class machine", "mixture", "forest", "scaled network", "machine"]
)
@pytest.mark.filterwarnings("ignore")
def test_an_estimator_becomes_a_file_an_import_takes(tmp_path: Path, name: str) -> None:
    estimator, change = estimators()[name]
    said = statement(**change)
    made = export(estimator, ROWS, said, tmp_path / "out")
    assert made.relative <= 1e-3
    check_graph(read_graph(made.model.read_bytes()))
    reference = parse_reference(made.reference.read_bytes(), NAMES, "reference")
    found = np.asarray(getattr(estimator, said.method)(reference.rows), np.float64)
    assert np.allclose(reference.scores, found[:, -1] if found.ndim == 2 else found)
    assert 'says = "rows \\"of\\" a\\\\bench"' in made.spec.read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore")
def test_the_same_estimator_gives_the_same_bytes(tmp_path: Path) -> None:
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(n_estimators=3, random_state=1).fit(ROWS)
    one, two = (export(forest, ROWS, statement(), tmp_path / name) for name in ("one", "two"))
    assert one.model.read_bytes() == two.model.read_bytes()
    assert one.reference.read_bytes() == two.reference.read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_a_conversion_that_is_silently_wrong_is_found_and_nothing_is_written(tmp_path: Path) -> None:
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(n_estimators=3, random_state=1).fit(ROWS)
    honest = forest.score_samples
    forest.score_samples = lambda rows: honest(rows) * (1 + 0.01 * (np.abs(rows).max(axis=1) > 2))
    with pytest.raises(GateRefusedError, match="something else after conversion"):
        export(forest, ROWS, statement(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_imported_is_not_exported(tmp_path: Path) -> None:
    from sklearn.neighbors import LocalOutlierFactor

    with pytest.raises(RefusedError, match="holds a graph inside a node"):
        export(LocalOutlierFactor(novelty=True).fit(ROWS), ROWS, statement(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "change"),
    [(ROWS[:5], {}), (ROWS[:, :2], {}), (np.full_like(ROWS, np.nan), {}), (ROWS, {"method": "fit"}), (ROWS, {"worse": "up"})],
    ids=["few rows", "other columns", "holes", "another method", "another direction"],
)
def test_nonsense_is_refused_by_name(tmp_path: Path, rows: np.ndarray, change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        export(object(), rows, statement(**change), tmp_path / "out")
