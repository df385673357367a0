import pytest
from hypothesis import given
from hypothesis import strategies as st

from pumpdeck_fleet.core.errors import FormatError
from pumpdeck_fleet.numeric.varint import VarintReader, write_signed, write_unsigned


@given(st.lists(st.integers(0, 2**63 - 1)), st.lists(st.integers(-(2**62), 2**62 - 1)))
def test_numbers_come_back(plain: list[int], signed: list[int]) -> None:
    reader = VarintReader(write_unsigned(plain) + write_signed(signed), "test")
    assert reader.unsigned(len(plain)) == plain
    assert reader.signed(len(signed)) == signed
    reader.finish()


@given(st.binary(max_size=30), st.integers(1, 5))
def test_bytes_are_refused_or_read_back_to_the_same_bytes(data: bytes, count: int) -> None:
    reader = VarintReader(data, "test")
    try:
        numbers = reader.unsigned(count)
    except FormatError:
        return
    assert write_unsigned(numbers) == data[: reader.offset]


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x00", b"\xff" * 10 + b"\x01", b"\xff" * 9 + b"\x7f"])
def test_cut_padded_and_endless_numbers_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        VarintReader(data, "test").unsigned(1)


def test_a_number_out_of_its_range_and_bytes_left_over_are_refused() -> None:
    with pytest.raises(FormatError, match="out of range"):
        VarintReader(b"\x05", "test").one(0, 4)
    with pytest.raises(FormatError, match="after its end"):
        VarintReader(b"\x05", "test").finish()
