"""The store: the only code that speaks SQL. `Store.open` is the door; types of its rows stand in the modules of their tables."""

from pumpdeck_fleet.store.artifacts import ArtifactStore
from pumpdeck_fleet.store.store import Store

__all__ = ["ArtifactStore", "Store"]
