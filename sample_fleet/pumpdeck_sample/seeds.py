"""Random streams that depend on a seed and on names, never on order.

Every pump, site and fault draws from its own stream, so a pump reads the same whether it is simulated alone, beside its
device's other pumps or with the whole fleet.
"""

from __future__ import annotations

import hashlib

import numpy as np


def rng_for(seed: int, *words: str) -> np.random.Generator:
    """The random stream of `words` under `seed`; equal arguments give equal streams."""
    text = "\x1f".join((str(seed), *words))
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
