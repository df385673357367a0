"""What a new user types after the demo: every answer agrees with the others, every wrong word has its exit code."""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime

import pytest

from support.demo_runs import Demo, Ran, run
from support.recount_store import StoreRecount

pytestmark = pytest.mark.e2e


def call(demo: Demo, *words: str) -> Ran:
    return run("-w", str(demo.workspace), *words)


def rows(demo: Demo, *words: str) -> list[dict[str, object]]:
    done = call(demo, *words, "--json")
    assert (done.code, done.err) == (0, ""), done.err
    assert all(isinstance(row, dict) for row in done.json)
    return list(done.json)


def test_lists_agree_with_each_other_and_with_the_evidence(demo: Demo) -> None:
    began_s = time.monotonic()
    pumps, sites, devices = rows(demo, "pumps"), rows(demo, "sites"), rows(demo, "devices")
    models, drift = rows(demo, "models"), rows(demo, "drift")
    assert [one["site"] for one in sites] == sorted({str(one["site"]) for one in pumps})
    assert Counter(one["site"] for one in pumps) == {one["site"]: one["pumps"] for one in sites}
    assert Counter(one["device"] for one in pumps) == {one["device"]: one["pumps"] for one in devices}
    packages = {one["device"]: one["sha256"] for one in demo.evidence("package")["packages"]}
    assert {one["device"]: one["active"] for one in devices} == packages
    assert all(one["package"] == packages[str(one["device"])] for one in pumps)
    versions = {one["model"]: one["content_digest"] for one in demo.evidence("train")["models"]}
    assert {one["model"]: one["content_digest"] for one in models} == versions
    assert all(one["aliases"] == "candidate,champion" and one["pumps_running"] == one["pumps"] for one in models)
    assert {one["pump"]: round(float(str(one["psi"])), 6) for one in drift} == demo.evidence("drift")["psi"]
    figures = [float(str(one["psi"])) for one in drift]
    assert figures == sorted(figures, reverse=True)
    alarmed = {one["pump"] for one in pumps if one["health"] == "ALARM"}
    assert alarmed == {one["pump"] for one in demo.evidence("scores")["faults"] if one["alarmed_ms"]}
    assert {str(one["site"]): one["alarm"] for one in sites if one["alarm"]} == Counter(
        str(pump).partition("/")[0] for pump in alarmed
    )
    assert time.monotonic() - began_s < 120


def test_a_query_selects_the_same_everywhere(demo: Demo) -> None:
    chosen = rows(demo, "pumps", "site:gannet", "type:injection")
    assert {one["site"] for one in chosen} == {"gannet"} and {one["type"] for one in chosen} == {"injection"}
    drifted = {one["pump"] for one in rows(demo, "pumps", "drift>0.5")}
    assert drifted == {pump for pump, psi in demo.evidence("drift")["psi"].items() if psi > 0.5}
    assert {one["pump"] for one in rows(demo, "drift", "drift>0.5")} == drifted


def test_rows_and_scores_of_a_pump_are_those_of_the_store(demo: Demo) -> None:
    pump = demo.evidence("scores")["faults"][0]["pump"]
    store = StoreRecount(demo.workspace)
    for words, kind in (((), "telemetry"), (("--scores",), "scores")):
        told = rows(demo, "telemetry", pump, *words)
        kept = store.rows(kind, pump).between(demo.mark()["end_ms"] - 86_400_000 + 1, demo.mark()["end_ms"] + 1)
        assert [round(datetime.fromisoformat(str(one["time"])).timestamp() * 1000) for one in told] == kept.at_ms.tolist()
        assert [one[kept.channels[0]] for one in told] == kept.values[:, 0].astype(float).tolist()
    store.close()


def test_the_chain_is_verified_and_exported_whole(demo: Demo) -> None:
    store = StoreRecount(demo.workspace)
    chain, position, head = store.audit_head()
    store.close()
    done = call(demo, "audit", "verify", "--json")
    assert (done.code, done.json) == (0, {"chain": chain, "entries": position, "head": head, "verified": True})
    exported = call(demo, "audit", "export")
    assert exported.code == 0 and len(exported.out.splitlines()) == position
    assert "Demo operator" not in exported.out


def test_why_says_that_nothing_blocks(demo: Demo) -> None:
    assert rows(demo, "why", "gannet-d1") == []
    said = call(demo, "why", "gannet-d1")
    active = demo.evidence("rollout")["active"]["gannet-d1"]
    assert said.code == 0 and f"Nothing blocks gannet-d1: it runs package {active[:12]}" in said.out + said.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("pumps", "nosuch:1"), 2, "is not a field"),
        (("nosuch",), 2, "No such command"),
        (("demo", "--json"), 2, "--no-tui"),
        (("why", "nosuch"), 6, "no such device"),
        (("pumps", "show", "gannet/X-1"), 6, "no such pump"),
        (("package", "show", "f" * 64), 6, "no such package"),
        (("ingest", "/nosuch/file.csv"), 6, "no such file"),
        (("init",), 7, ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_word_ends_with_its_exit_code(demo: Demo, words: tuple[str, ...], code: int, says: str) -> None:
    done = call(demo, *words)
    assert (done.code, done.out) == (code, ""), done.err
    assert says in done.err and "Traceback" not in done.err


def test_a_folder_that_is_no_workspace(demo: Demo) -> None:
    done = run("-w", str(demo.beside / "keys"), "pumps", "--json")
    assert done.code == 6 and "is not a workspace" in done.err and done.out == ""
