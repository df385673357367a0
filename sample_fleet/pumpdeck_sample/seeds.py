"""Random streams that depend on a seed and on names, never on order.

Every pump, site and fault draws from its own stream, so a pump reads the same whether it is simulated alone, beside its
device's other pumps or with the whole fleet.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


def rng_for(seed: int, *words: str) -> np.random.Generator:
    """The random stream of `words` under `seed`; equal arguments give equal streams."""
    text = "\x1f".join((str(seed), *words))
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


@dataclass(frozen=True)
class Chance:
    """Where a simulation's randomness comes from.

    What a pump is follows from the seed alone; what happens to come along (weather, noise) from the seed and the episode, so a
    later episode of the same fleet is no repetition of an earlier one.
    """

    seed: int
    episode: int = 0

    def of_nature(self, *words: str) -> np.random.Generator:
        """The stream for what stays the same in every episode."""
        return rng_for(self.seed, *words)

    def of_episode(self, *words: str) -> np.random.Generator:
        """The stream for what comes along in this episode."""
        return rng_for(self.seed, "episode", str(self.episode), *words)
