"""A model from outside: through the gates, into the registry as foreign, accepted by people, packaged, replayed, explained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tomlkit
from onnx import TensorProto, helper
from onnx.helper import make_node as node

from pumpdeck_console import wiring
from pumpdeck_console.operations.importing import check_import, import_model
from pumpdeck_console.operations.models import demote, find_version, list_models, promote, read_card
from pumpdeck_console.operations.packages import package_content
from pumpdeck_console.operations.replaying import replay_run
from pumpdeck_console.operations.run_export import export_run, replay_file
from pumpdeck_console.operations.runs import list_runs, read_run
from pumpdeck_console.operations.selection import wanted_devices
from pumpdeck_console.operations.training import TrainedRow
from pumpdeck_console.wiring import Workspace, open_workspace
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.errors import GateRefusedError, InputError, NotFoundError, RefusedError, UsageError
from pumpdeck_fleet.core.registry import FOREIGN, Alias, GateVerdict
from pumpdeck_packaging.package import build_package
from pumpdeck_packaging.package_reader import read_package
from support.foreign_models import distance_model, model_bytes, pump_type_of, write_import
from support.small_fleet import NOW_MS
from support.trained_workspace import make_champion, trained_row, workspace_with_rows


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setattr(wiring, "SystemClock", lambda: FixedClock(NOW_MS))
    made = workspace_with_rows(tmp_path / "workspace")
    yield made
    made.close()


def imported(workspace: Workspace, folder: Path, **spec: str) -> TrainedRow:
    kind = pump_type_of(workspace)
    return import_model(workspace, **write_import(folder, kind, distance_model(kind), **spec))


def gates_of(workspace: Workspace, row: TrainedRow) -> dict[str, GateVerdict]:
    return {gate.name: gate.verdict for gate in find_version(workspace, row.model, str(row.version)).gates}


def test_an_import_passes_the_gates_and_waits_for_a_person(workspace: Workspace, tmp_path: Path) -> None:
    own = trained_row(workspace)
    make_champion(workspace, own)
    before = workspace.store.registry.aliases(own.model)
    row = imported(workspace, tmp_path / "in")
    version = find_version(workspace, row.model, str(row.version))
    verdicts = gates_of(workspace, row)
    assert {name: verdicts[name] for name in ("parity", "reference", "graph", "replay", "backtest")} == dict.fromkeys(
        ("parity", "reference", "graph", "replay", "backtest"), GateVerdict.PASS
    )
    assert verdicts["foreign"] is GateVerdict.WARN
    assert {"champion", "slices", "coverage", "profile", "training_data", "holdout"} <= set(verdicts)
    assert (version.model_type, version.origin.made_by, version.origin.licence) == (FOREIGN, "Institute of Pumps", "CC-BY-4.0")
    assert workspace.store.registry.aliases(row.model) == before
    assert next(run.kind for run in list_runs(workspace)) == "imported"
    record = read_run(workspace, run=row.run)
    assert (record["kind"], record["spec"]["foreign"]["source"]) == ("imported", version.origin.source_digest)
    entry = next(one for one in workspace.store.audit.entries() if one.action == "import.run")
    assert entry.digests["source"] == version.origin.source_digest
    for shipped in (True, False):
        card = read_card(workspace, model=row.model, which=str(row.version), shipped=shipped)
        assert "This model was not learned here" in card and "Institute of Pumps" in card
    assert [one.version.number for one in list_models(workspace, query="institute")] == [row.version]


def test_nobody_promotes_or_ships_a_foreign_model_unawares(workspace: Workspace, tmp_path: Path) -> None:
    own = trained_row(workspace)
    make_champion(workspace, own)
    row = imported(workspace, tmp_path / "in")
    number = str(row.version)
    with pytest.raises(RefusedError, match=r"takes a person to accept it.*Institute of Pumps"):
        promote(workspace, model=row.model, which=number, reason="looks good")
    with pytest.raises(UsageError, match="needs a reason"):
        promote(workspace, model=row.model, which=number, accept_foreign=True)
    lacking = {one.lacking for one in wanted_devices(workspace, query="", models={row.model: number}) if one.lacking}
    assert f"{row.model} v{number} is foreign and a person must accept it first" in lacking
    assert workspace.store.registry.aliases(row.model)[Alias.CHAMPION] == own.version

    report = promote(workspace, model=row.model, which=number, reason="read the card", accept_foreign=True)
    assert (report.changed, report.champion, report.previous) == (True, row.version, own.version)
    assert promote(workspace, model=row.model, which=str(own.version)).changed
    assert promote(workspace, model=row.model, which=number).changed
    assert demote(workspace, model=row.model, reason="back to our own").champion == own.version


def test_where_the_policy_says_two_one_person_is_not_enough(workspace: Workspace, tmp_path: Path) -> None:
    row = imported(workspace, tmp_path / "in")
    path = workspace.root / "policies.toml"
    policies = tomlkit.parse(path.read_text(encoding="utf-8")) if path.exists() else tomlkit.document()
    policies["foreign"] = {"approvals": 2}
    path.write_text(tomlkit.dumps({"format": 1, **policies}), encoding="utf-8", newline="\n")
    with open_workspace(workspace.root) as again:
        for _ in range(2):
            report = promote(again, model=row.model, which=str(row.version), reason="fine", accept_foreign=True)
            assert (report.changed, report.missing_people) == (False, 1)
        again.__dict__["person"] = "somebody else"
        assert promote(again, model=row.model, which=str(row.version), reason="me too", accept_foreign=True).changed


def test_the_package_says_foreign_and_names_the_file(workspace: Workspace, tmp_path: Path) -> None:
    row = imported(workspace, tmp_path / "in")
    promote(workspace, model=row.model, which=str(row.version), reason="fine", accept_foreign=True)
    version = find_version(workspace, row.model, str(row.version))
    named = {row.model: str(row.version)}
    wanted = next(one for one in wanted_devices(workspace, query="", models=named) if not one.lacking and len(one.versions) == 1)
    built = build_package(package_content(workspace, wanted))
    files = read_package(built.data, expected_sha256=built.sha256, max_unpacked_bytes=built.unpacked_bytes)
    entry = next(one for one in files.manifest.models if one.model == row.model)
    assert entry.model_type == FOREIGN
    assert version.origin is not None
    assert version.origin.source_digest in built.provenance.decode()
    assert b"## Foreign" in files.files[entry.card]


def test_importing_again_changes_nothing_and_a_replay_gives_the_same_bytes(workspace: Workspace, tmp_path: Path) -> None:
    row = imported(workspace, tmp_path / "in")
    again = imported(workspace, tmp_path / "in")
    assert (again.is_new, again.version, again.content_digest) == (False, row.version, row.content_digest)
    assert replay_run(workspace, run=row.run).same
    export_run(workspace, run=row.run, to=str(tmp_path / "run.tar"))
    assert replay_file(workspace, path=str(tmp_path / "run.tar")).same


def test_scores_that_are_not_the_references_are_refused_for_good(workspace: Workspace, tmp_path: Path) -> None:
    kind = pump_type_of(workspace)
    args = write_import(tmp_path / "in", kind, distance_model(kind))
    path = Path(args["reference"])
    lines = path.read_text(encoding="utf-8").splitlines()
    head, _, score = lines[5].rpartition(",")
    lines[5] = f"{head},{float(score) * 1.01!r}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    before = workspace.store.registry.models()
    with pytest.raises(GateRefusedError, match=r"reference: 200 rows of the reference.*Nothing was registered"):
        import_model(workspace, **args)
    assert workspace.store.registry.models() == before


def test_without_a_reference_it_warns(workspace: Workspace, tmp_path: Path) -> None:
    kind = pump_type_of(workspace)
    row = import_model(workspace, **write_import(tmp_path / "in", kind, distance_model(kind), reference=False))
    assert gates_of(workspace, row)["reference"] is GateVerdict.WARN


def test_lower_is_worse_turns_the_score_around_and_keeps_limits(workspace: Workspace, tmp_path: Path) -> None:
    kind = pump_type_of(workspace)
    upright = imported(workspace, tmp_path / "up")
    count = len(kind.channels)
    graph = distance_model(kind)
    import onnx

    model = onnx.load_from_string(graph)
    model.graph.node[-1].output[0] = "distance"
    model.graph.node.append(node("Neg", ["distance"], ["raw"]))
    args = write_import(tmp_path / "down", kind, model.SerializeToString(), reference=False, score='worse = "lower"')
    turned = import_model(workspace, **args)
    one, two = (find_version(workspace, row.model, str(row.version)) for row in (upright, turned))
    assert count and [p.limit for p in one.pumps] == pytest.approx([p.limit for p in two.pumps], rel=1e-5)
    assert one.origin is not None and two.origin is not None
    assert two.origin.raw(2.0) == pytest.approx(-one.origin.raw(2.0), rel=1e-6)


def test_a_stated_limit_is_taken_and_said_to_be_the_types_own(workspace: Workspace, tmp_path: Path) -> None:
    row = imported(workspace, tmp_path / "in", score='worse = "higher"\nzero = 0.0\nunit = 1.0\nlimit = 2.5')
    version = find_version(workspace, row.model, str(row.version))
    assert {pump.limit for pump in version.pumps} == {2.5}
    assert {(pump.limit_branch, pump.provisional) for pump in version.pumps} == {("pooled", True)}
    assert "Its maker states the limit 2.5" in read_card(workspace, model=row.model, which=str(row.version))


def test_a_stated_limit_among_healthy_scores_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(GateRefusedError, match="among the scores of healthy rows"):
        imported(workspace, tmp_path / "in", score='worse = "higher"\nlimit = 0.1')


def test_a_graph_that_says_the_same_of_every_row_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    kind = pump_type_of(workspace)
    nodes = [
        node("ReduceMax", ["X"], ["m"], axes=[1], keepdims=0),
        node("Sub", ["m", "m"], ["raw"]),
    ]
    data = model_bytes(nodes, len(kind.channels))
    with pytest.raises(GateRefusedError, match="answers the same whatever row it is shown"):
        import_model(workspace, **write_import(tmp_path / "in", kind, data, reference=False))


def test_healthy_rows_without_a_number_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    kind = pump_type_of(workspace)
    nodes = [node("Neg", ["X"], ["n"]), node("Log", ["n"], ["l"]), node("ReduceMax", ["l"], ["raw"], axes=[1], keepdims=0)]
    data = model_bytes(nodes, len(kind.channels))
    with pytest.raises(GateRefusedError, match="gives no number for healthy rows"):
        import_model(workspace, **write_import(tmp_path / "in", kind, data, reference=False))


def test_a_check_registers_nothing(workspace: Workspace, tmp_path: Path) -> None:
    kind = pump_type_of(workspace)
    found = check_import(workspace, **write_import(tmp_path / "in", kind, distance_model(kind)))
    assert (found.nodes, found.opset, found.reference_rows) == (5, 13, 200)
    assert found.row_us > 0 and found.peak_mb > 10
    assert workspace.store.registry.models() == [] or found.model not in {
        row.version.model for row in list_models(workspace, query=FOREIGN)
    }


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('unit = "bar"', 'unit = "psi"', "another unit than the fleet measures"),
        ('made_by = "Institute of Pumps"', 'made_by = " "', "is empty"),
        ('licence = "CC-BY-4.0"\n', "", "licence"),
        ('worse = "higher"', 'worse = "up"', "higher or lower"),
        ('rows = "raw"', 'rows = "raw"\nwindow_s = 60.0', "does not go with raw rows"),
        ("format = 1", "format = 2", "unknown format"),
        ("[score]", "[score]\nlimt = 3.0", "limt"),
        ('says = "thesis', 'says = "a | b', "cannot stand in a card"),
    ],
)
def test_a_spec_that_is_wrong_is_refused_by_key(workspace: Workspace, tmp_path: Path, old: str, new: str, words: str) -> None:
    kind = pump_type_of(workspace)
    args = write_import(tmp_path / "in", kind, distance_model(kind))
    path = Path(args["spec"])
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8", newline="\n")
    with pytest.raises(InputError, match=words):
        import_model(workspace, **args)


def test_the_pump_type_is_asked_for_where_the_spec_names_none_of_ours(workspace: Workspace, tmp_path: Path) -> None:
    kind = pump_type_of(workspace)
    args = write_import(tmp_path / "in", kind, distance_model(kind))
    path = Path(args["spec"])
    path.write_text(path.read_text(encoding="utf-8").replace(kind.id, "unheard-of"), encoding="utf-8", newline="\n")
    with pytest.raises(NotFoundError, match="--pump-type"):
        import_model(workspace, **args)
    with pytest.raises(InputError, match="for another pump type"):
        import_model(workspace, **args, pump_type=kind.id)


def test_widths_and_own_contributions_reach_the_device_graph(workspace: Workspace, tmp_path: Path) -> None:
    """A graph that takes widths and names the guilty channel itself."""
    from pumpdeck_fleet.numeric.detectors import decode_block
    from pumpdeck_trainer.parity import Session

    kind = pump_type_of(workspace)
    nodes = [node("Mul", ["X", "X"], ["parts"]), node("ReduceMax", ["parts"], ["raw"], axes=[1], keepdims=0)]
    data = model_bytes(nodes, len(kind.channels), outputs=["raw", "parts"])
    score = 'worse = "higher"\noutput = "raw"\ncontributions = "parts"\nzero = 0.0\nunit = 1.0'
    args = write_import(tmp_path / "in", kind, data, reference=False, score=score, inputs='rows = "window"\nvalues = "widths"')
    row = import_model(workspace, **args)
    version = find_version(workspace, row.model, str(row.version))
    names = tuple(one.name for one in kind.channels)
    block = decode_block(workspace.artifacts.get(version.pumps[0].block_digest), names)
    guilty = int(np.flatnonzero(block.votes)[1])
    row_of = block.centre.copy()
    row_of[guilty] += 3 * block.width[guilty]
    row_of[int(np.flatnonzero(block.votes)[0])] = np.nan
    score_of, _, parts = Session(workspace.artifacts.get(version.onnx_digest)).run(block, row_of[None])
    assert score_of[0] == pytest.approx(9.0, rel=1e-3)
    assert int(parts[0].argmax()) == guilty


def test_a_model_of_our_own_is_judged_against_a_foreign_champion(workspace: Workspace, tmp_path: Path) -> None:
    row = imported(workspace, tmp_path / "in")
    promote(workspace, model=row.model, which=str(row.version), reason="fine", accept_foreign=True)
    own = trained_row(workspace)
    version = find_version(workspace, own.model, str(own.version))
    (gate,) = (one for one in version.gates if one.name == "champion")
    assert version.judged_against == row.version
    assert f"against v{row.version} on 4 of 4 pumps" in gate.reason


def test_a_graph_that_takes_a_catching_up_device_too_much_memory_is_refused(workspace: Workspace, tmp_path: Path) -> None:
    kind = pump_type_of(workspace)
    count, wide = len(kind.channels), 24_000
    weights = helper.make_tensor("w", TensorProto.FLOAT, [count, wide], np.ones(count * wide, np.float32).tobytes(), raw=True)
    nodes = [node("MatMul", ["X", "w"], ["h"]), node("ReduceMax", ["h"], ["raw"], axes=[1], keepdims=0)]
    data = model_bytes(nodes, count, [weights])
    with pytest.raises(GateRefusedError, match=r"profile: .*rows of a device that catches up"):
        import_model(workspace, **write_import(tmp_path / "in", kind, data, reference=False))
