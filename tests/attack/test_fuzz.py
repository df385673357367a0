"""A small share of the fuzz run on every test run, and what earlier runs have found, kept for ever.

The whole: `python tests/attack/fuzz.py --inputs 1000000`.
"""

from __future__ import annotations

import importlib.util
import io
import json
import struct
import sys
import tarfile
import warnings
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pumpdeck_agent.rpc_server import answer_frame
from pumpdeck_agent.spool import parse_spool
from pumpdeck_console.config import load_policies
from pumpdeck_console.operations.labels import _parse_labels
from pumpdeck_fleet.core import canonical
from pumpdeck_fleet.core.clock import format_ms
from pumpdeck_fleet.core.errors import DamagedError, FormatError, InputError, NotFoundError, TooLargeError
from pumpdeck_fleet.core.files import RealFileSystem
from pumpdeck_fleet.core.rpc import Frame, FrameDecoder
from pumpdeck_fleet.core.snapshots import SnapshotManifest
from pumpdeck_fleet.numeric.arrays import decode_arrays
from pumpdeck_fleet.services.inventory_file import load_fleet
from pumpdeck_fleet.transports.rpc_client import parse_collect
from pumpdeck_packaging.downgrade import verify_downgrade
from pumpdeck_packaging.enrolment import check_answer, claimed_site
from pumpdeck_packaging.zip_reader import read_zip
from pumpdeck_trainer.spec import default_pipeline
from support.fuzz_doors import all_targets
from support.fuzz_samples import Samples
from support.fuzz_work_doors import make_fleet, read_whole_run, run_members, tar_of, zip_of

INPUTS = 30_000


def _script() -> ModuleType:
    place = Path(__file__).with_name("fuzz.py")
    spec = importlib.util.spec_from_file_location("pumpdeck_fuzz", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


fuzz = _script()


@pytest.fixture(scope="module")
def tallies() -> list[Any]:
    with warnings.catch_warnings():
        found: list[Any] = fuzz.run_all(INPUTS, seed=11)
    return found


def test_no_parser_falls_over(tallies: list[Any]) -> None:
    """Tampered, truncated, longer, deep-nested and huge-integer inputs for every parser: a named error, or harmless."""
    assert sum(one.inputs for one in tallies) >= INPUTS
    assert {one.name: one.crashes for one in tallies if one.crashes} == {}


def test_every_parser_was_reached(tallies: list[Any]) -> None:
    """A generator whose inputs are all refused at the outer door would show nothing."""
    outer = {one.name for one in tallies if not one.refused and one.name != "trial report"}
    assert outer == set()
    # Of these next to nothing bent can pass: each byte stands under a checksum, a digest or a signature.
    tight = {
        "sketch",
        "package bytes",
        "package from a bent tar",
        "pump block",
        "age box",
        "envelope",
        "http body",
        "assignment with its metadata",
        "wheel",
    }
    none = {
        one.name for one in tallies if not one.accepted and not one.name.startswith("signed ") and one.name not in tight
    }
    assert none == set()


def test_time_and_memory_stay_bounded(tallies: list[Any]) -> None:
    """Bombs: no input of at most 1 MiB holds a parser up or fills the memory."""
    assert max(one.slowest_ms for one in tallies) < fuzz.SLOWEST_MS
    assert max(one.growth_mb for one in tallies) < fuzz.GROWTH_MB


def test_the_same_seed_gives_the_same_inputs(tmp_path: Path) -> None:
    """What a run finds can be found again."""
    import random

    for target in all_targets(tmp_path)[:5]:
        one, two = ([target.make(rng) for _ in range(20)] for rng in (random.Random("7"), random.Random("7")))
        assert one == two


def test_an_accepted_alteration_would_be_seen() -> None:
    """The fuzzer itself: a parser that takes anything, and one that falls over, are both found."""
    from support.fuzz_targets import Target

    for parse, what in ((bytes.hex, "accepted, though altered"), (lambda data: data[99], "IndexError")):
        tally = fuzz.run_target(Target("bad", parse, lambda _rng: b"x", honest=frozenset([b"y"])), 3, 1)
        assert len(tally.crashes) == 1
        assert what in next(iter(tally.crashes))


# -- found by earlier runs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", ["é", "\u2028", "AA\u00b2="])
def test_an_envelope_with_letters_base64_lacks(payload: str, tmp_path: Path) -> None:
    """An enrolment form and an answer whose payload is not ASCII ended in a defect."""
    samples = Samples(tmp_path)
    envelope = canonical.encode({"payload": payload, "payloadType": "x", "signatures": []})
    for check in (lambda: claimed_site(envelope), lambda: check_answer(envelope, samples.form, samples.plain_form)):
        with pytest.raises(FormatError):
            check()


def test_a_csv_with_old_line_ends_and_endless_fields_is_read_as_far_as_it_goes() -> None:
    """A lone carriage return, or a field without end, stopped scoring: the file stayed first in the spool for ever."""
    good = "time,pump,speed_rpm\r1700000000000,P-101A,5\r1700000060000,P-101A,6\r"
    found = parse_spool("a.csv", good.encode())
    assert found.frames["p-101a"].values[:, 0].tolist() == [5.0, 6.0]
    endless = 'time,pump,speed_rpm\n1700000000000,P-101A,5\n1,P,"' + "9" * 200_000 + "\n1700000060000,P-101A,6\n"
    found = parse_spool("a.csv", endless.encode())
    assert found.refused_rows >= 1
    assert found.frames["p-101a"].values[0, 0] == 5.0
    with pytest.raises(FormatError):
        parse_spool("a.csv", b'"' + b"x" * 200_000)


def test_two_signatures_in_another_order(tmp_path: Path) -> None:
    """Tampered: a downgrade word whose two signatures changed places was taken as another file of the same meaning."""
    samples = Samples(tmp_path)
    plain = json.loads(samples.envelopes["downgrade"])
    plain["signatures"].reverse()
    with pytest.raises(FormatError, match="canonical form"):
        verify_downgrade(canonical.encode(plain), samples.verified.trusted, "gannet")
    assert (
        verify_downgrade(samples.envelopes["downgrade"], samples.verified.trusted, "gannet").word.device == "gannet-d1"
    )


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000])
def test_a_toml_number_of_thousands_of_digits(tmp_path: Path, number: str) -> None:
    """Huge-integer in files that people write: named by file and line, not a defect."""
    for name, load in (
        ("fleet.toml", lambda: load_fleet(tmp_path)),
        ("policies.toml", lambda: load_policies(tmp_path)),
    ):
        (tmp_path / name).write_text(f"format = {number}\n", encoding="utf-8")
        with pytest.raises(InputError, match=name):
            load()


@pytest.mark.parametrize("shape", [[0, 2**53 - 1, 2**53 - 1], [2**31, 2**31, 2**31, 0]])
def test_an_empty_array_of_a_giant_shape(shape: list[int]) -> None:
    """Huge integer: no bytes at all, and a shape that no memory holds."""
    data = b"PDA1" + canonical.encode({"a": {"dtype": "float32", "shape": shape}}) + b"\n"
    with pytest.raises(FormatError, match="shape"):
        decode_arrays(data, "golden", max_bytes=1000)


@pytest.mark.parametrize(
    "header",
    [
        {"v": 1, "id": 1, "op": "o" * 65_000},
        {"v": "x" * 65_000, "id": 1, "op": "hello"},
        {"v": 1, "id": 1, "op": "have", "digest": ["d" * 65_000], "bytes": 1},
        {"v": True, "id": 1, "op": "status"},
    ],
)
def test_a_header_that_fills_its_frame_is_answered(header: dict[str, Any]) -> None:
    """The answer repeated what was asked, grew over its own limit and ended the conversation."""
    (answer,) = FrameDecoder().feed(answer_frame(None, Frame(header, b"")))  # type: ignore[arg-type]
    assert answer.header["ok"] is False
    assert answer.header["error"]["exit_code"] in (2, 5)


def test_an_item_of_less_than_nothing() -> None:
    """A length below zero moved the reader back over bytes it had read."""
    item = {"kind": "alarm", "digest": canonical.digest(b""), "bytes": -3}
    with pytest.raises(FormatError, match="less than nothing"):
        parse_collect({"items": [item]}, struct.pack(">I", 3) + b"xyz")


@pytest.mark.parametrize("at_ms", [2**53 - 1, -(2**53) + 1, 2**63, 253_402_300_800_000, -62_135_596_800_001])
def test_a_time_that_no_calendar_holds_is_still_written(at_ms: int) -> None:
    """A device with a broken clock made every list that shows it fall over."""
    assert format_ms(at_ms) == f"{at_ms} ms"
    assert format_ms(253_402_300_799_000) == "9999-12-31T23:59:59Z"
    assert np.isfinite(at_ms)


@pytest.mark.parametrize("name", ["", ".", "../x", "/x", "a\\b", "c:x", "a//../../b"])
def test_a_wheel_with_a_name_that_is_none(name: str) -> None:
    """`..`, absolute, backslash, empty: nothing is unpacked, and the first two fell over."""
    data = zip_of({name or "x": b"1", "heron/__init__.py": b"2"}, zipfile.ZIP_STORED)
    data = data if name else data.replace(b"x", b"\0")
    with pytest.raises((FormatError, DamagedError)):
        list(read_zip(data, "wheel", 1000))


@pytest.mark.parametrize("members", [{"a": b"1", "a/b": b"2"}, {"a/b": b"1", "a": b"2"}, {"a": b"1", "./a": b"2"}])
def test_a_wheel_that_holds_a_name_twice(members: dict[str, bytes]) -> None:
    """A file that is a folder too ended the installation in a defect."""
    with pytest.raises(FormatError, match="twice"):
        list(read_zip(zip_of(members, zipfile.ZIP_DEFLATED), "wheel", 1000))


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_wheel_packed_in_a_way_that_unfolds_at_once(kind: int) -> None:
    """Zip bomb: these are unpacked whole before the stated length counts."""
    with pytest.raises(FormatError, match="another way"):
        list(read_zip(zip_of({"a": bytes(1000)}, kind), "wheel", 1000))


def test_a_wheel_that_says_less_than_it_unfolds_to() -> None:
    """Zip bomb: a stated length of 10 for a member of a megabyte; what is read is what was stated, and the checksum tells."""
    data = zip_of({"a": bytes(1 << 20)}, zipfile.ZIP_DEFLATED).replace(struct.pack("<I", 1 << 20), struct.pack("<I", 10))
    with pytest.raises(DamagedError):
        list(read_zip(data, "wheel", 1000))
    with pytest.raises(TooLargeError):
        list(read_zip(zip_of({"a": bytes(2000)}, zipfile.ZIP_DEFLATED), "wheel", 1000))


@pytest.mark.parametrize("name", [7, None, ["a" * 64], True])
def test_a_snapshot_whose_digests_are_no_texts(name: object) -> None:
    """Any manifest out of a file or another workspace."""
    with pytest.raises(FormatError, match="no manifest"):
        SnapshotManifest.parse(canonical.encode({"gannet/P-101A": name}), "manifest")


@pytest.mark.parametrize("text", ["pump,start,end,verdict\rP-1,1,2,x\r", 'pump,start,end,verdict\nP-1,"' + "9" * 200_000])
def test_labels_with_old_line_ends_or_an_endless_field(text: str, tmp_path: Path) -> None:
    """Both ended in a defect; now the line is named."""
    (tmp_path / "labels.csv").write_bytes(text.encode())
    workspace: Any = SimpleNamespace(fs=RealFileSystem(), fleet=SimpleNamespace(pump=_no_pump))
    with pytest.raises(InputError, match=r"labels.csv:\d"):
        _parse_labels(workspace, tmp_path / "labels.csv")


def _no_pump(name: str) -> None:
    raise NotFoundError("no such pump", name)


@pytest.mark.parametrize("record", [{}, [], "x", {"lineage": []}, {"lineage": {"snapshot_digest": 7}}])
def test_an_exported_run_whose_record_is_of_another_shape(record: object, tmp_path: Path) -> None:
    """Whoever writes the file writes its head too: a record without lineage, a list, a text ended in a defect."""
    members = run_members(Samples(tmp_path), default_pipeline(make_fleet(tmp_path).pump_types["esp"]))
    data = canonical.encode(record)
    head = {"format": 1, "run": canonical.digest(data), "content": "e" * 64, "version": 1}
    path = tmp_path / "run.tar"
    path.write_bytes(tar_of({**members, "run.json": data, "head.json": canonical.encode(head)}))
    with pytest.raises(FormatError, match="run record"):
        read_whole_run(path)


def test_a_sparse_member_of_an_exported_run_is_not_unfolded(tmp_path: Path) -> None:
    """Sparse: a file of 10 kB that says it is a terabyte was read into memory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("chunks/x")
        info.pax_headers = {"GNU.sparse.map": "0,4", "GNU.sparse.size": str(1 << 40)}
        info.size = 4
        tar.addfile(info, io.BytesIO(b"abcd"))
    (tmp_path / "run.tar").write_bytes(out.getvalue())
    with pytest.raises(DamagedError, match="holds what no exported run holds"):
        read_whole_run(tmp_path / "run.tar")
