"""Seeded rows for sketches: ten channels of awkward shapes, and the edges of their reference window."""

from __future__ import annotations

import numpy as np

from pumpdeck_fleet.numeric.edges import ReferenceEdges, fit_edges

NAMES = ("plain", "coarse", "skewed", "stopped", "large", "constant", "two_levels", "heavy_tail", "integer", "tiny")


def awkward_rows(seed: int, rows: int, shift: float = 0.0) -> np.ndarray:
    """float32 [rows, 10]; `shift` moves every channel by that many of its spreads."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 10)) + shift
    x[:, 1] = np.round(2 * x[:, 1]) / 2
    x[:, 2] = np.exp(x[:, 2])
    x[:, 3] = np.where(rng.random(rows) < 0.3, 0.0, 5 + x[:, 3])
    x[:, 4] = 1e5 + x[:, 4] / 10
    x[:, 5] = 7.0
    x[:, 6] = np.where(rng.random(rows) < 0.5, 10.0, 20.0) + shift
    x[:, 7] = rng.standard_t(2, rows) + shift
    x[:, 8] = np.round(x[:, 8])
    x[:, 9] = 1e-6 * x[:, 9]
    return x.astype(np.float32)


def awkward_edges(seed: int = 1, rows: int = 4176) -> ReferenceEdges:
    """Edges from such rows."""
    values = awkward_rows(seed, rows)
    return fit_edges(NAMES, values, values.astype(np.float64).std(axis=0))
