"""A stick in the wrong hands, at the device: whatever is changed on it, what runs stays, and the device accepts nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pumpdeck_agent.accepted import Accepted
from pumpdeck_agent.install_from import StickVisit, install_from
from pumpdeck_fleet.core import canonical
from pumpdeck_packaging.bundle_index import BundleFile, BundleIndex
from pumpdeck_packaging.bundle_kept import DeviceName, sign_kept
from pumpdeck_packaging.bundle_returns import read_envelope, return_folder
from pumpdeck_packaging.bundle_stick import Stick, StickFileSystem, real_stick
from pumpdeck_packaging.signing import generate_key
from pumpdeck_packaging.trust_repository import AssignmentRequest, PackageRelease
from support.devices import Bench, package
from support.forge import edited, name_of
from support.sticks import ForwardingFileSystem, export_to, parts_for, stick_on
from support.trust import SampleSite

RUNS = package(shift=0.0)
NEXT = package(shift=0.5)
OTHER = package("gannet-d2", shift=0.25)
EVIL = package(shift=9.0)

REFUSED = (3, 4, 5, 6)


@dataclass
class Scene:
    """A device that runs one package, and a stick that honestly brings the next; `outside` must never be touched."""

    bench: Bench
    stick: Stick
    files: dict[str, bytes]
    earlier: dict[str, bytes]
    outside: Path

    @property
    def folder(self) -> Path:
        return self.stick.folder

    def path(self, name: str) -> Path:
        """A file of the bundle by the end of its path."""
        found = [path for path in self.folder.rglob("*") if path.as_posix().endswith(name)]
        assert found, name
        return found[0]

    @property
    def package_path(self) -> Path:
        return self.path(f"packages/{NEXT.sha256}")

    def put(self, files: dict[str, bytes], built: Any = NEXT, device: str = "gannet-d1") -> None:
        """Write a whole bundle of these files over the stick, as somebody with any tool can."""
        export_to(self.stick, parts_for(files, built, device))

    def index(self) -> BundleIndex:
        plain = canonical.parse_json((self.folder / "bundle.json").read_bytes(), "index", max_bytes=1 << 24)
        return canonical.from_plain(BundleIndex, plain, "index")

    def fit_index(self) -> None:
        """Make `bundle.json` say what lies there now: it is not signed, so an attacker can."""
        index = self.index()
        files = {}
        for path in index.files:
            place = self.folder.joinpath(*path.split("/"))
            if place.is_file():
                data = place.read_bytes()
                files[path] = BundleFile(len(data), canonical.digest(data))
        plain = canonical.encode(BundleIndex(index.format, index.id, index.sites, files))
        (self.folder / "bundle.json").write_bytes(plain)

    def standing(self) -> tuple[Any, ...]:
        """Everything of the device that an attack could change."""
        agent = self.bench.agent()
        status = agent.status().fields["state"]
        layout = agent.layout
        return (
            status["state"],
            status["active"],
            status.get("previous"),
            status["seq"],
            status["counter"],
            layout.trust_floor.read_bytes(),
            layout.trust_root.read_bytes(),
            sorted(path.name for path in layout.store.iterdir()),
            sorted(path.name for path in layout.incoming.iterdir()),
            sorted(path.name for path in layout.outbox.iterdir()),
        )

    def visit(self, stick: Stick | None = None) -> StickVisit:
        return install_from(self.bench.agent(), stick or self.stick)

    def refused(self, match: str = "", stick: Stick | None = None) -> StickVisit:
        """Assert that the visit installs nothing, for that reason, and changes nothing."""
        before, outside = self.standing(), _tree(self.outside)
        found = self.visit(stick)
        assert found.outcome in ("refused", "none"), found
        assert found.exit_code in REFUSED or found.outcome == "none", found
        assert match in found.reason + found.problem, found
        assert self.standing() == before
        assert _tree(self.outside) == outside
        return found


def _tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(autouse=True)
def _no_syncs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a cut would take is asked in tests/faults; here syncs only cost time."""
    monkeypatch.setattr(os, "fsync", lambda _fd: None)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    bench = Bench(tmp_path)
    bench.install(RUNS, "task-1")
    earlier = dict(bench.site.trust.files_for(bench.device))
    files = bench.assign(NEXT, "task-2")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"precious")
    stick = real_stick(tmp_path / "stick" / "pumpdeck")
    made = Scene(bench, stick, files, earlier, outside)
    made.put(files)
    return made


def test_the_honest_stick_is_taken(scene: Scene) -> None:
    """Without an attack all of this is accepted: the cases below fail for their own reason."""
    assert scene.visit().outcome == "committed"
    assert scene.standing()[1] == NEXT.sha256


# Old words


def test_yesterdays_whole_stick_is_refused(scene: Scene) -> None:
    """Freeze: a copy of an earlier stick is carried to a device that has moved on."""
    scene.visit()
    scene.put(scene.earlier, RUNS)
    scene.refused("older than")


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "release", "deploy"])
def test_one_role_of_yesterday_among_todays_is_refused(scene: Scene, role: str) -> None:
    """Rollback of one role: its file of an earlier stick lies among the newer ones."""
    old, new = name_of(scene.earlier, role), name_of(scene.files, role)
    mixed = {name: data for name, data in scene.files.items() if name != new} | {old: scene.earlier[old]}
    if mixed == scene.files:
        # This role did not change; a version below it is what a thief would need.
        mixed[new] = edited(scene.files, scene.bench.site.keys, role, lambda signed: signed.update(version=0))[f"0.{role}.json"]
    scene.put(mixed)
    scene.refused()


def test_the_root_withheld_that_revokes_a_laptop_is_refused(scene: Scene) -> None:
    """Withheld root. The new root is taken off the stick so that a revoked laptop's metadata still counts."""
    site = scene.bench.site
    rotate(site)
    scene.bench.site.trust.assign(
        [AssignmentRequest("gannet-d1", NEXT.sha256, "task-3")], site.keys.laptops[1]
    )
    files = dict(site.trust.files_for("gannet-d1"))
    scene.put({name: data for name, data in files.items() if name != "2.root.json"})
    scene.refused("2.root.json")


def test_a_root_with_a_gap_is_refused(scene: Scene) -> None:
    """Root 2 is skipped: nobody vouches for root 3."""
    site = scene.bench.site
    rotate(site)
    rotate(site)
    files = dict(site.trust.files_for("gannet-d1"))
    scene.put({name: data for name, data in files.items() if name != "2.root.json"})
    scene.refused("2.root.json")


def test_an_assignment_of_yesterday_under_todays_metadata_is_refused(scene: Scene) -> None:
    """Mix and match: the old assignment file beside metadata that names the new one."""
    scene.put(scene.files | {"assign.json": scene.earlier["assign.json"]})
    scene.refused("not the assignment that was signed")


def test_metadata_of_today_with_yesterdays_package_is_refused(scene: Scene) -> None:
    """Mix and match: the old package lies under the new one's name."""
    scene.package_path.write_bytes(RUNS.data)
    scene.fit_index()
    scene.refused()


def rotate(site: SampleSite) -> None:
    """A root ceremony that takes the first laptop's key away."""
    site.keys.laptops = [*site.keys.laptops[1:], generate_key()][:2]
    site.keys.laptops = [generate_key(), site.keys.laptops[0]]
    site.trust.rotate(site.keys.public(), site.keys.signers(1))


# Somebody else's words


def test_a_stick_signed_by_strangers_is_refused(scene: Scene, tmp_path: Path) -> None:
    """A whole site made with own keys, the same names everywhere."""
    thief = SampleSite(tmp_path / "thief")
    thief.deliver()
    built = EVIL
    thief.trust.release([PackageRelease(built, {"esp-health": 1})], thief.keys.release)
    thief.trust.assign([AssignmentRequest("gannet-d1", built.sha256, "task-9")], thief.keys.laptops[0])
    scene.put(dict(thief.trust.files_for("gannet-d1")), built)
    scene.refused()


def test_the_stick_of_another_site_with_the_same_keys_is_refused(scene: Scene, tmp_path: Path) -> None:
    """The metadata of another platform, whose key holders are the same people, under this site's path."""
    other = SampleSite(tmp_path / "other", "heron", scene.bench.site.keys)
    other.trust.release([PackageRelease(EVIL, {"esp-health": 1})], other.keys.release)
    other.trust.assign([AssignmentRequest("gannet-d1", EVIL.sha256, "task-9")], other.keys.laptops[0])
    files = dict(other.trust.files_for("gannet-d1"))
    scene.put(files | {"1.root.json": scene.files["1.root.json"]}, EVIL)
    scene.refused()


def test_a_stick_for_another_site_brings_nothing(scene: Scene) -> None:
    """The right files, under another site's path."""
    shutil.move(scene.folder / "sites" / "gannet", scene.folder / "sites" / "heron")
    index = scene.index()
    files = {path.replace("sites/gannet/", "sites/heron/"): file for path, file in index.files.items()}
    plain = canonical.encode(BundleIndex(1, index.id, ("heron",), files))
    (scene.folder / "bundle.json").write_bytes(plain)
    assert scene.refused().outcome == "none"


def test_another_devices_assignment_under_this_devices_name_is_refused(scene: Scene) -> None:
    """The neighbour's assignment is copied over ours."""
    site = scene.bench.site
    site.trust.release([PackageRelease(OTHER, {"esp-health": 1})], site.keys.release)
    site.trust.assign([AssignmentRequest("gannet-d2", OTHER.sha256, "task-d2")], site.keys.laptops[0])
    ours, theirs = dict(site.trust.files_for("gannet-d1")), dict(site.trust.files_for("gannet-d2"))
    scene.put(ours | {"assign.json": theirs["assign.json"]}, OTHER)
    scene.refused()


def test_a_package_that_the_laptop_alone_vouches_for_is_refused(scene: Scene) -> None:
    """A package outside the device's own prefix signed by the deploy key, as a stolen laptop can."""
    forged = canonical.parse_json(scene.files["assign.json"], "assign", max_bytes=4096)
    forged["package_sha256"], forged["seq"] = EVIL.sha256, forged["seq"] + 1
    data = canonical.encode(forged)

    def change(signed: dict[str, Any]) -> None:
        signed["version"] += 64
        signed["targets"]["assign/gannet-d1"] = {
            "custom": {"seq": forged["seq"]},
            "hashes": {"sha256": canonical.digest(data)},
            "length": len(data),
        }

    files = edited(scene.files, scene.bench.site.keys, "deploy", change)
    scene.put(files | {"assign.json": data}, EVIL)
    scene.refused()


# Bytes that are not what they should be


def _truncated(data: bytes) -> bytes:
    return data[:-1]


def _halved(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _longer(data: bytes) -> bytes:
    return data + b"\0"


def _empty(data: bytes) -> bytes:
    return b""


def _zeros(data: bytes) -> bytes:
    return bytes(len(data))


def _flipped(data: bytes) -> bytes:
    return data[:100] + bytes([data[100] ^ 1]) + data[101:]


def _twice(data: bytes) -> bytes:
    return data + data


CHANGES = [_truncated, _halved, _longer, _empty, _zeros, _flipped, _twice]


@pytest.mark.parametrize("is_fitted", [False, True], ids=["index kept", "index fitted"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
def test_a_package_of_other_bytes_is_refused(scene: Scene, change: Callable[[bytes], bytes], is_fitted: bool) -> None:
    """Truncated, longer, empty, zeros, one bit: with the unsigned list left alone, and with the list made to fit."""
    scene.package_path.write_bytes(change(NEXT.data))
    if is_fitted:
        scene.fit_index()
    scene.refused()


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
@pytest.mark.parametrize("name", ["timestamp.json", ".snapshot.json", ".release.json", ".deploy.json"])
def test_signed_files_of_other_bytes_are_refused(scene: Scene, name: str, change: Callable[[bytes], bytes]) -> None:
    """Each signed file in each way, with a list that fits."""
    path = scene.path(name)
    path.write_bytes(change(path.read_bytes()))
    scene.fit_index()
    scene.refused()


@pytest.mark.parametrize("name", ["timestamp.json", ".targets.json", "1.root.json", "PACKAGE"])
def test_a_missing_file_is_refused(scene: Scene, name: str) -> None:
    """Any file is deleted and the list made to fit."""
    (scene.package_path if name == "PACKAGE" else scene.path(name)).unlink()
    scene.fit_index()
    if name == "1.root.json":
        # The device has that root already: the stick is as good without it.
        assert scene.visit().outcome == "committed"
        return
    scene.refused()


def test_a_withheld_assignment_changes_nothing_that_runs(scene: Scene) -> None:
    """The assignment is taken off an honest stick: the metadata counts, since it may revoke a key; what runs and its seq stay."""
    path, listed = scene.path("assign/gannet-d1"), (scene.folder / "bundle.json").read_bytes()
    withheld = path.read_bytes()
    path.unlink()
    scene.fit_index()
    bench, layout = scene.bench, scene.bench.agent().layout
    runs, floor = scene.standing(), Accepted(bench.fs, layout, bench.config).load().floor
    assert scene.visit().outcome == "none"
    after = Accepted(bench.fs, layout, bench.config).load().floor
    assert scene.standing()[:5] == runs[:5] and scene.standing()[6:9] == runs[6:9]
    assert after.seq == floor.seq and after.roles["deploy"].number > floor.roles["deploy"].number
    path.write_bytes(withheld)
    (scene.folder / "bundle.json").write_bytes(listed)
    assert scene.visit().outcome == "committed"


def test_a_sparse_giant_is_refused_unread(scene: Scene) -> None:
    """A package of 1 TB that takes no room on the stick."""
    with scene.package_path.open("r+b") as stream:
        stream.truncate(1 << 40)
    scene.refused("too large")


# Things that are not files


def _as_link(path: Path, outside: Path) -> None:
    target = outside / "target"
    if path.is_dir():
        shutil.move(path, target)
    else:
        target.write_bytes(path.read_bytes())
        path.unlink()
    path.symlink_to(target)


def _as_fifo(path: Path, outside: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _as_folder(path: Path, outside: Path) -> None:
    path.unlink()
    path.mkdir()


def _as_device(path: Path, outside: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("become", [_as_link, _as_fifo, _as_folder, _as_device], ids=lambda one: one.__name__.strip("_"))
@pytest.mark.parametrize("name", ["bundle.json", "assign/gannet-d1", "timestamp.json", "PACKAGE"])
def test_what_is_not_a_plain_file_is_refused(scene: Scene, name: str, become: Callable[[Path, Path], None]) -> None:
    """A symlink, a FIFO that never speaks, a folder, or a device file stands there: nothing is followed or waited for."""
    become(scene.package_path if name == "PACKAGE" else scene.path(name), scene.outside)
    scene.refused()


@pytest.mark.parametrize("name", ["sites", "sites/gannet", "sites/gannet/metadata", "sites/gannet/packages"])
def test_a_folder_that_is_a_link_is_refused(scene: Scene, name: str) -> None:
    """A folder of the bundle leads off the stick, to files that are all right."""
    _as_link(scene.folder / name, scene.outside)
    scene.refused("link")


@pytest.mark.parametrize("name", ["returns", "returns/gannet-d1"])
def test_a_return_is_never_written_through_a_link(scene: Scene, name: str) -> None:
    """The place for returns leads to a folder of the device's own disk: the agent may write anywhere there."""
    target = scene.outside / "etc"
    target.mkdir()
    place = scene.folder / name
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(target)
    found = scene.visit()
    assert found.outcome == "committed"
    assert (found.returned, found.exit_code) == (-1, 5)
    assert list(target.iterdir()) == []
    assert _tree(scene.outside) == {"precious": b"precious"}


@pytest.mark.parametrize("name", ["return.json", "return.json.part", "report.txt", "report.txt.part"])
def test_a_file_of_the_return_that_is_a_link_is_replaced_not_followed(scene: Scene, name: str) -> None:
    """Links to a precious file lie where the agent will write."""
    place = return_folder(scene.folder, "gannet-d1") / name
    place.parent.mkdir(parents=True)
    place.symlink_to(scene.outside / "precious")
    found = scene.visit()
    assert (found.outcome, found.exit_code) == ("committed", 0)
    assert (scene.outside / "precious").read_bytes() == b"precious"
    assert not (place.parent / "return.json").is_symlink()


@pytest.mark.parametrize("name", ["return.json.part", "report.txt.part"])
def test_a_pipe_where_the_agent_writes_does_not_hold_it_up(scene: Scene, name: str) -> None:
    """A FIFO nobody reads lies under the name of a file to be written."""
    place = return_folder(scene.folder, "gannet-d1") / name
    place.parent.mkdir(parents=True)
    os.mkfifo(place)
    assert scene.visit().exit_code == 0


def test_hard_links_to_other_files_of_the_stick_are_not_written_through(scene: Scene) -> None:
    """The package is linked under the name of the page: writing the page must not change the package."""
    place = return_folder(scene.folder, "gannet-d1") / "report.txt.part"
    place.parent.mkdir(parents=True)
    os.link(scene.package_path, place)
    scene.visit()
    assert scene.package_path.read_bytes() == NEXT.data


# The list itself


def _index(scene: Scene, **changes: Any) -> bytes:
    plain = canonical.to_plain(scene.index())
    return canonical.encode({**plain, **changes})


@pytest.mark.parametrize(
    "path",
    [
        "../../etc/passwd",
        "sites/gannet/packages/../../../../etc/passwd",
        "/etc/passwd",
        "sites/gannet/packages/a\0b",
        "sites\\gannet\\packages\\x",
        "sites/gannet/packages/..\\x",
        "sites/gannet/packages/con",
        "sites/gannet/packages/lpt1.txt",
        "sites/gannet/packages/UPPER",
        "sites/gannet/packages/trailing.",
        "sites/gannet/packages/white space",
        "sites/gannet/packages/x:stream",
        "sites/gannet/packages/ünicode",
        "sites/gannet/packages/" + "a" * 65,
        "sites/gannet/packages/",
        "sites/gannet/packages/a/b",
        "sites/gannet/secrets/x",
        "sites/heron/packages/x",
        "returns/gannet-d1/return.json",
        "",
        "c:/windows/x",
    ],
    ids=lambda path: repr(path)[1:40],
)
def test_a_list_that_names_a_path_outside_the_bundle_is_refused(scene: Scene, path: str) -> None:
    """`..`, absolute, NUL, backslash, case-fold twins, reserved names, a foreign site's path: nothing leaves the bundle."""
    files = canonical.to_plain(scene.index())["files"]
    data = _index(scene, files={**files, path: {"bytes": 1, "digest": "0" * 64}})
    (scene.folder / "bundle.json").write_bytes(data)
    scene.refused()


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"format": "1"},
        {"id": "../x"},
        {"id": "A"},
        {"sites": ["gannet", "gannet"]},
        {"sites": ["Gannet", "gannet"]},
        {"sites": ["gannet/../heron"]},
        {"sites": [f"s{n}" for n in range(300)]},
        {"files": []},
        {"files": {"sites/gannet/packages/x": {"bytes": -1, "digest": "0" * 64}}},
        {"files": {"sites/gannet/packages/x": {"bytes": 1 << 33, "digest": "0" * 64}}},
        {"files": {"sites/gannet/packages/x": {"bytes": 1, "digest": "0" * 63}}},
        {"files": {"sites/gannet/packages/x": {"bytes": True, "digest": "0" * 64}}},
        {"surprise": 1},
    ],
    ids=repr,
)
def test_a_bent_list_is_refused(scene: Scene, changes: dict[str, Any]) -> None:
    """Every field of the list is checked; nothing unknown is passed over."""
    (scene.folder / "bundle.json").write_bytes(_index(scene, **changes))
    scene.refused()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 4096,
        b"{}",
        b"[]",
        b"[" * 200_000 + b"]" * 200_000,
        b'{"format":1' + b"0" * 5000 + b"}",
        b'{"format":1,"format":1}',
        b"\xff\xfe{}",
        b" " * (9 << 20),
        b'{"files":{},"format":NaN,"id":"b","sites":[]}',
    ],
    ids=["empty", "zeros", "no fields", "a list", "deep", "huge integer", "key twice", "not utf-8", "9 MB", "nan"],
)
def test_a_list_that_is_none_is_refused(scene: Scene, data: bytes) -> None:
    """Parser bombs and rubbish under the name of the list."""
    (scene.folder / "bundle.json").write_bytes(data)
    scene.refused()


def test_more_metadata_files_than_roots_can_be_are_refused(scene: Scene) -> None:
    """Three hundred roots, each a file to read and verify."""
    index = scene.index()
    files = dict(index.files)
    root = scene.path("1.root.json")
    for number in range(2, 302):
        root.with_name(f"{number}.root.json").write_bytes(root.read_bytes())
        files[f"sites/gannet/metadata/{number}.root.json"] = index.files["sites/gannet/metadata/1.root.json"]
    (scene.folder / "bundle.json").write_bytes(canonical.encode(BundleIndex(1, index.id, index.sites, files)))
    scene.refused("too many")


def test_a_metadata_file_that_is_none_is_refused(scene: Scene) -> None:
    """A file with a name that no role has lies among the metadata."""
    index = scene.index()
    data = b"{}"
    scene.path("1.root.json").with_name("9.mirrors.json").write_bytes(data)
    files = {**index.files, "sites/gannet/metadata/9.mirrors.json": BundleFile(2, canonical.digest(data))}
    (scene.folder / "bundle.json").write_bytes(canonical.encode(BundleIndex(1, index.id, index.sites, files)))
    scene.refused("metadata file")


# A stick with a mind of its own


class SwappingDisk(ForwardingFileSystem):
    """Gives other bytes from the second reading of a path on: verified once, used once is what it must not matter to."""

    def __init__(self, inner: Any, name: str, other: bytes, after: int) -> None:
        super().__init__(inner)
        self._name, self._other, self._left = name, other, after
        self.readings = 0

    def read_bytes(self, path: Path, max_bytes: int) -> bytes:
        data: bytes = self.inner.read_bytes(path, max_bytes)
        if not path.as_posix().endswith(self._name):
            return data
        self.readings += 1
        if self._left:
            self._left -= 1
            return data
        return self._other


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_package_exchanged_between_verification_and_use_never_runs(scene: Scene, after: int) -> None:
    """Verification-to-use race on the stick: one with its own processor gives the good package first, then another."""
    before = scene.standing()
    disk = SwappingDisk(StickFileSystem(scene.folder), NEXT.sha256, EVIL.data, after)
    found = scene.visit(stick_on(disk, scene.folder))  # type: ignore[arg-type]
    if after == 0:
        assert found.outcome == "refused" and scene.standing() == before
    else:
        assert found.outcome == "committed" and scene.standing()[1] == NEXT.sha256
        # Read once: there is no second reading to exchange anything in.
        assert disk.readings == 1


@pytest.mark.parametrize("name", ["timestamp.json", "assign/gannet-d1", ".deploy.json"])
def test_metadata_exchanged_between_two_readings_does_no_harm(scene: Scene, name: str) -> None:
    """The stick shows the old file at the second look."""
    scene.visit()
    stale = scene.earlier["assign.json" if "assign" in name else name_of(scene.earlier, name.strip(".").split(".")[0])]
    disk = SwappingDisk(StickFileSystem(scene.folder), name, stale, 1)
    scene.visit(stick_on(disk, scene.folder))  # type: ignore[arg-type]
    assert scene.standing()[1] == NEXT.sha256


# The word that a return is safe


def kept_after(scene: Scene, data: bytes) -> StickVisit:
    """A visit with that word on the stick; before it the device has given a return."""
    index = scene.index()
    path = "sites/gannet/kept/gannet-d1"
    place = scene.folder.joinpath(*path.split("/"))
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(data)
    files = {**index.files, path: BundleFile(len(data), canonical.digest(data))}
    (scene.folder / "bundle.json").write_bytes(canonical.encode(BundleIndex(1, index.id, index.sites, files)))
    return scene.visit()


OURS = DeviceName("gannet", "gannet-d1")


def test_the_honest_word_empties_the_outbox(scene: Scene) -> None:
    """Without an attack the word is believed."""
    scene.visit()
    envelope = read_envelope(scene.stick.fs, scene.folder, "gannet-d1")
    found = kept_after(scene, sign_kept(OURS, envelope, scene.bench.site.keys.laptops[0]))
    assert (found.note, found.returned) == ("", 0)


@pytest.mark.parametrize("who", ["stranger", "release", "targets", "root", "revoked"])
def test_a_word_by_another_key_lets_nothing_go(scene: Scene, who: str) -> None:
    """Somebody without a deploy key wants the device to forget what it has to say."""
    scene.visit()
    site = scene.bench.site
    envelope = read_envelope(scene.stick.fs, scene.folder, "gannet-d1")
    signer = {
        "stranger": generate_key(),
        "release": site.keys.release[0],
        "targets": site.keys.targets,
        "root": site.keys.root[0],
        "revoked": site.keys.laptops[0],
    }[who]
    if who == "revoked":
        rotate(site)
        site.trust.assign([AssignmentRequest("gannet-d1", NEXT.sha256, "task-3")], site.keys.laptops[1])
        scene.put(dict(site.trust.files_for("gannet-d1")))
        scene.visit()
    held = len(scene.standing()[9])
    found = kept_after(scene, sign_kept(OURS, envelope, signer))
    assert "unknown key" in found.note
    assert len(scene.standing()[9]) == held > 0


@pytest.mark.parametrize("how", ["other device", "other site", "other return", "no return", "cut", "foreign return"])
def test_a_word_that_does_not_fit_lets_nothing_go(scene: Scene, how: str) -> None:
    """A good signature over something else."""
    scene.visit()
    signer = scene.bench.site.keys.laptops[0]
    envelope = read_envelope(scene.stick.fs, scene.folder, "gannet-d1")
    stranger = Bench(scene.outside / "x", site=scene.bench.site, device="gannet-d1").agent().collect(1000).body
    foreign = stranger[4 : 4 + int.from_bytes(stranger[:4], "big")]
    shutil.rmtree(scene.outside / "x")
    honest = sign_kept(OURS, envelope, signer)
    data = {
        "other device": sign_kept(DeviceName("gannet", "gannet-d2"), envelope, signer),
        "other site": sign_kept(DeviceName("heron", "gannet-d1"), envelope, signer),
        "other return": sign_kept(OURS, b"{}", signer).split(b"\n")[0] + b"\n" + envelope,
        "no return": honest.split(b"\n")[0],
        "cut": honest[:-10],
        "foreign return": sign_kept(OURS, foreign, signer),
    }[how]
    held = len(scene.standing()[9])
    found = kept_after(scene, data)
    assert found.note
    assert len(scene.standing()[9]) == held > 0
