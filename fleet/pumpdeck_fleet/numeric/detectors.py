"""`maxz`: how far is the worst voting channel from its baseline. One pump's parameters, their bytes, the numpy reference.

The shipped ONNX graph computes the same; the trainer's parity gate compares the two before anything is packaged.
"""

from __future__ import annotations

import enum
import hashlib
import math
import struct
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.numeric.frame import Bools, Float32, Float64

MAX_CHANNELS = 32
SMALLEST_SCALE = 1e-6
SCORE_CAP = 1e6
_MANY_ROWS = 256
_MAGIC = b"PDMZ"
_VERSION = 1
_HEAD = struct.Struct("<4sBBBBfI8s")
_PROVISIONAL = 1


class LimitBranch(enum.Enum):
    """How the limit was found (trainer `fit_limit`)."""

    DAILY = "daily"
    WINDOWS = "windows"
    POOLED = "pooled"


_BRANCHES = (LimitBranch.DAILY, LimitBranch.WINDOWS, LimitBranch.POOLED)


@dataclass(frozen=True, eq=False)
class PumpBlock:
    """What one pump adds to the shared graph: its baseline and limit.

    channels: c names in input order. centre, scale, floor: float32 [c] in the channel's unit; `floor` is the sensor's
    resolution, below which a scale means nothing. votes: bool [c]. limit: the score above which the alarm logic
    starts counting. provisional: the limit is the pump type's, not yet the pump's own.
    """

    channels: tuple[str, ...]
    centre: Float32
    scale: Float32
    floor: Float32
    votes: Bools
    limit: float
    branch: LimitBranch = LimitBranch.DAILY
    provisional: bool = False
    width: Float32 = field(init=False, repr=False)

    def __post_init__(self) -> None:
        count = len(self.channels)
        if not 0 < count <= MAX_CHANNELS:
            raise FormatError(
                "has the wrong number of channels", "pump block", expected=f"1-{MAX_CHANNELS}", found=count
            )
        for name in ("centre", "scale", "floor"):
            column: Float32 = getattr(self, name)
            if column.dtype != np.float32 or column.shape != (count,) or not np.isfinite(column).all():
                raise FormatError("is not a finite float32 per channel", f"pump block {name}", found=column)
        if self.votes.dtype != np.bool_ or self.votes.shape != (count,) or not self.votes.any():
            raise FormatError("needs a boolean per channel and one that votes", "pump block votes", found=self.votes)
        if (self.scale < 0).any() or (self.floor < 0).any():
            raise FormatError("has a negative scale or floor", "pump block", found=(self.scale, self.floor))
        if not (math.isfinite(self.limit) and self.limit > 0 and float(np.float32(self.limit)) == self.limit):
            raise FormatError("is not a positive float32", "pump block limit", found=self.limit)
        smallest = np.maximum(np.abs(self.centre) * np.float32(SMALLEST_SCALE), np.float32(1e-12))
        object.__setattr__(self, "width", np.maximum(np.maximum(self.scale, self.floor), smallest))


def channels_digest(channels: tuple[str, ...]) -> bytes:
    """The first 8 bytes of the SHA-256 over the channel names in order: a block never meets the wrong inputs unseen."""
    return hashlib.sha256("\n".join(channels).encode("utf-8")).digest()[:8]


def encode_block(block: PumpBlock) -> bytes:
    """Little-endian: magic, version, channel count, bits, branch, limit, votes mask, channels' digest, centre, scale, floor.

    24 + 12 c bytes: 120 for 8 channels. The same block always gives the same bytes.
    """
    votes = sum(1 << place for place, vote in enumerate(block.votes.tolist()) if vote)
    bits = _PROVISIONAL if block.provisional else 0
    branch = _BRANCHES.index(block.branch)
    head = _HEAD.pack(
        _MAGIC, _VERSION, len(block.channels), bits, branch, block.limit, votes, channels_digest(block.channels)
    )
    columns = np.concatenate([block.centre, block.scale, block.floor])
    return head + columns.astype("<f4").tobytes()


def decode_block(data: bytes, channels: tuple[str, ...], what: str = "pump block") -> PumpBlock:
    """The block for these channels.

    Raises:
        FormatError: not such a block, cut, padded, made for other channels, or a number in it makes no sense.
    """
    count = len(channels)
    if len(data) != _HEAD.size + 12 * count:
        raise FormatError("has the wrong length", what, expected=_HEAD.size + 12 * count, found=len(data))
    magic, version, found, bits, branch, limit, votes, names = _HEAD.unpack_from(data)
    if (magic, version, found) != (_MAGIC, _VERSION, count):
        raise FormatError("is not a pump block for these channels", what, expected=count, found=data[:6].hex())
    if names != channels_digest(channels):
        raise FormatError("was made for other channels", what, expected=", ".join(channels))
    if bits & ~_PROVISIONAL or branch >= len(_BRANCHES) or votes >> count:
        raise FormatError("has bits that mean nothing", what, found=data[:16].hex())
    columns = np.frombuffer(data, "<f4", 3 * count, _HEAD.size).astype(np.float32).reshape(3, count)
    return PumpBlock(
        channels=channels,
        centre=columns[0],
        scale=columns[1],
        floor=columns[2],
        votes=np.array([bool(votes >> place & 1) for place in range(count)]),
        limit=limit,
        branch=_BRANCHES[branch],
        provisional=bool(bits & _PROVISIONAL),
    )


def contributions(block: PumpBlock, features: Float32) -> Float32:
    """How many widths each voting channel stands from its centre, float32 [n, c]; 0 for missing and non-voting channels.

    The width is the baseline's scale, never below the sensor's resolution. The largest contribution names the
    guilty channel. Capped at `SCORE_CAP`, so no score is ever infinite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        away = np.abs(features - block.centre) / block.width
    capped = np.minimum(away, np.float32(SCORE_CAP))
    return np.asarray(np.where(np.isnan(away) | ~block.votes, np.float32(0), capped), np.float32)


def score_rows(block: PumpBlock, features: Float32) -> Float32:
    """The score, float32 [n]: the largest contribution. 0 when every voting channel is missing (`has_votes` tells)."""
    if len(features) < _MANY_ROWS:
        return np.asarray(contributions(block, features).max(axis=1), np.float32)
    # numpy is slow over a short last axis: channel by channel takes a fraction of the time, with the same bits.
    score: Float32 = np.zeros(len(features), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for place in np.flatnonzero(block.votes).tolist():
            away = np.abs(features[:, place] - block.centre[place]) / block.width[place]
            np.fmax(score, np.minimum(away, np.float32(SCORE_CAP)), out=score)
    return score


def has_votes(block: PumpBlock, features: Float32) -> Bools:
    """Rows in which at least one voting channel is present; the others have no score worth the name."""
    if len(features) < _MANY_ROWS:
        return np.asarray(np.isfinite(features[:, block.votes]).any(axis=1))
    first, *others = np.flatnonzero(block.votes).tolist()
    present = np.isfinite(features[:, first])
    for place in others:
        present |= np.isfinite(features[:, place])
    return present


def probability(score: NDArray[np.floating], limit: float) -> Float64:
    """`score / (score + limit)`: 0 at the baseline, 0.5 exactly at the limit, towards 1 far beyond it.

    A monotone reading of the score for screens and for `/score`, not a calibrated frequency of faults.
    """
    wide = np.asarray(score, np.float64)
    return np.asarray(wide / (wide + limit), np.float64)


def to_float32(value: float) -> float:
    """The nearest float32 as a Python float: what a block can hold."""
    return float(np.float32(value))
