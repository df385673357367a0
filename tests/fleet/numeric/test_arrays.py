import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pumpdeck_fleet.core.errors import FormatError, TooLargeError
from pumpdeck_fleet.numeric.arrays import DTYPES, decode_arrays, encode_arrays

MAX = 1_000_000
ARRAYS = st.dictionaries(
    st.text("abc_xyz", min_size=1, max_size=8),
    st.sampled_from(DTYPES).flatmap(
        lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    ),
    max_size=4,
)


@given(ARRAYS)
def test_what_is_decoded_is_what_was_encoded_whatever_the_order_of_names(arrays: dict[str, np.ndarray]) -> None:
    data = encode_arrays(arrays)
    again = decode_arrays(data, "test", max_bytes=MAX)
    assert set(again) == set(arrays)
    assert all(
        again[name].tobytes() == array.tobytes() and again[name].shape == array.shape for name, array in arrays.items()
    )
    assert encode_arrays(dict(reversed(arrays.items()))) == data


@given(st.binary(max_size=60))
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_arrays(b"PDA1" + data + b"?", "test", max_bytes=MAX)


def test_a_cut_or_padded_container_is_refused() -> None:
    data = encode_arrays({"a": np.arange(3, dtype=np.int64)})
    for wrong in (data[:-1], data + b"\0", data[:10], b"", b"PDA2" + data[4:]):
        with pytest.raises(FormatError):
            decode_arrays(wrong, "test", max_bytes=MAX)


def test_a_header_that_says_more_than_there_is_takes_no_memory() -> None:
    with pytest.raises(FormatError, match="cut"):
        decode_arrays(b'PDA1{"a":{"dtype":"float64","shape":[9000000000]}}\n', "test", max_bytes=MAX)


def test_a_container_over_its_limit_is_refused() -> None:
    with pytest.raises(TooLargeError):
        decode_arrays(encode_arrays({"a": np.zeros(100)}), "test", max_bytes=100)


def test_objects_are_never_encoded() -> None:
    with pytest.raises(FormatError):
        encode_arrays({"a": np.array([object()])})
