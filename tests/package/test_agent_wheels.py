"""The wheels beside the agent: exactly the pinned ones, proven by digest, with and without a network."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from pumpdeck_fleet.core.errors import DamagedError, NotFoundError, UnreachableError, UsageError
from pumpdeck_packaging.agent_wheels import WheelTarget, collect_wheels, installed_pins, pip_arguments, read_wheels

ARM = WheelTarget("aarch64", "3.11")
PINS = {"numpy": "2.4.6", "cffi": "2.1.1"}


class FakePip:
    """Writes a wheel for each requirement, as pip's download would, and remembers what it was asked."""

    def __init__(self, without: str = "") -> None:
        self.asked: list[list[str]] = []
        self._without = without

    def __call__(self, arguments: Sequence[str]) -> None:
        self.asked.append(list(arguments))
        folder = Path(arguments[list(arguments).index("--dest") + 1])
        for word in (word for word in arguments if "==" in word):
            name, version = word.split("==")
            if name != self._without:
                with zipfile.ZipFile(folder / f"{name}-{version}-cp311-cp311-manylinux_2_28_aarch64.whl", "w") as wheel:
                    # Without its own date a member takes the clock's, and two fetches across a second differ.
                    wheel.writestr(zipfile.ZipInfo(f"{name}/__init__.py"), f"# {version}")


def test_a_filled_folder_is_proven_without_pip(tmp_path: Path) -> None:
    pip = FakePip()
    filled = collect_wheels(tmp_path, ARM, PINS, pip)
    assert filled.folder == tmp_path / "aarch64-cp311"
    assert [(one.name, one.version, one.file) for one in filled.wheels] == [
        ("cffi", "2.1.1", "cffi-2.1.1.whl"),
        ("numpy", "2.4.6", "numpy-2.4.6.whl"),
    ]
    assert collect_wheels(tmp_path, ARM, PINS, pip) == filled == read_wheels(filled.folder)
    assert len(pip.asked) == 1
    assert sorted(path.name for path in filled.folder.iterdir()) == ["cffi-2.1.1.whl", "numpy-2.4.6.whl", "wheels.json"]


def test_another_version_is_another_set(tmp_path: Path) -> None:
    first = collect_wheels(tmp_path, ARM, PINS, FakePip())
    second = collect_wheels(tmp_path, ARM, {**PINS, "numpy": "2.4.7"}, FakePip())
    assert first.sha256 != second.sha256


@pytest.mark.parametrize("damage", ["flip", "cut", "longer", "gone"])
def test_a_damaged_wheel_is_refused_and_fetched_again(tmp_path: Path, damage: str) -> None:
    filled = collect_wheels(tmp_path, ARM, PINS, FakePip())
    path = filled.folder / "numpy-2.4.6.whl"
    data = path.read_bytes()
    changed = {"flip": data[:40] + bytes([data[40] ^ 1]) + data[41:], "cut": data[:-1], "longer": data + b"0"}
    path.write_bytes(changed[damage]) if damage in changed else path.unlink()
    with pytest.raises(DamagedError):
        read_wheels(filled.folder)
    assert collect_wheels(tmp_path, ARM, PINS, FakePip()).wheels == filled.wheels


def test_a_wheel_the_index_lacks_is_said_and_no_index_is_written(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="numpy 2"):
        collect_wheels(tmp_path, ARM, PINS, FakePip(without="numpy"))
    with pytest.raises(NotFoundError):
        read_wheels(tmp_path / ARM.name)


def test_pip_is_asked_for_that_computer_and_never_builds() -> None:
    words = pip_arguments(ARM, PINS, Path("out"))
    assert "manylinux_2_28_aarch64" in words
    assert "manylinux_2_29_aarch64" not in words
    assert {"--no-deps", "--only-binary", "numpy==2.4.6"} <= set(words)


@pytest.mark.parametrize(("architecture", "cpython"), [("riscv64", "3.11"), ("aarch64", "3.10"), ("aarch64", "3.11; rm")])
def test_an_unknown_computer_is_refused(architecture: str, cpython: str) -> None:
    with pytest.raises(UsageError):
        WheelTarget(architecture, cpython)


def test_the_pins_are_what_is_tested_here() -> None:
    assert set(installed_pins()) >= {"numpy", "onnxruntime", "cryptography", "cffi", "pycparser"}
    assert WheelTarget.parse(ARM.name) == ARM
