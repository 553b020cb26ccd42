"""Safetensors files: what is not a handgrad file is rejected with one line."""

import io
import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from handgrad import load
from handgrad.io.safetensors import FORMAT, read_arrays, read_tensors, write_arrays

ARRAYS = {"a": np.arange(6.0).reshape(2, 3), "b": np.int64([1, 2])}


def raw_file(header, data=b""):
    """A safetensors file byte by byte: the length of the header in eight bytes, the header, the data."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype, size):
    return {"0.weight": {"dtype": dtype, "shape": [2], "data_offsets": [0, size]}}


def with_metadata(text):
    return raw_file({"__metadata__": {"handgrad": text}, **tensor("F32", 8)}, bytes(8))


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", b"x")
    return buffer.getvalue()


def test_arrays_and_description_round_trip(tmp_path):
    write_arrays(tmp_path / "f", {**ARRAYS, "c": np.asfortranarray(ARRAYS["a"])}, {"note": "ü", "value": [1, None]})
    arrays, description = read_arrays(tmp_path / "f")
    np.testing.assert_equal(arrays, ARRAYS | {"c": ARRAYS["a"]})
    assert description == {"format": FORMAT, "note": "ü", "value": [1, None]}


def test_metadata_has_the_one_key_handgrad(tmp_path):
    write_arrays(tmp_path / "f", ARRAYS, {"note": 1})
    _, metadata = read_tensors(tmp_path / "f")
    assert set(metadata) == {"handgrad"}
    assert json.loads(metadata["handgrad"]) == {"format": 1, "note": 1}


NOT_SAFETENSORS, DAMAGED = "is not a safetensors file, or is incomplete", "is damaged: unreadable metadata"
INVALID = {
    "empty": (b"", NOT_SAFETENSORS),
    "ones": (b"\xff" * 400, NOT_SAFETENSORS),
    "random": (np.random.default_rng(0).bytes(3000), NOT_SAFETENSORS),
    "text": (b"a line of text\n" * 20, NOT_SAFETENSORS),
    **{f"pickle-{p}": (pickle.dumps({"weight": [1.0]}, p), "is a pickle or a zip of pickles") for p in (2, 5)},
    "zip": (zipped(), "is a pickle or a zip of pickles.*torch.load"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), r"is an HDF5 file, .*: expected a .safetensors or .keras file"),
    "no metadata": (safetensors.numpy.save({"w": np.zeros(2)}), "not a handgrad file: .* run handgrad import"),
    "PyTorch": (safetensors.numpy.save({"w": np.zeros(2)}, {"format": "pt"}), "not a handgrad file"),
    "bfloat16": (raw_file(tensor("BF16", 4), bytes(4)), "m.safetensors"),
    "huge empty array": (
        raw_file({"w": {"dtype": "F32", "shape": [0, 1 << 63], "data_offsets": [0, 0]}}),
        "m.safetensors has an array of a shape that NumPy does not support",
    ),
    "float8": (raw_file(tensor("F8_E4M3", 2), bytes(2)), "m.safetensors"),
    **{text: (with_metadata(text), DAMAGED) for text in ("", "{", "5", "[]", "{}")},
    "nested": (with_metadata("[" * 100_000), DAMAGED),
    "null": (with_metadata('{"format": null}'), "has format None: this version of handgrad reads format 1"),
    "infinity": (with_metadata('{"format": Infinity}'), "has format inf"),
    "later": (with_metadata(f'{{"format": {FORMAT + 1}}}'), "has format 2: this version of handgrad reads format 1"),
    "no model": (with_metadata('{"format": 1}'), "is not a model file: its metadata describes no model"),
}


@pytest.mark.parametrize(("content", "says"), INVALID.values(), ids=INVALID)
def test_file_that_is_not_a_model_file_is_rejected(content, says, tmp_path, rejects):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    for mmap in (False, True):
        with rejects(says) as caught:
            load(path, mmap=mmap)
        assert path.name in str(caught.value)


def test_keras_file_is_recognized(tmp_path, rejects):
    (tmp_path / "m.keras").write_bytes(zipped())
    with rejects("is a Keras file: convert it with handgrad import"):
        load(tmp_path / "m.keras")


def test_every_truncation_is_rejected(tmp_path, rejects):
    path = tmp_path / "f"
    write_arrays(path, ARRAYS, {})
    content = path.read_bytes()
    for length in [*range(12), *range(12, len(content), 7), len(content) - 1]:
        path.write_bytes(content[:length])
        with rejects("is not a safetensors file, or is incomplete|is a pickle"):
            read_arrays(path)


def test_bytes_after_the_end_are_rejected(tmp_path, rejects):
    path = tmp_path / "f"
    write_arrays(path, ARRAYS, {})
    path.write_bytes(path.read_bytes() + b"\0")
    with rejects(NOT_SAFETENSORS):
        read_arrays(path)


@pytest.mark.parametrize("length", [0x280, 0x380])
def test_header_whose_length_begins_like_a_pickle_is_read(length, tmp_path):
    def file(padding):
        note = json.dumps({"format": FORMAT, "note": "c" * padding})
        return safetensors.numpy.save(ARRAYS, {"handgrad": note})

    empty = struct.unpack("<Q", file(0)[:8])[0]
    for padding in range(length - empty - 16, length - empty + 1):  # a header is padded to 8 bytes
        (tmp_path / "f").write_bytes(file(padding))
        if (tmp_path / "f").read_bytes()[:2] == struct.pack("<H", length):
            break
    else:
        pytest.fail(f"no header has a length of {length}")
    assert read_arrays(tmp_path / "f")[1]["note"] == "c" * padding


def test_missing_file_and_directory_are_reported(tmp_path, rejects):
    with rejects("cannot read .*none: No such file"):
        read_arrays(tmp_path / "none")
    with rejects("cannot read .*: Is a directory"):
        read_arrays(tmp_path)
