"""The laws of the machines, in quantities relative to the rated point (1.0 = rated).

Centrifugal pumps: a parabolic head curve that scales by the affinity laws (flow ~ n, head ~ n^2, power ~ n^3 at constant
efficiency), met by a system curve of static head and resistance; see Gülich, Centrifugal Pumps, ch. 3 and 4.
Progressive cavity pumps: flow ~ n less slip, slip ~ pressure, torque ~ pressure plus rotor friction; see Cholet, Progressing
Cavity Pumps, ch. 2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]

SHUTOFF_HEAD = 1.25
EFFICIENCY_FALL = 0.6
PCP_SLIP = 0.12
PCP_FRICTION_SHARE = 0.25


def head_of(flow: F32, speed: F32, head_factor: F32) -> F32:
    """Head of a centrifugal pump at a flow and speed; `head_factor` < 1 is a worn or cavitating impeller."""
    return head_factor * (SHUTOFF_HEAD * speed * speed - (SHUTOFF_HEAD - 1.0) * flow * flow)


def operating_flow(speed: F32, resistance: F32, static_share: F32, head_factor: F32) -> F32:
    """Flow at which the pump's head meets static head + resistance x flow^2; 0 when the pump cannot lift the static head."""
    surplus = head_factor * SHUTOFF_HEAD * speed * speed - static_share
    slope = head_factor * (SHUTOFF_HEAD - 1.0) + resistance * (1.0 - static_share)
    flow: F32 = np.sqrt(np.maximum(surplus, 0.0) / slope)
    return flow


def efficiency_of(flow: F32, speed: F32) -> F32:
    """Efficiency relative to the best point: a parabola in flow/speed, never under 0.3."""
    off_best = flow / speed - 1.0
    return np.maximum(1.0 - EFFICIENCY_FALL * off_best * off_best, np.float32(0.3))


def shaft_power(flow: F32, head: F32, density: F32, efficiency: F32) -> F32:
    """Power at the shaft: what the fluid gains, over the efficiency."""
    return density * flow * head / efficiency


def cavitation_of(suction_bar: F32, vapour_bar: F32, required_bar: F32, speed: F32, flow: F32) -> F32:
    """Cavitation intensity 0..1 from the NPSH margin, in bar.

    Required NPSH grows with speed^2 and with flow^2 (Gülich, ch. 6); cavitation sets in smoothly as the margin is used up.
    """
    required = required_bar * (0.5 * speed * speed + 0.5 * flow * flow)
    margin = (suction_bar - vapour_bar - required) / required
    intensity: F32 = 1.0 / (1.0 + np.exp(np.minimum(12.0 * (margin + 0.15), np.float32(60.0))))
    return intensity


def pcp_flow(speed: F32, lift: F32, wear: F32) -> F32:
    """Flow of a progressive cavity pump: displacement less the slip that pressure drives through the stator's clearance."""
    return np.maximum((1.0 + PCP_SLIP) * speed - PCP_SLIP * (1.0 + 4.0 * wear) * lift, 0.0)


def pcp_torque(lift: F32, wear: F32) -> F32:
    """Shaft torque of a progressive cavity pump: hydraulic torque plus rotor friction, which a worn stator loses."""
    return (1.0 - PCP_FRICTION_SHARE) * lift + PCP_FRICTION_SHARE * (1.0 - 0.5 * wear)


def bearing_loss(speed: F32, wear: F32) -> F32:
    """Friction heat of a rolling bearing, about n^(5/3) (SKF's load-independent moment), multiplied by wear."""
    loss: F32 = np.power(speed, np.float32(5.0 / 3.0)) * (1.0 + 2.5 * wear)
    return loss
