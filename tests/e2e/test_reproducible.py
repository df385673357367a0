"""The same data, spec and lock give the same package bytes: in fresh workspaces, without the run cache, with other keys,
another order of ingest, another hash seed and another folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support import recount
from support.demo_runs import Demo, run
from support.recount_store import DAY_MS, StoreRecount

pytestmark = pytest.mark.e2e


def build_anew(demo: Demo, folder: Path, files: Sequence[Path], hash_seed: str) -> Path:
    """A workspace with the demo's inventory, keys of its own, the same rows, trained and packaged without the cache."""
    workspace = folder / "fresh workspace"
    env = {"PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": hash_seed}
    settings = ("--store", "file", "--key-folder", str(folder / "keys"), "--insecure-storage")
    last_ms = demo.mark()["end_ms"] - DAY_MS
    until = datetime.fromtimestamp((last_ms + 1) / 1000, UTC).isoformat(timespec="milliseconds")

    def call(*words: str) -> None:
        done = run("-w", str(workspace), *words, env=env)
        assert done.code == 0, f"{words}: exit {done.code}\n{done.err}"

    call("init")
    for name in ("fleet.toml", "policies.toml"):
        shutil.copy(demo.workspace / name, workspace / name)
    for name in ("makers", "pipelines"):
        shutil.copytree(demo.workspace / name, workspace / name, dirs_exist_ok=True)
    call("trust", "init", "--root-keys", str(folder / "root keys"), *settings)
    for path in files:
        call("ingest", "--site", path.name.rpartition("-")[0], str(path))
    call("train", "--no-cache", "--until", until)
    call("package", "build")
    return workspace


def test_two_fresh_workspaces_build_the_same_packages_as_the_demo(demo: Demo, tmp_path: Path) -> None:
    files = sorted(path for path in demo.history.iterdir() if path.suffix in (".csv", ".parquet") and path.stem != "labels")
    assert demo.evidence("ingest")["labels"] == 0, "labels count too: they would have to be imported"
    wanted = {one["device"]: one["sha256"] for one in demo.evidence("package")["packages"]}
    models = {one["model"]: one["content_digest"] for one in demo.evidence("train")["models"]}
    key_ids = []
    for seed, order in (("1", files), ("2", files[::-1])):
        folder = tmp_path / f"seed {seed}"
        folder.mkdir()
        workspace = build_anew(demo, folder, order, seed)
        store = StoreRecount(workspace)
        assert {one["model"]: one["content_digest"] for one in store.versions()} == models
        built = {one["device"]: one["sha256"] for one in store.packages()}
        # The bytes, not only the names: each artifact is read and proven.
        assert {device: recount.sha256(store.artifact(digest)) for device, digest in built.items()} == wanted
        key_ids.append((folder / "keys" / "release.pub").read_text(encoding="ascii"))
        store.close()
    assert len({*key_ids, (demo.beside / "keys" / "operator" / "release.pub").read_text(encoding="ascii")}) == 3
