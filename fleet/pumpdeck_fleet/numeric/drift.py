"""Population stability index (PSI) of a pump's channels: from sketches (device returns) or from raw rows (audit).

Definition, as published (Siddiqi, Credit Risk Scorecards, Wiley 2006; Yurdakul, Statistical Properties of Population
Stability Index, Western Michigan University 2018): PSI = sum over bins of (p - q) * ln(p / q), p and q the shares
of the current and the reference window. What those leave open is fixed here: bins are the reference deciles,
right-closed (a, b], the outer ones open-ended; a value that holds 5 % of the reference or more (an atom) has a bin
of its own and coinciding edges are one edge; q is counted, not assumed to be 0.1; a share below 1e-4 counts as
1e-4, without rescaling the others. Usual reading: < 0.1 stable, 0.1-0.25 look, > 0.25 changed.
"""

from __future__ import annotations

import numpy as np

from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.numeric.edges import ChannelEdges
from pumpdeck_fleet.numeric.frame import Float32, Float64, Int64
from pumpdeck_fleet.numeric.sketch import Sketch

SHARE_FLOOR = 1e-4


def psi(reference_counts: Int64, current_counts: Int64) -> float:
    """PSI of two histograms over the same bins; NaN when either is empty.

    Raises:
        FormatError: the numbers of bins differ.
    """
    if reference_counts.shape != current_counts.shape or reference_counts.ndim != 1:
        expected, found = reference_counts.shape, current_counts.shape
        raise FormatError("has other bins than the reference", "PSI", expected=expected, found=found)
    if not reference_counts.sum() or not current_counts.sum():
        return float("nan")
    before = np.maximum(reference_counts / reference_counts.sum(), SHARE_FLOOR)
    now = np.maximum(current_counts / current_counts.sum(), SHARE_FLOOR)
    return float(((now - before) * np.log(now / before)).sum())


def psi_of_sketch(sketch: Sketch) -> Float64:
    """PSI of each channel against the reference window, float64 [c], from the sketch's counts alone."""
    return np.array(
        [
            psi(edge.cuts.fold(edge.reference, edge.cuts.decile_cuts), sketch.decile_counts(place))
            for place, edge in enumerate(sketch.edges.edges)
        ]
    )


def psi_of_rows(edge: ChannelEdges, values: Float32) -> float:
    """PSI of one channel from its raw values [n] (NaN = missing): the audit path, binned directly on the decile edges."""
    cuts = np.ldexp(np.array(edge.cuts.decile_cuts, np.float64), edge.cuts.exponent)
    found = values[np.isfinite(values)].astype(np.float64)
    counts = np.bincount(np.searchsorted(cuts, found, side="left"), minlength=len(cuts) + 1)
    return psi(edge.cuts.fold(edge.reference, edge.cuts.decile_cuts), counts)
