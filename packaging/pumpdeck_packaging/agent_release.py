"""The agent as one file: a zipapp of pure Python, the same bytes wherever and whenever it is built from the same sources.

It holds the agent, what it imports of our other packages, and tuf, securesystemslib and urllib3. Members stand in order of name,
at one time, uncompressed: deflate differs between zlib and its rivals, and a stored member is imported faster. Compiled libraries
come as wheels (`agent_wheels`).
"""

from __future__ import annotations

import ast
import io
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DamagedError, FormatError, NotFoundError
from pumpdeck_fleet.core.files import RealFileSystem, replace_file
from pumpdeck_packaging.zip_reader import read_zip

AGENT_FILE = "agent.pyz"
PURE_LIBRARIES = ("securesystemslib", "tuf", "urllib3")
_AGENT = "pumpdeck_agent"
_OURS = (_AGENT, "pumpdeck_fleet", "pumpdeck_packaging")
_MAIN = f"{_AGENT}/archive_main.py"
_TIME = (1980, 1, 1, 0, 0, 0)
_INIT_MAX_BYTES = 64 * 1024
_SHEBANG = b"#!/usr/bin/env python3\n"


@dataclass(frozen=True, slots=True)
class AgentRelease:
    """A built agent: its version, the digest of its bytes, how many there are, and where they were written."""

    version: str
    sha256: str
    bytes: int
    path: Path


def build_agent(destination: Path) -> AgentRelease:
    """Write `agent.pyz` into the folder `destination`, made when missing. The same sources always give the same bytes.

    Raises:
        NotFoundError: a part of the agent is not installed here as readable source.
    """
    data = agent_bytes()
    fs = RealFileSystem()
    fs.mkdir(destination)
    path = destination / AGENT_FILE
    replace_file(fs, path, data)
    return AgentRelease(agent_version(data), canonical.digest(data), len(data), path)


def agent_bytes() -> bytes:
    """The zipapp. Raises: NotFoundError: a part is not installed here as readable source."""
    members = {**_our_sources(), **_library_sources(), **_licences()}
    members["__main__.py"] = members[_MAIN]
    # A package without __init__.py is found in an archive only where its folder is an entry too.
    members |= {"/".join(name.split("/")[:n]) + "/": b"" for name in [*members] for n in range(1, name.count("/") + 1)}
    buffer = io.BytesIO()
    buffer.write(_SHEBANG)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system = 3  # a zip made on Windows would say so and differ
            entry.external_attr = (0o040755 if name.endswith("/") else 0o100644) << 16
            archive.writestr(entry, members[name])
    return buffer.getvalue()


def agent_version(data: bytes) -> str:
    """The version that a built agent says of itself.

    Raises:
        FormatError: it is not an agent.
    """
    name = f"{_AGENT}/__init__.py"
    try:
        text = next(iter(read_zip(data, AGENT_FILE, _INIT_MAX_BYTES, name.__eq__)))[1].decode("utf-8")
    except (DamagedError, StopIteration, UnicodeDecodeError) as error:
        raise FormatError("is not an agent", AGENT_FILE, expected="a zipapp made by pumpdeck package agent") from error
    found = re.search(r'^AGENT_VERSION = "([^"]+)"$', text, re.MULTILINE)
    if found is None:
        raise FormatError("does not say its version", AGENT_FILE, expected="AGENT_VERSION")
    return found[1]


def _our_sources() -> dict[str, bytes]:
    """All of the agent, and what it imports, step by step, of our other packages: by member name."""
    folders = {package: _folder(package) for package in _OURS}
    waiting = [f"{_AGENT}.{path.stem}" for path in folders[_AGENT].glob("*.py")]
    found: dict[str, bytes] = {}
    while waiting:
        module = waiting.pop()
        place = _place(module, folders)
        if place is None or place[0] in found:
            continue
        member, data = place
        found[member] = data
        waiting += [module.rpartition(".")[0], *_imports(data)]
    return found


def _place(module: str, folders: Mapping[str, Path]) -> tuple[str, bytes] | None:
    """Member name and source of one of our modules; None for a name inside a module, or another's module."""
    top, *rest = module.split(".")
    if top not in folders:
        return None
    base = folders[top].joinpath(*rest)
    for path, member in ((base / "__init__.py", [top, *rest, "__init__"]), (base.with_suffix(".py"), [top, *rest])):
        if path.is_file() and (rest or path.name == "__init__.py"):
            return "/".join(member) + ".py", _source(path)
    return None


def _imports(source: bytes) -> Iterator[str]:
    """Every module that a source names in an import, at its top or deferred; also `package.name`, which may be a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _library_sources() -> dict[str, bytes]:
    found = {}
    for library in PURE_LIBRARIES:
        folder = _folder(library)
        for path in folder.rglob("*.py"):
            found["/".join((library, *path.relative_to(folder).parts))] = _source(path)
    return found


def _licences() -> dict[str, bytes]:
    """The licences of what is carried along: each asks for that."""
    found = {}
    for library in PURE_LIBRARIES:
        for file in metadata.files(library) or ():
            if "licenses" in file.parts or file.name.startswith("LICENSE"):
                found[f"licences/{library}-{metadata.version(library)}/{file.name}"] = _source(Path(str(file.locate())))
    return found


def _folder(package: str) -> Path:
    # Found, not imported: this layer stands below the agent's.
    spec = find_spec(package)
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places or not Path(places[0]).is_dir():
        raise NotFoundError("is not installed here as readable source", package, hint="install pumpdeck from its wheel")
    return Path(places[0])


def _source(path: Path) -> bytes:
    # A checkout on Windows may have other line ends.
    return path.read_bytes().replace(b"\r\n", b"\n")
