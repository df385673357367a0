"""First-order processes on uneven time steps: random disturbances and heat stores."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]


def steps_s(at_ms: I64, last_ms: int | None) -> F64:
    """Seconds since the row before, float64[T]; the very first row ever has an infinite step."""
    steps = np.empty(at_ms.size, dtype=np.float64)
    steps[1:] = np.diff(at_ms) / 1000.0
    steps[0] = np.inf if last_ms is None else (int(at_ms[0]) - last_ms) / 1000.0
    return steps


def disturb(noise: F32, state: F32, step_s: F64, tau_s: F64) -> F32:
    """Turn white noise [T, k, n] into k stationary AR(1) processes of unit variance, in place; returns the last state [k, n].

    `tau_s` [k] are the correlation times. An infinite step starts a process in its stationary distribution.
    """
    decay = np.exp(-step_s[:, None] / tau_s[None, :])
    noise *= np.sqrt(1.0 - decay**2).astype(np.float32)[:, :, None]
    return _recur(noise, state, decay.astype(np.float32)[:, :, None])


def lag(target: F32, state: F32 | None, step_s: F64, tau_s: F64) -> F32:
    """Let k heat stores [T, k, n] follow their targets with time constants `tau_s` [k], in place; returns the last state.

    Exact for a target held over each step, whatever the step. Without a state the stores start in balance.
    """
    decay = np.exp(-step_s[:, None] / tau_s[None, :])
    start = target[0].copy() if state is None else state
    target *= (1.0 - decay).astype(np.float32)[:, :, None]
    return _recur(target, start, decay.astype(np.float32)[:, :, None])


def _recur(rows: F32, state: F32, decay: F32) -> F32:
    kept = np.empty_like(state)
    for row, factor in zip(rows, decay, strict=True):
        np.multiply(state, factor, out=kept)
        np.add(row, kept, out=row)
        state = row
    return state.copy()
