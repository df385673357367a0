"""Names, times and errors: the small things that everything else says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pumpdeck_fleet.core import errors
from pumpdeck_fleet.core.clock import FixedClock, SystemClock, format_ms, parse_ms
from pumpdeck_fleet.core.errors import FormatError, IllegalMoveError, PumpdeckError, UnreachableError
from pumpdeck_fleet.core.ids import check_digest, check_name, check_tag, is_name, pump_id, split_pump_id

YEAR_9999_MS = 253_402_300_799_999


@pytest.mark.parametrize("name", ["a", "gannet-d1", "a.b_c-d", "0", "x" * 64, "console", "com", "nul1x"])
def test_names_that_are_safe_everywhere(name: str) -> None:
    assert is_name(name)
    assert check_name(name, "site") == name


@pytest.mark.parametrize(
    "name",
    ["", "A", "a b", "a/b", "a\\b", "../a", "a..b", ".a", "a.", "-a", "ä", "x" * 65, "con", "nul", "com1", "lpt9.t", "a\n"],
)
def test_names_that_some_file_system_would_misread(name: str) -> None:
    assert not is_name(name)
    with pytest.raises(FormatError, match="site"):
        check_name(name, "site")


@pytest.mark.parametrize("tag", ["P-101A", "p", "W.7_b", "9", "T" * 32])
def test_tags(tag: str) -> None:
    assert check_tag(tag, "tag") == tag
    assert split_pump_id(pump_id("gannet", tag)) == ("gannet", tag)


@pytest.mark.parametrize("tag", ["", "P 101", "P/101", "T" * 33, "..", "a..b", "P-101.", "NUL", "Con.x", "ß"])
def test_tags_that_cannot_be(tag: str) -> None:
    with pytest.raises(FormatError):
        check_tag(tag, "tag")


@pytest.mark.parametrize("identity", ["gannet", "/P-1", "gannet/", "Gannet/P-1", "a/b/c"])
def test_pump_identities_that_cannot_be(identity: str) -> None:
    with pytest.raises(FormatError):
        split_pump_id(identity)


@pytest.mark.parametrize("digest", ["", "a" * 63, "A" * 64, "g" * 64, "a" * 65])
def test_digests_that_cannot_be(digest: str) -> None:
    with pytest.raises(FormatError):
        check_digest(digest, "package")
    assert check_digest("0" * 64, "package") == "0" * 64


@given(st.integers(-62_135_596_800_000, YEAR_9999_MS))
def test_a_time_comes_back(at_ms: int) -> None:
    assert parse_ms(format_ms(at_ms)) == at_ms


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01 00:00:00+00:00", 0),
        ("1970-01-01t01:00:00+01:00", 0),
        ("1969-12-31T23:59:59.999Z", -1),
        ("2026-01-31T06:00:00.5Z", 1769839200500),
        ("2026-01-31T06:00:00.123456789Z", 1769839200123),
        (" 2026-01-31T06:00:00Z ", 1769839200000),
    ],
)
def test_times_in_every_spelling(text: str, at_ms: int) -> None:
    assert parse_ms(text) == at_ms


@pytest.mark.parametrize(
    "text",
    ["", "2026-01-31", "2026-01-31T06:00:00", "2026-02-30T06:00:00Z", "2026-01-31T25:00:00Z", "31.01.2026 06:00:00Z", "now", "0"],
)
def test_texts_that_are_no_time(text: str) -> None:
    with pytest.raises(FormatError, match="started"):
        parse_ms(text, "started")


def test_clocks() -> None:
    clock = FixedClock(5)
    clock.advance(-3)
    assert clock.now_ms() == 2
    assert SystemClock().now_ms() > 1_700_000_000_000


def leaves(kind: type[PumpdeckError]) -> list[type[PumpdeckError]]:
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in leaves(child))]


def test_every_error_has_an_exit_code_of_the_table() -> None:
    codes = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert codes == {1, 2, 3, 4, 5, 6, 7, 130}
    for kind in leaves(PumpdeckError):
        assert kind.exit_code in codes, kind


def test_an_error_says_what_which_expected_found_and_what_now() -> None:
    error = errors.DigestMismatchError("is not what was promised", "a.onnx", expected="ab", found="cd", hint="copy it again")
    assert str(error) == "a.onnx: is not what was promised; expected ab; found cd. Copy it again"
    assert json.loads(json.dumps(error.as_dict())) == {
        "error": "DigestMismatchError",
        "what": "is not what was promised",
        "which": "a.onnx",
        "expected": "ab",
        "found": "cd",
        "hint": "copy it again",
        "exit_code": 5,
    }


def test_an_error_is_one_line_whatever_it_was_given() -> None:
    assert "\n" not in str(errors.InputError("bad\nthing", "x\ty", found="a\r\nb"))


def test_errors_say_whether_trying_again_can_help() -> None:
    assert UnreachableError("gone", "d1").retryable
    assert not UnreachableError("wrong host key", "d1", retryable=False).retryable
    assert errors.BusyError("busy").retryable
    assert not errors.ConflictError("changed").retryable
    assert "leads out of A" in str(IllegalMoveError("A", "B"))
