"""Write a bundle onto a stick: claimed first, each file read back past the cache, `bundle.json` last.

A pulled stick is told by the missing `bundle.json`; writing again goes on where it stopped. Nothing that is not of a bundle is
ever touched, returns that lie on the stick least of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.canonical import digest as digest_of
from pumpdeck_fleet.core.errors import ConflictError, DamagedError, PumpdeckError, RefusedError
from pumpdeck_fleet.core.ids import is_name
from pumpdeck_fleet.core.ports import Progress
from pumpdeck_fleet.core.room import check_room
from pumpdeck_packaging.bundle_index import (
    BUNDLE_FORMAT,
    INDEX_NAME,
    MARK_MAX_BYTES,
    MARK_NAME,
    SITE_PARTS,
    SITES,
    TRIAL_NAME,
    BundleFile,
    BundleIndex,
    BundleMark,
    is_of_the_system,
    parse_index,
    parse_mark,
    place_of,
)
from pumpdeck_packaging.bundle_part import BundlePart, WriteReport, bytes_part
from pumpdeck_packaging.bundle_stick import Stick, StickFailedError, stick_errors, write_proven

SPARE_BYTES = 1024 * 1024
BLOCK_BYTES = 32 * 1024
"""What a small file takes on a large FAT stick."""


def claim(stick: Stick, workspace: str, new_id: str) -> str:
    """Make the folder ours, or find that it is; the name of the stick, which stays with it.

    Raises:
        RefusedError: other things lie there. ConflictError: another workspace writes its bundles there.
        StickFailedError.
    """
    with stick_errors(stick.folder):
        stick.fs.mkdir(stick.folder)
        stick.fs.fsync_dir(stick.folder.parent)
        names = [name for name in stick.fs.listdir(stick.folder) if not is_of_the_system(name)]
        if MARK_NAME in names:
            return _known_mark(stick, workspace)
        foreign = sorted(name for name in names if name != f"{MARK_NAME}.part" and not name.startswith(TRIAL_NAME))
        if foreign:
            raise RefusedError(
                "holds things that are not of a bundle",
                str(stick.folder),
                expected="an empty folder, or one with an earlier bundle",
                found=", ".join(foreign[:5]),
                hint="name a new folder on the stick",
            )
        mark = canonical.encode(BundleMark(BUNDLE_FORMAT, new_id, workspace))
        write_proven(stick, stick.folder / MARK_NAME, mark, MARK_NAME)
        stick.fs.fsync_dir(stick.folder)
    return new_id


def write_bundle(
    stick: Stick,
    bundle: str,
    parts: Sequence[BundlePart],
    *,
    before_index: Callable[[], None],
    on_progress: Progress,
    workers: int = 1,
) -> WriteReport:
    """Bring the claimed folder to hold exactly these parts, and say so in `bundle.json`.

    `before_index` is called when all parts lie on the stick and nothing says yet that the bundle is whole.

    Raises:
        StickFailedError: pulled, full, write-protected or lying; what lies there is not believed, and the next call goes on.
        RefusedError: no room.
    """
    index = BundleIndex(
        BUNDLE_FORMAT,
        bundle,
        tuple(sorted({part.path.split("/")[1] for part in parts})),
        {part.path: BundleFile(part.size, part.digest) for part in parts},
    )
    data = canonical.encode(index)
    parse_index(data)
    with stick_errors(stick.folder):
        stick.fs.unlink(stick.folder / INDEX_NAME)
        stick.fs.fsync_dir(stick.folder)
        _remove_unlisted(stick, index)
        lacking, already = write_parts(stick, parts, on_progress=on_progress, workers=workers)
    before_index()
    with stick_errors(stick.folder):
        write_proven(stick, stick.folder / INDEX_NAME, data, INDEX_NAME)
        stick.fs.fsync_dir(stick.folder)
    return WriteReport(bundle, len(lacking), sum(part.size for part in lacking), already)


def write_parts(
    stick: Stick, parts: Sequence[BundlePart], *, on_progress: Progress, workers: int = 1
) -> tuple[list[BundlePart], int]:
    """Bring these files onto the stick, folders synced; those that were written, and how many lay there already, whole.

    Raises:
        StickFailedError, RefusedError. OSError: use inside `stick_errors`.
    """
    for folder in sorted({place_of(stick.folder, part.path).parent for part in parts}):
        stick.fs.mkdir(folder)
    lacking = _lacking(stick, parts, on_progress)
    _check_room(stick, lacking)
    _write_all(stick, lacking, on_progress, workers)
    for path in sorted(_folders(parts), reverse=True):
        stick.fs.fsync_dir(place_of(stick.folder, path))
    stick.fs.fsync_dir(stick.folder)
    return lacking, len(parts) - len(lacking)


def bytes_on_stick(parts: Iterable[BundlePart]) -> int:
    """What the parts take on a stick whose blocks are large."""
    return sum(-(-part.size // BLOCK_BYTES) * BLOCK_BYTES for part in parts)


def _known_mark(stick: Stick, workspace: str) -> str:
    mark = parse_mark(stick.fs.read_bytes(stick.folder / MARK_NAME, MARK_MAX_BYTES))
    if mark.workspace != workspace:
        raise ConflictError(
            "holds a bundle of another workspace",
            str(stick.folder),
            expected=workspace,
            found=mark.workspace,
            hint="name a new folder on the stick",
        )
    return mark.id


def _check_room(stick: Stick, lacking: Sequence[BundlePart]) -> None:
    wanted = bytes_on_stick(lacking) + SPARE_BYTES
    check_room(stick.fs, stick.folder, wanted, "has no room for this bundle")


def _lacking(stick: Stick, parts: Sequence[BundlePart], on_progress: Progress) -> list[BundlePart]:
    """The parts that do not lie there whole; what does is read and proven, whatever an earlier list says of it."""
    lacking, done, total = [], 0, sum(part.size for part in parts)
    for part in parts:
        if not _is_there(stick, part):
            lacking.append(part)
        elif part.size:
            done += part.size
            on_progress("check what lies there", done, total)
    return lacking


def _is_there(stick: Stick, part: BundlePart) -> bool:
    path = place_of(stick.folder, part.path)
    try:
        if not stick.fs.exists(path) or stick.fs.size(path) != part.size:
            return False
        return digest_of(stick.reread(path, part.size)) == part.digest
    except DamagedError:
        return False


def _write_all(stick: Stick, parts: Sequence[BundlePart], on_progress: Progress, workers: int) -> None:
    done, total = 0, sum(part.size for part in parts)
    on_progress("write to the stick", 0, total)

    def one(part: BundlePart) -> int:
        write_proven(stick, place_of(stick.folder, part.path), part.proven(), part.path)
        return part.size

    if workers == 1:
        for part in parts:
            done += one(part)
            on_progress("write to the stick", done, total)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="stick") as pool:
        futures = [pool.submit(one, part) for part in parts]
        try:
            for future in futures:
                done += future.result()
                on_progress("write to the stick", done, total)
        except (OSError, PumpdeckError):
            pool.shutdown(cancel_futures=True)
            raise


def _remove_unlisted(stick: Stick, index: BundleIndex) -> None:
    """Take away what an earlier bundle left here and this one does not name: room is scarce, and a site may have moved on."""
    top = stick.folder / SITES
    sites = stick.fs.listdir(top) if stick.fs.exists(top) else []
    for site in filter(is_name, sites):
        here = set(stick.fs.listdir(top / site))
        for part in sorted(here & set(SITE_PARTS)):
            for name in stick.fs.listdir(top / site / part):
                if is_name(name.removesuffix(".part")) and f"{SITES}/{site}/{part}/{name}" not in index.files:
                    stick.fs.unlink(top / site / part / name)


def _folders(parts: Iterable[BundlePart]) -> set[str]:
    """Every folder above one of the parts, but for the bundle's own."""
    split = [part.path.split("/")[:-1] for part in parts]
    return {"/".join(names[:count]) for names in split for count in range(1, len(names) + 1)}


__all__ = [
    "BundlePart",
    "StickFailedError",
    "WriteReport",
    "bytes_on_stick",
    "bytes_part",
    "claim",
    "write_bundle",
    "write_parts",
]
