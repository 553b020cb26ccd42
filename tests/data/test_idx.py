"""The IDX format: what is written is what is read, and whatever is not whole is refused in one line."""

from __future__ import annotations

import gzip
import struct
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from handgrad.atomic import replacing
from handgrad.data.idx import gunzipped, idx_payload, parse_idx, payload_of, read_idx, write_idx
from handgrad.errors import HandgradError

TYPES = ("uint8", "int8", "int16", "int32", "float32", "float64")

# Two rows of three numbers, each as int16: written out by hand from the description of the format.
WHOLE = bytes.fromhex("00 00 0b 02  00 00 00 02  00 00 00 03  0001 0002 0003  ffff 7fff 8000")
NUMBERS = np.array([[1, 2, 3], [-1, 32767, -32768]], np.int16)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    dtype = np.dtype(draw(st.sampled_from(TYPES))).newbyteorder(draw(st.sampled_from("<>")))
    return draw(npst.arrays(dtype, npst.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=5)))


# ------------------------------------------------------------------------------------------------ what is whole


def test_the_format_written_out_by_hand():
    array = parse_idx(WHOLE, "numbers")
    np.testing.assert_array_equal(array, NUMBERS)
    assert array.dtype == np.dtype("int16")
    assert idx_payload(NUMBERS) == WHOLE


@settings(deadline=None)
@given(arrays())
def test_round_trip(array):
    result = parse_idx(idx_payload(array), "array")
    assert result.dtype == array.dtype.newbyteorder("=")
    assert result.dtype.isnative
    assert result.shape == array.shape
    assert result.tobytes() == array.astype(result.dtype).tobytes()  # as bytes: NaN is not equal to NaN


def test_arrays_are_the_callers_own():
    array = parse_idx(idx_payload(np.zeros(3, np.uint8)), "array")
    array[0] = 1  # and not a view of bytes that nobody may change


def test_rows_are_written_in_order_whatever_the_memory_layout():
    assert idx_payload(np.asfortranarray(NUMBERS)) == WHOLE
    assert idx_payload(NUMBERS[::-1][::-1]) == WHOLE


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("suffix", ["", ".gz", ".idx"])
def test_files(tmp_path, dtype, suffix):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    path = tmp_path / f"some-idx3{suffix}"
    write_idx(path, array)
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == (suffix == ".gz")
    np.testing.assert_array_equal(read_idx(str(path)), array, strict=True)


def test_gzip_is_told_by_the_first_bytes_not_by_the_name(tmp_path):
    (tmp_path / "zipped").write_bytes(gzip.compress(WHOLE))
    (tmp_path / "plain.gz").write_bytes(WHOLE)
    np.testing.assert_array_equal(read_idx(tmp_path / "zipped"), NUMBERS)
    np.testing.assert_array_equal(read_idx(tmp_path / "plain.gz"), NUMBERS)


def test_gzip_in_several_members():
    assert gunzipped(gzip.compress(WHOLE[:9]) + gzip.compress(WHOLE[9:]), "numbers") == WHOLE


def test_the_same_array_gives_the_same_gzipped_bytes(tmp_path, monkeypatch):
    write_idx(tmp_path / "one.gz", NUMBERS)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    write_idx(tmp_path / "two.gz", NUMBERS)
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()


# ---------------------------------------------------------------------------------------------- what is refused


def header(code: int, *shape: int) -> bytes:
    return struct.pack(f">4B{len(shape)}I", 0, 0, code, len(shape), *shape)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x08", "not an IDX file"),
        (b"\x01" + WHOLE[1:], "not an IDX file.*'01 00 0b 02'"),
        (b"\0\x01" + WHOLE[2:], "not an IDX file.*'00 01 0b 02'"),
        (b"<!DOCTYPE html>", "not an IDX file"),
        (header(0x0A, 1) + b"\0", "IDX type 0a"),
        (header(0x00, 1) + b"\0", "IDX type 00"),
        (header(0x08) + b"\0", "0 dimensions"),
        (header(0x08, *[1] * 65) + b"\0", "65 dimensions"),
        (header(0x08, *[1] * 255) + b"\0", "255 dimensions"),
        (WHOLE[:4], "ends within its header, after 4 of 12"),
        (WHOLE[:11], "ends within its header, after 11 of 12"),
        (WHOLE[:-1], "cut off: it has 23 bytes, expected 24 for int16 of shape \\(2, 3\\)"),
        (WHOLE[:12], "cut off"),
        (WHOLE + b"\0", "followed by something else: it has 25 bytes, expected 24"),
        (WHOLE + WHOLE, "followed by something else"),
        (header(0x08, 0) + b"\0", "followed by something else"),
        (header(0x0E, *[0xFFFFFFFF] * 3), "no memory"),
        (header(0x08, *[0xFFFFFFFF] * 64), "no memory"),
        (header(0x08, 0, *[0xFFFFFFFF] * 3), "no memory"),
        (header(0x0E, 0, 1 << 31, 1 << 29), "no memory"),  # 2^60 elements of 8 bytes are 2^63 bytes, one too many
        (header(0x08, 0xFFFFFFFF, 0x7FFFFFFF), "cut off"),
    ],
)
def test_damage_is_named(payload, says):
    with pytest.raises(HandgradError, match=f"^some-file .*{says}") as caught:
        parse_idx(payload, "some-file")
    assert "\n" not in str(caught.value)


@settings(deadline=None)
@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: b"\0\0" + tail))
def test_any_bytes_are_refused_or_are_exactly_what_was_read(data):
    assert_refused_or_exact(data)


@settings(deadline=None)
@given(arrays(), st.data())
def test_cut_off_anywhere(array, data):
    payload = idx_payload(array)
    with pytest.raises(HandgradError):
        parse_idx(payload[: data.draw(st.integers(0, len(payload) - 1))], "array")


@settings(deadline=None)
@given(arrays(), st.data())
def test_any_bit_flipped(array, data):
    assert_refused_or_exact(flipped(idx_payload(array), data))


@settings(deadline=None)
@given(arrays(), st.data())
def test_any_bit_flipped_or_cut_off_under_gzip(array, data):
    payload = idx_payload(array)
    zipped = gzip.compress(payload)
    damaged = (
        flipped(zipped, data) if data.draw(st.booleans()) else zipped[: data.draw(st.integers(0, len(zipped) - 1))]
    )
    try:
        result = parse_idx(payload_of(damaged, "array"), "array")
    except HandgradError:
        return
    assert idx_payload(result) == payload  # the bit was one that says nothing, such as the time


def flipped(payload: bytes, data: st.DataObject) -> bytes:
    bit = data.draw(st.integers(0, 8 * len(payload) - 1))
    damaged = bytearray(payload)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def assert_refused_or_exact(data: bytes) -> None:
    """Reading loses nothing: what is accepted, written again, is the same bytes."""
    try:
        array = parse_idx(data, "data")
    except HandgradError:
        return
    assert idx_payload(array) == data


@pytest.mark.parametrize("cut", [2, 9, 15, -8, -1])
def test_gzip_cut_off(cut):
    with pytest.raises(HandgradError, match=r"^some-file is a damaged gzip file"):
        payload_of(gzip.compress(WHOLE)[:cut], "some-file")


def test_gzip_with_a_wrong_checksum():
    zipped = bytearray(gzip.compress(WHOLE))
    zipped[-8] ^= 1  # the CRC of the contents
    with pytest.raises(HandgradError, match="damaged gzip file"):
        payload_of(bytes(zipped), "some-file")


def test_gzip_followed_by_something_else():
    with pytest.raises(HandgradError, match="damaged gzip file"):
        payload_of(gzip.compress(WHOLE) + b"more", "some-file")


def test_a_decompression_bomb_is_not_unpacked():
    bomb = gzip.compress(bytes(30_000_000))
    tracemalloc.start()
    with pytest.raises(HandgradError, match="more than the 1000 bytes expected"):
        gunzipped(bomb, "bomb", limit=1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_the_limit_itself_is_allowed():
    zipped = gzip.compress(WHOLE)
    assert gunzipped(zipped, "numbers", limit=len(WHOLE)) == WHOLE
    with pytest.raises(HandgradError, match="more than"):
        gunzipped(zipped, "numbers", limit=len(WHOLE) - 1)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros(3, np.int64), "cannot hold int64"),
        (np.zeros(3, bool), "cannot hold bool"),
        (np.zeros(3, np.uint16), "cannot hold uint16"),
        (np.array(["digit"]), "cannot hold <U5"),
        (np.array([None]), "cannot hold object"),
        (np.uint8(3), r"shape \(\)"),
        (np.empty((1 << 32, 0), np.uint8), "below 2\\^32"),
    ],
)
def test_what_the_format_has_no_place_for(tmp_path, array, says):
    with pytest.raises(HandgradError, match=says):
        write_idx(tmp_path / "array", array)
    assert list(tmp_path.iterdir()) == []


def test_no_file_and_no_place(tmp_path):
    with pytest.raises(HandgradError, match="nowhere cannot be read: No such file"):
        read_idx(tmp_path / "nowhere")
    with pytest.raises(HandgradError, match="cannot be read"):
        read_idx(tmp_path)
    with pytest.raises(HandgradError, match="cannot be written: No such file"):
        write_idx(tmp_path / "no" / "such", NUMBERS)


# ------------------------------------------------------------------------------------------- whole or not at all


@pytest.mark.parametrize("failure", [OSError, KeyboardInterrupt])
def test_a_write_that_fails_changes_nothing(tmp_path, failure):
    path = tmp_path / "kept"
    path.write_bytes(b"old")

    def fail():
        with replacing(path) as file:
            file.write(b"half of the n")
            raise failure

    with pytest.raises(failure):
        fail()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"kept": b"old"}


def test_the_new_file_is_on_the_disk_before_the_old_one_goes(tmp_path, monkeypatch):
    order: list[str] = []
    monkeypatch.setattr("os.fsync", lambda handle: order.append("fsync"))
    monkeypatch.setattr("os.replace", lambda old, new: order.append("replace"))
    write_idx(tmp_path / "file", NUMBERS)
    assert order == ["fsync", "replace"]


def test_two_may_write_the_same_file_at_once(tmp_path):
    path = tmp_path / "file"
    with replacing(path) as one, replacing(path) as other:
        one.write(b"one")
        other.write(b"the other")
    assert path.read_bytes() == b"one"  # the last to finish
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_what_is_written(tmp_path):
    write_idx(tmp_path / "file", NUMBERS)
    (tmp_path / "usual").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "usual").stat().st_mode
