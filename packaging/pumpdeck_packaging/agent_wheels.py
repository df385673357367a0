"""The compiled libraries of the agent, as wheels: one folder for each architecture and CPython, each file by its digest.

`collect_wheels` fills such a folder through pip where there is a network; everywhere else `read_wheels` proves the files against
`wheels.json`, whose own digest stands in the signed release of the agent (`agent_trust`).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DamagedError, FormatError, NotFoundError, UnreachableError, UsageError
from pumpdeck_fleet.core.files import RealFileSystem, replace_file
from pumpdeck_fleet.core.ids import check_name
from pumpdeck_packaging.wheel_index import (
    INDEX_MAX_BYTES,
    WHEEL_MAX_BYTES,
    WHEELS_FILE,
    WHEELS_FORMAT,
    Wheel,
    WheelIndex,
    parse_index,
)

LIBRARIES = ("cffi", "cryptography", "flatbuffers", "numpy", "onnxruntime", "packaging", "protobuf", "pycparser", "pyrage")
ARCHITECTURES = ("aarch64", "x86_64")
# glibc 2.28 is that of Debian 10 and RHEL 8: nothing older has a Python that runs the agent.
_GLIBC = range(17, 29)
_CPYTHON = re.compile(r"3\.(1[1-9]|[2-9][0-9])")
_PIP_TIMEOUT_S = 900.0
_TAIL = 300


@dataclass(frozen=True, slots=True)
class WheelTarget:
    """For which computers: `aarch64` or `x86_64` (Linux, glibc 2.28 or newer), and which CPython, such as `3.11`."""

    architecture: str
    cpython: str

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise UsageError("is not an architecture with wheels", self.architecture, expected=" or ".join(ARCHITECTURES))
        if _CPYTHON.fullmatch(self.cpython) is None:
            raise UsageError("is not a CPython for the agent", self.cpython, expected="3.11 or newer")

    @property
    def name(self) -> str:
        """The folder's name: `aarch64-cp311`."""
        return f"{self.architecture}-cp{self.cpython.replace('.', '')}"

    @classmethod
    def parse(cls, text: str) -> WheelTarget:
        """From a folder's name. Raises: UsageError: it is none."""
        architecture, _, tag = text.partition("-cp")
        return cls(architecture, f"{tag[:1]}.{tag[1:]}")


@dataclass(frozen=True, slots=True)
class WheelSet:
    """A folder whose every file is what its index says; `sha256` is the digest of the index, and so of all of them."""

    target: WheelTarget
    folder: Path
    wheels: tuple[Wheel, ...]
    sha256: str

    @property
    def bytes(self) -> int:
        """All wheels together."""
        return sum(one.bytes for one in self.wheels)


RunPip = Callable[[Sequence[str]], None]


def installed_pins() -> dict[str, str]:
    """Library -> version as it is installed here: what the agent was tested with."""
    return {name: metadata.version(name) for name in LIBRARIES}


def collect_wheels(
    destination: Path, target: WheelTarget, pins: Mapping[str, str] | None = None, run_pip: RunPip | None = None
) -> WheelSet:
    """Fill `destination/<architecture>-<cpython>/` with the wheels of these versions; what is there and sound stays.

    Raises:
        UnreachableError: the index does not answer, or has no such wheel.
    """
    pins = dict(sorted((pins or installed_pins()).items()))
    folder = destination / target.name
    try:
        found = read_wheels(folder)
        if {one.name: one.version for one in found.wheels} == pins:
            return found
    except (NotFoundError, DamagedError):
        pass  # not there, or not sound: fetched anew
    fs = RealFileSystem()
    fs.mkdir(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix="fetching-") as name:
        (run_pip or _run_pip)(pip_arguments(target, pins, Path(name)))
        fetched = {_library_of(path.name): path for path in Path(name).glob("*.whl")}
        wheels = tuple(_take(fs, folder, library, version, fetched) for library, version in pins.items())
    # Last, as on a stick: a folder without its index is not a set of wheels.
    replace_file(fs, folder / WHEELS_FILE, canonical.encode(WheelIndex(WHEELS_FORMAT, target.name, wheels)))
    return read_wheels(folder)


def read_wheels(folder: Path) -> WheelSet:
    """The wheels of a folder, every byte of them proven against the index. Needs no network.

    Raises:
        NotFoundError: no index there. DamagedError: a file is missing or is not what the index says.
    """
    fs = RealFileSystem()
    try:
        data = fs.read_bytes(folder / WHEELS_FILE, INDEX_MAX_BYTES)
    except FileNotFoundError as error:
        raise NotFoundError("holds no wheels", str(folder), expected=WHEELS_FILE, hint="pumpdeck package agent") from error
    index = parse_index(data)
    target = _target_of(index)
    for one in index.wheels:
        wheel_bytes(folder, one)
    return WheelSet(target, folder, index.wheels, canonical.digest(data))


def wheel_bytes(folder: Path, wheel: Wheel) -> bytes:
    """The bytes of one wheel. Raises: DamagedError: missing, or not what the index says."""
    try:
        data = RealFileSystem().read_bytes(folder / wheel.file, min(wheel.bytes, WHEEL_MAX_BYTES))
    except FileNotFoundError as error:
        raise DamagedError("is missing", wheel.file, hint="fetch the wheels again") from error
    if len(data) != wheel.bytes or canonical.digest(data) != wheel.digest:
        raise DamagedError("is not the wheel its index names", wheel.file, expected=wheel.digest, hint="fetch the wheels again")
    return data


def pip_arguments(target: WheelTarget, pins: Mapping[str, str], folder: Path) -> list[str]:
    """What pip is asked: exactly these versions, as wheels, for that computer and not for this one."""
    tag = "cp" + target.cpython.replace(".", "")
    platforms = [f"manylinux_2_{minor}_{target.architecture}" for minor in reversed(_GLIBC)]
    words = ["download", "--quiet", "--no-deps", "--only-binary", ":all:", "--implementation", "cp"]
    words += ["--python-version", target.cpython, "--abi", tag, "--abi", "abi3", "--abi", "none"]
    for platform in (*platforms, f"manylinux2014_{target.architecture}", "any"):
        words += ["--platform", platform]
    return [*words, "--dest", str(folder), *(f"{name}=={version}" for name, version in pins.items())]


def _run_pip(arguments: Sequence[str]) -> None:
    command = [sys.executable, "-m", "pip", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PIP_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise UnreachableError("pip did not come to its end", "wheels", expected=f"within {_PIP_TIMEOUT_S:g} s") from error
    if done.returncode != 0:
        said = [line for line in done.stderr.decode("utf-8", "replace").splitlines() if line.startswith("ERROR")]
        hint = "connect to the package index, or copy a filled wheels folder here"
        raise UnreachableError("the wheels could not be fetched", "pip", found=" ".join(said)[-_TAIL:], hint=hint)


def _take(fs: RealFileSystem, folder: Path, library: str, version: str, fetched: Mapping[str, Path]) -> Wheel:
    path = fetched.get(library)
    if path is None:
        raise UnreachableError("the index gave no wheel", f"{library} {version}")
    data = fs.read_bytes(path, WHEEL_MAX_BYTES)
    if not zipfile.is_zipfile(path):
        raise DamagedError("is not a wheel", path.name)
    file = check_name(f"{library}-{version}.whl".lower(), "wheel")
    replace_file(fs, folder / file, data)
    return Wheel(library, version, file, path.name, len(data), canonical.digest(data))


def _library_of(wheel: str) -> str:
    return re.sub(r"[-_.]+", "-", wheel.split("-", 1)[0]).lower()


def _target_of(index: WheelIndex) -> WheelTarget:
    try:
        return WheelTarget.parse(index.target)
    except UsageError as error:
        raise FormatError("names an unknown target", WHEELS_FILE, found=index.target) from error
