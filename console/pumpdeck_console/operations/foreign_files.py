"""The files of an imported version, back from the artifacts or from an exported run: what a replay judges again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DamagedError
from pumpdeck_trainer.foreign_input import ForeignInput
from pumpdeck_trainer.foreign_reference import parse_reference
from pumpdeck_trainer.foreign_scorer import ForeignModel
from pumpdeck_trainer.spec import SPEC_MAX_BYTES, PipelineSpec

GRAPH_MEMBER, REFERENCE_MEMBER = "foreign.onnx", "reference.csv"


def load_foreign(workspace: Workspace, spec: PipelineSpec) -> ForeignModel | None:
    """The imported graph that a spec names; None for a pipeline of our own.

    Raises:
        NotFoundError, DamagedError: it is not in the artifacts, or altered.
    """
    return _model(spec, workspace.artifacts.get)


def foreign_members(workspace: Workspace, pipeline_digest: str) -> dict[str, bytes]:
    """What an exported run holds more of an import: the checked graph, and the reference."""
    data = workspace.artifacts.get(pipeline_digest)
    spec = canonical.decode(PipelineSpec, data, f"pipeline {pipeline_digest[:12]}", max_bytes=SPEC_MAX_BYTES)
    said = spec.foreign
    if said is None:
        return {}
    members = {GRAPH_MEMBER: workspace.artifacts.get(said.graph)}
    return members | ({REFERENCE_MEMBER: workspace.artifacts.get(said.reference)} if said.reference else {})


def foreign_of_members(spec: PipelineSpec, members: Mapping[str, bytes]) -> ForeignModel | None:
    """The imported graph of an exported run. Raises: DamagedError - it is missing or altered."""

    def get(digest: str) -> bytes:
        for name in (GRAPH_MEMBER, REFERENCE_MEMBER):
            if name in members and canonical.digest(members[name]) == digest:
                return members[name]
        raise DamagedError("lacks a file of the import, or holds another", "exported run", expected=digest[:12])

    return _model(spec, get)


def _model(spec: PipelineSpec, get: Callable[[str], bytes]) -> ForeignModel | None:
    said: ForeignInput | None = spec.foreign
    if said is None:
        return None
    names = [one.name for one in spec.channels]
    reference = parse_reference(get(said.reference), names, "reference") if said.reference else None
    return ForeignModel(get(said.graph), said, len(names), reference)
