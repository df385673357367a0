"""A release that two people sign, with trained models: built here, signed in another workspace, installed on a device by SSH."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pumpdeck_console import main
from pumpdeck_packaging.signing import Ed25519Signer, generate_key
from pumpdeck_sample.fleet import FleetSize
from support.living_fleet import LivingFleet, living_fleet

pytestmark = pytest.mark.e2e


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[LivingFleet]:
    with living_fleet(tmp_path, FleetSize(1, 1, 4)) as made:
        yield made


class Console:
    """Commands of the workspace at `root`; `expect` is the exit code that must come."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._root = str(root)
        self._capsys = capsys

    def __call__(self, *words: str, expect: int = 0):
        code = main.main(["-w", self._root, *words, "--json"])
        out, err = self._capsys.readouterr()
        assert code == expect, f"{words}: {code}\n{out}\n{err}"
        return json.loads(out or err.strip().splitlines()[-1])


def key_file(path: Path, key: Ed25519Signer) -> str:
    """A key as `--key-file` takes it, on a medium of its owner."""
    path.write_bytes(key.private_pem())
    path.chmod(0o600)
    return f"release={path}"


def ask_for_four_eyes(console: Console, folder: Path, reviewer: Ed25519Signer) -> None:
    """The reviewer's key joins the release role; then every release needs two signatures, the standing one too."""
    public = folder / "reviewer.pub"
    public.write_text(reviewer.openssh_public + "\n", encoding="ascii")
    at_hand = ["--root-keys", str(folder / "keys" / "root"), "--yes"]
    file = folder / "add.json"
    console("trust", "add", "release", str(public), "--holder", "the reviewer", "--to", str(file), *at_hand)
    console("trust", "publish", str(file), "--yes")
    file = folder / "two.json"
    console("trust", "threshold", "release", "2", "--to", str(file), *at_hand)
    console("trust", "publish", str(file), "--yes", expect=3)
    console("trust", "sign", str(file), "--key-file", key_file(folder / "reviewer.key", reviewer), "--yes")
    console("trust", "publish", str(file), "--yes")


def test_a_device_runs_what_two_people_signed_and_nothing_before(
    fleet: LivingFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    console, reviewer = Console(fleet.root, capsys), generate_key()
    ask_for_four_eyes(console, tmp_path, reviewer)
    for file in fleet.history.files:
        console("ingest", str(file.path), "--site", file.site)
    console("train")

    (built,) = console("package", "build")
    pending = Path(built["pending"])
    assert pending.is_file() and pending.parent == fleet.root / "pending"
    assert console("package", "publish", str(pending), "--yes", expect=3)["exit_code"] == 3
    assert "there is no package for it" in console("rollout", "plan", expect=3)["found"]

    second, carried = tmp_path / "second", tmp_path / "carried.json"
    shutil.copy(pending, carried)
    assert main.main(["-w", str(second), "init"]) == 0
    capsys.readouterr()
    there, stranger = Console(second, capsys), key_file(tmp_path / "stranger.key", generate_key())
    assert there("package", "sign", str(carried), "--key-file", stranger, "--yes", expect=3)["exit_code"] == 3
    there("package", "sign", str(carried), "--key-file", f"release={tmp_path / 'reviewer.key'}", "--yes")

    published = console("package", "publish", str(carried), "--yes")
    assert built["package"] in json.dumps(published)
    started = console("rollout", "start")
    console("approve", started["rollout"])
    assert console("tick", "--until-idle", "--limit", "120")["committed"] == 1
    (task,) = console("rollout", "show", started["rollout"])["tasks"]
    assert task["state"] == "COMMITTED"
    (device,) = console("devices")
    assert device["active"] == built["package"]
