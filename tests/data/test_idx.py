"""IDX files: round trips, damaged files, gzip, atomic writing."""

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

from handgrad.data.idx import decompress, encode_idx, gunzip, parse_idx, read_idx, write_idx
from handgrad.errors import HandgradError
from handgrad.io.atomic import replacing

TYPES = ("uint8", "int8", "int16", "int32", "float32", "float64")

# A 2x3 array of int16, written by hand from the description of the format.
VALID = bytes.fromhex("00 00 0b 02  00 00 00 02  00 00 00 03  0001 0002 0003  ffff 7fff 8000")
NUMBERS = np.array([[1, 2, 3], [-1, 32767, -32768]], np.int16)


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    dtype = np.dtype(draw(st.sampled_from(TYPES))).newbyteorder(draw(st.sampled_from("<>")))
    return draw(npst.arrays(dtype, npst.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=5)))


# ------------------------------------------------------------------------------------------------ valid files


def test_hand_written_file_is_parsed_and_encoded():
    array = parse_idx(VALID, "numbers")
    np.testing.assert_array_equal(array, NUMBERS)
    assert array.dtype == np.dtype("int16")
    assert encode_idx(NUMBERS) == VALID


@settings(deadline=None)
@given(arrays())
def test_encode_then_parse_returns_the_same_array(array):
    result = parse_idx(encode_idx(array), "array")
    assert result.dtype == array.dtype.newbyteorder("=")
    assert result.dtype.isnative
    assert result.shape == array.shape
    assert result.tobytes() == array.astype(result.dtype).tobytes()  # as bytes: NaN is not equal to NaN


def test_parsed_array_is_writable():
    array = parse_idx(encode_idx(np.zeros(3, np.uint8)), "array")
    array[0] = 1  # np.frombuffer alone returns a read-only view


def test_elements_are_written_in_c_order_for_any_memory_layout():
    assert encode_idx(np.asfortranarray(NUMBERS)) == VALID
    assert encode_idx(NUMBERS[::-1][::-1]) == VALID


@pytest.mark.parametrize("suffix", ["", ".gz", ".idx"])
def test_write_then_read_returns_the_same_array(tmp_path, suffix):
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    path = tmp_path / f"some-idx3{suffix}"
    write_idx(path, array)
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == (suffix == ".gz")
    np.testing.assert_array_equal(read_idx(str(path)), array, strict=True)


def test_gzip_is_recognized_by_the_first_bytes_not_by_the_name(tmp_path):
    (tmp_path / "zipped").write_bytes(gzip.compress(VALID))
    (tmp_path / "plain.gz").write_bytes(VALID)
    np.testing.assert_array_equal(read_idx(tmp_path / "zipped"), NUMBERS)
    np.testing.assert_array_equal(read_idx(tmp_path / "plain.gz"), NUMBERS)


def test_gunzip_reads_several_members():
    assert gunzip(gzip.compress(VALID[:9]) + gzip.compress(VALID[9:]), "numbers") == VALID


def test_gzipped_bytes_do_not_depend_on_the_time(tmp_path, monkeypatch):
    write_idx(tmp_path / "one.gz", NUMBERS)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    write_idx(tmp_path / "two.gz", NUMBERS)
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()


# ---------------------------------------------------------------------------------------------- invalid files


def header(code: int, *shape: int) -> bytes:
    return struct.pack(f">4B{len(shape)}I", 0, 0, code, len(shape), *shape)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "not an IDX file"),
        (b"\0\0\x08", "not an IDX file"),
        (b"\x01" + VALID[1:], "not an IDX file.*'01 00 0b 02'"),
        (b"\0\x01" + VALID[2:], "not an IDX file.*'00 01 0b 02'"),
        (b"<!DOCTYPE html>", "not an IDX file"),
        (header(0x0A, 1) + b"\0", "IDX dtype code 0a"),
        (header(0x00, 1) + b"\0", "IDX dtype code 00"),
        (header(0x08) + b"\0", "0 dimensions"),
        (header(0x08, *[1] * 65) + b"\0", "65 dimensions"),
        (header(0x08, *[1] * 255) + b"\0", "255 dimensions"),
        (VALID[:4], "truncated within its header: it has 4 bytes, expected at least 12"),
        (VALID[:11], "truncated within its header: it has 11 bytes, expected at least 12"),
        (VALID[:-1], "truncated: it has 23 bytes, expected 24 for int16 of shape \\(2, 3\\)"),
        (VALID[:12], "truncated: it has"),
        (VALID + b"\0", "extra bytes at the end: it has 25 bytes, expected 24"),
        (VALID + VALID, "extra bytes at the end"),
        (header(0x08, 0) + b"\0", "extra bytes at the end"),
        (header(0x0E, *[0xFFFFFFFF] * 3), "too large for any memory"),
        (header(0x08, *[0xFFFFFFFF] * 64), "too large for any memory"),
        (header(0x08, 0, *[0xFFFFFFFF] * 3), "too large for any memory"),
        (header(0x0E, 0, 1 << 31, 1 << 29), "too large for any memory"),  # 2^60 elements, 2^63 bytes: one too many
        (header(0x08, 0xFFFFFFFF, 0x7FFFFFFF), "truncated: it has"),
    ],
)
def test_parse_idx_rejects_invalid_files(payload, message):
    with pytest.raises(HandgradError, match=f"^some-file .*{message}") as caught:
        parse_idx(payload, "some-file")
    assert "\n" not in str(caught.value)


@settings(deadline=None)
@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: b"\0\0" + tail))
def test_arbitrary_bytes_are_rejected_or_round_trip(data):
    assert_rejected_or_round_trips(data)


@settings(deadline=None)
@given(arrays(), st.data())
def test_truncated_files_are_rejected(array, data):
    payload = encode_idx(array)
    with pytest.raises(HandgradError):
        parse_idx(payload[: data.draw(st.integers(0, len(payload) - 1))], "array")


@settings(deadline=None)
@given(arrays(), st.data())
def test_files_with_a_flipped_bit_are_rejected_or_round_trip(array, data):
    assert_rejected_or_round_trips(flipped(encode_idx(array), data))


@settings(deadline=None)
@given(arrays(), st.data())
def test_damaged_gzip_files_never_give_a_different_array(array, data):
    payload = encode_idx(array)
    zipped = gzip.compress(payload)
    damaged = (
        flipped(zipped, data) if data.draw(st.booleans()) else zipped[: data.draw(st.integers(0, len(zipped) - 1))]
    )
    try:
        result = parse_idx(decompress(damaged, "array"), "array")
    except HandgradError:
        return
    assert encode_idx(result) == payload  # the flipped bit has no effect, such as one of the time stamp


def flipped(payload: bytes, data: st.DataObject) -> bytes:
    bit = data.draw(st.integers(0, 8 * len(payload) - 1))
    damaged = bytearray(payload)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def assert_rejected_or_round_trips(data: bytes) -> None:
    """If parsing succeeds, encoding the array again gives the same bytes."""
    try:
        array = parse_idx(data, "data")
    except HandgradError:
        return
    assert encode_idx(array) == data


@pytest.mark.parametrize("cut", [2, 9, 15, -8, -1])
def test_truncated_gzip_data_is_rejected(cut):
    with pytest.raises(HandgradError, match=r"^some-file is a damaged gzip file"):
        decompress(gzip.compress(VALID)[:cut], "some-file")


def test_gzip_data_with_a_wrong_checksum_is_rejected():
    zipped = bytearray(gzip.compress(VALID))
    zipped[-8] ^= 1  # the CRC of the contents
    with pytest.raises(HandgradError, match="damaged gzip file"):
        decompress(bytes(zipped), "some-file")


def test_gzip_data_with_extra_bytes_is_rejected():
    with pytest.raises(HandgradError, match="damaged gzip file"):
        decompress(gzip.compress(VALID) + b"more", "some-file")


def test_decompression_bomb_does_not_fill_the_memory():
    bomb = gzip.compress(bytes(30_000_000))
    tracemalloc.start()
    with pytest.raises(HandgradError, match="bomb decompresses to more than 1000 bytes"):
        gunzip(bomb, "bomb", limit=1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_gunzip_allows_exactly_the_limit():
    zipped = gzip.compress(VALID)
    assert gunzip(zipped, "numbers", limit=len(VALID)) == VALID
    with pytest.raises(HandgradError, match="more than"):
        gunzip(zipped, "numbers", limit=len(VALID) - 1)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3, np.int64), "do not support the dtype int64"),
        (np.zeros(3, np.uint16), "do not support the dtype uint16"),
        (np.array([None]), "do not support the dtype object"),
        (np.uint8(3), r"shape \(\)"),
        (np.empty((1 << 32, 0), np.uint8), "below 2\\^32"),
    ],
)
def test_write_idx_rejects_unsupported_arrays(tmp_path, array, message):
    with pytest.raises(HandgradError, match=message):
        write_idx(tmp_path / "array", array)
    assert list(tmp_path.iterdir()) == []


def test_missing_files_and_directories_raise(tmp_path):
    with pytest.raises(HandgradError, match=r"cannot read .*nowhere: No such file"):
        read_idx(tmp_path / "nowhere")
    with pytest.raises(HandgradError, match="cannot read"):
        read_idx(tmp_path)
    with pytest.raises(HandgradError, match=r"cannot write .*such: No such file"):
        write_idx(tmp_path / "no" / "such", NUMBERS)


# --------------------------------------------------------------------------------------------- atomic writing


def test_new_file_is_flushed_to_disk_before_it_replaces_the_old_one(tmp_path, monkeypatch):
    order: list[str] = []
    monkeypatch.setattr("os.fsync", lambda handle: order.append("fsync"))
    monkeypatch.setattr("os.replace", lambda old, new: order.append("replace"))
    write_idx(tmp_path / "file", NUMBERS)
    assert order == ["fsync", "replace"]


def test_two_writers_of_one_file_do_not_interfere(tmp_path):
    path = tmp_path / "file"
    with replacing(path) as one, replacing(path) as other:
        one.write(b"one")
        other.write(b"the other")
    assert path.read_bytes() == b"one"  # the last writer to finish
    assert list(tmp_path.iterdir()) == [path]


def test_written_file_has_the_usual_permissions(tmp_path):
    write_idx(tmp_path / "file", NUMBERS)
    (tmp_path / "usual").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "usual").stat().st_mode
