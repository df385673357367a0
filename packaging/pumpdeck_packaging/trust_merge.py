"""A site's trust repository as two laptops left it becomes one: the newer metadata counts, no assignment is lost.

Metadata of the other side is believed only if it holds by the root that stands here. What the newer side does not know of
must be signed again by somebody's deploy key; nothing here signs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tuf.api.metadata import TargetFile

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.errors import DigestMismatchError, TrustError
from pumpdeck_fleet.core.files import replace_file
from pumpdeck_fleet.core.merging import MergeConflict
from pumpdeck_fleet.core.ports import FileSystem
from pumpdeck_fleet.core.receipts import Assignment
from pumpdeck_packaging.bundle_layout import DEPLOY, ROOT, TARGETS, TIMESTAMP, assignment_path, metadata_name
from pumpdeck_packaging.folder_lock import hold_folder
from pumpdeck_packaging.site_folder import SiteFolder
from pumpdeck_packaging.trust_rules import released_package
from pumpdeck_packaging.verify import VerifiedSite

PENDING_NAME = "pending.json"
_PENDING_MAX_BYTES = 64 * 1024 * 1024
_TIMESTAMP = f"{TIMESTAMP}.json"


@dataclass(frozen=True, slots=True)
class Pending:
    """`trust/<site>/pending.json`: assignments signed once that stand in no newest metadata; for the console alone."""

    assignments: tuple[Assignment, ...]


@dataclass(frozen=True, slots=True)
class SiteMerge:
    """What came of one site. `to_sign` are assignments that stand in neither newest metadata and need a deploy key here."""

    site: str
    is_new: bool = False
    is_newer: bool = False
    to_sign: tuple[Assignment, ...] = ()
    conflicts: tuple[MergeConflict, ...] = ()


def merge_site(mine: Path, theirs: Path, fs: FileSystem, now_ms: int) -> SiteMerge:
    """Take in the repository in folder `theirs`; both folders carry the site's name.

    Raises:
        TrustError: it was founded with another root, or does not hold. DamagedError: a file is damaged or cut.
    """
    other = SiteFolder(theirs, fs)
    if not other.exists:
        return SiteMerge(mine.name)
    with hold_folder(mine):
        here = SiteFolder(mine, fs)
        first = metadata_name(ROOT, 1)
        if here.exists and here.read(first) != other.read(first):
            raise TrustError(
                "was founded twice, with two roots",
                mine.name,
                hint="devices believe the root they were enrolled with; keep the workspace that enrolled them",
            )
        found = other.verified(now_ms)
        if not here.exists:
            _take(mine, other, found, fs, with_timestamp=True)
            return SiteMerge(mine.name, is_new=True)
        return _merge(_Pair(mine, here, other, here.verified(now_ms), found), fs, now_ms)


def newer_side(mine: Path, theirs: Path, fs: FileSystem, now_ms: int) -> VerifiedSite | None:
    """What holds in `theirs`, where `merge_site` would take it for the newer one; None where what stands here counts.

    Raises:
        TrustError, DamagedError: it does not hold.
    """
    here, other = SiteFolder(mine, fs), SiteFolder(theirs, fs)
    first = metadata_name(ROOT, 1)
    if not here.exists or not other.exists or here.read(first) != other.read(first):
        return None
    held, found = here.verified(now_ms), other.verified(now_ms)
    return found if found.forms[TIMESTAMP].version > held.forms[TIMESTAMP].version else None


@dataclass(frozen=True, slots=True)
class _Pair:
    """The folder here, both sides, and what holds in each."""

    mine: Path
    here: SiteFolder
    other: SiteFolder
    held: VerifiedSite
    found: VerifiedSite


def _merge(pair: _Pair, fs: FileSystem, now_ms: int) -> SiteMerge:
    site, held, found = pair.mine.name, pair.held, pair.found
    conflicts = []
    for role in (ROOT, TARGETS):
        ours, theirs = held.forms[role], found.forms[role]
        if ours.version == theirs.version and ours.data != theirs.data:
            raise TrustError(f"has two {role} files of version {ours.version}", site, hint="renew the keys of the site")
    ours, theirs = pair.here.newest_release(held)[0], pair.other.newest_release(found)[0]
    if ours.version == theirs.version and ours.data != theirs.data:
        advice = "two release keys signed at once: release the packages again with: pumpdeck package build"
        conflicts.append(MergeConflict("release", f"{site} version {ours.version}", "the one here", "another one", advice))
    _check_roots(pair)
    is_newer = found.forms[TIMESTAMP].version > held.forms[TIMESTAMP].version
    known, _ = _union(site, _assignments(pair.here, held), _read_pending(pair.mine, fs))
    told = _assignments(pair.other, found)
    wanted, clashes = _union(site, known, told)
    standing = told if is_newer else _assignments(pair.here, held)
    lacking = {device: one for device, one in wanted.items() if standing.get(device) != one}
    # Kept until it is signed: the newer metadata takes the place of the one that knew of it.
    _write_pending(pair.mine, fs, lacking)
    if is_newer or theirs.version > ours.version:
        _take(pair.mine, pair.other, found, fs, with_timestamp=is_newer)
    released = pair.here.newest_release(pair.here.verified(now_ms))[1]
    to_sign = []
    for device, assignment in sorted(lacking.items()):
        try:
            released_package(released, device, assignment.package_sha256)
        except TrustError as error:
            advice = "release it again, then plan a rollout for the device"
            clashes.append(MergeConflict("assignment", device, "none", error.sentence(), advice))
        else:
            to_sign.append(assignment)
    return SiteMerge(site, is_newer=is_newer, to_sign=tuple(to_sign), conflicts=(*conflicts, *clashes))


def _read_pending(folder: Path, fs: FileSystem) -> dict[str, Assignment]:
    try:
        data = fs.read_bytes(folder / PENDING_NAME, _PENDING_MAX_BYTES)
    except FileNotFoundError:
        return {}
    listed = canonical.decode(Pending, data, str(folder / PENDING_NAME), max_bytes=_PENDING_MAX_BYTES)
    return {one.device: one for one in listed.assignments}


def _write_pending(folder: Path, fs: FileSystem, lacking: Mapping[str, Assignment]) -> None:
    if lacking:
        listed = Pending(tuple(one for _, one in sorted(lacking.items())))
        replace_file(fs, folder / PENDING_NAME, canonical.encode(listed))
    elif fs.exists(folder / PENDING_NAME):
        fs.unlink(folder / PENDING_NAME)


def _check_roots(pair: _Pair) -> None:
    """One line of roots on both sides, and the newer root on the newer side: nothing else may count."""
    ours, theirs = pair.held.forms[ROOT].version, pair.found.forms[ROOT].version
    for version in range(1, min(ours, theirs) + 1):
        name = metadata_name(ROOT, version)
        if pair.here.read(name) != pair.other.read(name):
            raise TrustError(f"has two roots of version {version}", pair.mine.name, hint="renew the keys of the site")
    newer = (pair.found.forms[TIMESTAMP].version > pair.held.forms[TIMESTAMP].version) - (
        pair.found.forms[TIMESTAMP].version < pair.held.forms[TIMESTAMP].version
    )
    if (theirs - ours) * newer < 0:
        raise TrustError(
            "one workspace renewed the keys while the other went on signing under the old ones",
            pair.mine.name,
            expected=f"root {max(ours, theirs)} on both sides",
            found=f"root {min(ours, theirs)} under the later signature",
            hint="renew the keys once more where they were renewed, then sync again",
        )


def _assignments(folder: SiteFolder, site: VerifiedSite) -> dict[str, Assignment]:
    deploy = site.trusted.delegated(DEPLOY)
    prefix = assignment_path("")
    found = {}
    for path in deploy.targets:
        device = path.removeprefix(prefix)
        assignment = folder.assignment(device, deploy)
        if assignment is not None:
            found[device] = assignment
    return found


def _union(
    site: str, mine: Mapping[str, Assignment], theirs: Mapping[str, Assignment]
) -> tuple[dict[str, Assignment], list[MergeConflict]]:
    """By device the assignment with the higher number: the one that the device obeys in the end."""
    wanted, clashes = dict(mine), []
    for device, other in theirs.items():
        own = wanted.setdefault(device, other)
        if own == other:
            continue
        wanted[device] = max(own, other, key=_rank)
        if own.seq == other.seq:
            kept, lost = sorted((own, other), key=_rank, reverse=True)
            advice = "the device takes the one that reaches it first; collect from it, then plan again if it is the wrong one"
            words = f"package {kept.package_sha256[:12]}, number {kept.seq}", f"package {lost.package_sha256[:12]}"
            clashes.append(MergeConflict("assignment", f"{site} {device}", *words, advice))
    return wanted, clashes


def _rank(one: Assignment) -> tuple[int, str, bytes]:
    return one.seq, one.task, canonical.encode(one)


def _take(folder: Path, other: SiteFolder, found: VerifiedSite, fs: FileSystem, *, with_timestamp: bool) -> None:
    """What was verified of the other side, and nothing else that lies in its folder; the timestamp makes it count, last."""
    files = dict(other.current_files())
    release, _ = other.newest_release(found)
    files[release.name] = release.data
    if not with_timestamp:
        files = {release.name: release.data}
    here = SiteFolder(folder, fs)
    assigned = _assigned(other, found) if with_timestamp else []
    here.make()
    for target, data in assigned:
        here.write_assignment(target, data)
    for name in other.provenance_names():
        if not fs.exists(folder / "provenance" / name):
            replace_file(fs, folder / "provenance" / name, other.provenance_file(name))
    here.write({name: data for name, data in files.items() if name == _TIMESTAMP or not fs.exists(folder / "metadata" / name)})


def _assigned(folder: SiteFolder, site: VerifiedSite) -> list[tuple[TargetFile, bytes]]:
    deploy = site.trusted.delegated(DEPLOY)
    files = []
    for path, target in deploy.targets.items():
        data = folder.assignment_bytes(path.removeprefix(assignment_path("")), deploy) or b""
        expected, digest = target.hashes["sha256"], canonical.digest(data)
        if digest != expected:
            raise DigestMismatchError("an assignment was altered", f"{folder.site} {path}", expected=expected, found=digest)
        files.append((target, data))
    return files
