"""Compiled code of the agent's archive, kept beside it: an archive holds source, and compiling that costs most of a start.

The archive stays the same bytes for every CPython. The cache is made on the device by a short-lived process, for the very archive
and interpreter it names, and is proven whole before anything of it is used; without it, or with a damaged one, source is compiled
as ever. Its digest is no signature: it stands in the folder of the archive and has the same owner (docs/adr/0054).
"""

from __future__ import annotations

import json
import marshal
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pumpdeck_fleet.core.ports import FileSystem

CACHE_FILE = "agent.code"
CACHE_FORMAT = 1
CACHE_MAX_BYTES = 16 * 1024 * 1024
_ARCHIVE_MAX_BYTES = 64 * 1024 * 1024
_DIGEST_BYTES = 64


class CachedCode:
    """Finds modules in a cache that was proven; a finder and loader of the import system."""

    def __init__(self, archive: Path, stream: IO[bytes], start: int, modules: Mapping[str, Sequence[Any]]) -> None:
        # Kept open: another process may put a newer cache in its place meanwhile.
        self._stream = stream
        self._start = start
        self._modules = modules
        self.archive = str(archive)

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The module, when the cache holds it."""
        del path, target
        if name not in self._modules:
            return None
        member, is_package = self._modules[name][2:]
        spec = ModuleSpec(name, self, origin=f"{self.archive}/{member}", is_package=bool(is_package))  # type: ignore[arg-type]
        spec.has_location = True
        if is_package:
            spec.submodule_search_locations = [f"{self.archive}/{name.replace('.', '/')}"]
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """The ordinary kind."""
        del spec
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        exec(self.get_code(module.__name__), module.__dict__)

    def get_code(self, name: str) -> CodeType:
        """The code of a module that `find_spec` found; for `runpy` too."""
        offset, size = self._modules[name][:2]
        self._stream.seek(self._start + offset)
        # Proven by its digest, in the folder of the archive itself.
        code: CodeType = marshal.loads(self._stream.read(size))  # noqa: S302
        return code


def use_cache(archive: Path) -> bool:
    """Import from the cache beside this archive from here on; False when there is none for it and this interpreter."""
    try:
        stream = (archive.parent / CACHE_FILE).open("rb")
    except OSError:
        return False
    found = _proven(archive, stream)
    if found is None:
        stream.close()
        return False
    sys.meta_path.insert(0, found)
    return True


def write_cache(fs: FileSystem, archive: Path) -> bool:
    """Compile the archive's modules and put their code beside it; False when that is there already.

    Raises:
        OSError: the disk does not take it; what was there is still whole.
    """
    place = archive.parent / CACHE_FILE
    if fs.exists(place):
        with place.open("rb") as stream:
            if _proven(archive, stream) is not None:
                return False
    from pumpdeck_fleet.core.files import replace_file  # deferred: only who writes it needs it

    replace_file(fs, place, encode_cache(archive))
    return True


def encode_cache(archive: Path) -> bytes:
    """The cache of an archive: digest line, a JSON line {format, archive, magic, modules}, the code one after the other."""
    modules: dict[str, tuple[int, int, str, bool]] = {}
    codes: list[bytes] = []
    at = 0
    import zipfile  # deferred: only who writes a cache reads the archive so

    with zipfile.ZipFile(archive) as members:
        for member in sorted(members.namelist()):
            if not member.endswith(".py") or member == "__main__.py":
                continue
            name, is_package = _module_of(member)
            code = compile(members.read(member), f"{archive}/{member}", "exec", dont_inherit=True)
            data = marshal.dumps(code)
            modules[name] = (at, len(data), member, is_package)
            codes.append(data)
            at += len(data)
    head = {"format": CACHE_FORMAT, "archive": _digest_of(archive), "magic": _magic(), "modules": modules}
    body = json.dumps(head, sort_keys=True, separators=(",", ":")).encode() + b"\n" + b"".join(codes)
    return _digest(body).encode() + b"\n" + body


def _proven(archive: Path, stream: IO[bytes]) -> CachedCode | None:
    try:
        data = stream.read(CACHE_MAX_BYTES + 1)
        body = data[_DIGEST_BYTES + 1 :]
        if len(data) > CACHE_MAX_BYTES or data[: _DIGEST_BYTES + 1] != _digest(body).encode() + b"\n":
            return None
        line, _, _ = body.partition(b"\n")
        head = json.loads(line)
        if (head["format"], head["magic"], head["archive"]) != (CACHE_FORMAT, _magic(), _digest_of(archive)):
            return None
        return CachedCode(archive, stream, _DIGEST_BYTES + 1 + len(line) + 1, head["modules"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _module_of(member: str) -> tuple[str, bool]:
    parts = member.removesuffix(".py").split("/")
    is_package = parts[-1] == "__init__"
    return ".".join(parts[:-1] if is_package else parts), is_package


def _magic() -> str:
    # What else a code object may hang on: how asserts and docstrings are treated.
    from importlib.util import MAGIC_NUMBER  # deferred: a light module, and only here

    return f"{MAGIC_NUMBER.hex()}-{sys.flags.optimize}"


def _digest_of(archive: Path) -> str:
    with archive.open("rb") as stream:
        return _digest(stream.read(_ARCHIVE_MAX_BYTES))


def _digest(data: bytes) -> str:
    # The interpreter's own, where there is one: hashlib would load OpenSSL into `serve` (light_hashes.py).
    for name in ("_sha2", "_sha256"):
        try:
            return str(__import__(name).sha256(data).hexdigest())
        except ImportError:
            continue
    import hashlib  # deferred: see above

    return hashlib.sha256(data).hexdigest()
