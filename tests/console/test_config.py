"""Policies and settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import tomli

from pumpdeck_console import config
from pumpdeck_console.config import Policies, load_policies, load_settings
from pumpdeck_console.wiring import Workspace
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import FixedClock
from pumpdeck_fleet.core.errors import InputError
from pumpdeck_fleet.core.files import RealFileSystem

EXAMPLE = Path(__file__).parents[2] / "docs" / "policies.example.toml"


def test_the_example_shows_every_key_with_its_default():
    shown = tomli.loads(EXAMPLE.read_text(encoding="utf-8"))
    assert canonical.from_plain(Policies, shown, "example") == Policies()
    for section in ("health", "rollout", "transport"):
        assert set(shown[section]) == {f.name for f in dataclasses.fields(getattr(Policies(), section))}


def test_absent_files_give_the_defaults(tmp_path):
    assert load_policies(tmp_path) == Policies()
    assert load_settings(tmp_path) == config.Settings()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("format = 2", ["expected 1", "found 2"]),
        ("nonsense = 1", ["nonsense", "rollout"]),
        ("[rollout]\nsoak = 1", ["policies.toml.rollout", "soak"]),
        ("[rollout]\nsoak_s = 'a day'", ["rollout.soak_s", "a number", "a day"]),
        ("[rollout]\nwaves = ['some']", ["rollout", "some"]),
        ("[health", ["TOML"]),
    ],
)
def test_a_wrong_policy_names_file_key_expected_and_found(tmp_path, text, words):
    (tmp_path / "policies.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_policies(tmp_path)
    sentence = caught.value.sentence()
    assert str(tmp_path / "policies.toml") in sentence
    assert all(word in sentence for word in words), sentence


def test_a_relative_key_folder_is_seen_from_the_workspace(tmp_path):
    workspace = tmp_path / "ws"
    workspace.mkdir()
    (workspace / "settings.toml").write_text('format = 1\n[keys]\nfolder = "../keys"\n', encoding="utf-8")
    assert Workspace(workspace, FixedClock(0), RealFileSystem()).key_folder == (tmp_path / "keys").resolve()
    (workspace / "settings.toml").write_text(f"format = 1\n[keys]\nfolder = '{tmp_path / 'other'}'\n", encoding="utf-8")
    assert Workspace(workspace, FixedClock(0), RealFileSystem()).key_folder == (tmp_path / "other").resolve()
