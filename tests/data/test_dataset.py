"""Data sets: reading directories of IDX files, validation of the arrays, validation split."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from handgrad.data import load, synthetic
from handgrad.data.dataset import FILES, Dataset, read_dataset
from handgrad.data.idx import write_idx
from handgrad.errors import HandgradError


@pytest.fixture
def arrays():
    """Twelve training images and five test images of 5x4 pixels in three classes."""
    rng = np.random.default_rng(7)
    return {
        "x_train": rng.integers(0, 256, (12, 5, 4), np.uint8),
        "y_train": np.arange(12, dtype=np.uint8) % 3,
        "x_test": rng.integers(0, 256, (5, 5, 4), np.uint8),
        "y_test": np.arange(5, dtype=np.uint8) % 3,
    }


def write(directory, arrays, rename=lambda name: name):
    directory.mkdir(exist_ok=True)
    for field, array in arrays.items():
        write_idx(directory / rename(FILES[field]), array)
    return directory


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name,
        lambda name: f"{name}.gz",
        lambda name: name.replace("-idx", ".idx"),
        lambda name: name.replace("-idx", ".idx") + ".gz",
    ],
    ids=["plain", "gz", "dotted", "dotted gz"],
)
def test_read_dataset_accepts_all_file_names(tmp_path, arrays, rename):
    dataset = read_dataset(str(write(tmp_path / "clothes", arrays, rename)))
    for field, array in arrays.items():
        np.testing.assert_array_equal(getattr(dataset, field), array, strict=True)
    assert dataset.name == "clothes"
    assert dataset.classes == ("0", "1", "2")


def test_load_reads_a_directory(tmp_path, arrays):
    dataset = load(str(write(tmp_path / "clothes", arrays)))
    np.testing.assert_array_equal(dataset.x_test, arrays["x_test"], strict=True)
    assert dataset.name == "clothes"


def test_labels_may_be_integers_of_any_type(tmp_path, arrays):
    wide = arrays | {name: arrays[name].astype(np.int32) for name in ("y_train", "y_test")}
    found, expected = load(write(tmp_path / "wide", wide)), load(write(tmp_path / "bytes", arrays))
    assert found.classes == expected.classes == ("0", "1", "2")
    assert np.array_equal(found.y_test, expected.y_test)


def test_load_synthetic_renders_digits(monkeypatch):
    arrays = synthetic.synthetic_digits(20, 10)
    monkeypatch.setattr(synthetic, "synthetic_digits", lambda: arrays)
    dataset = load("synthetic")
    assert dataset.x_train is arrays[0]
    assert dataset.name == "synthetic digits"
    assert dataset.classes == tuple("0123456789")


def test_read_dataset_ignores_directories_with_the_names_of_the_files(tmp_path, arrays):
    directory = write(tmp_path, arrays, lambda name: name.replace("-idx", ".idx"))
    for name in FILES.values():
        (directory / name).mkdir()
    np.testing.assert_array_equal(read_dataset(directory).x_train, arrays["x_train"])


def test_read_dataset_names_all_missing_files(tmp_path, arrays):
    write(tmp_path, {field: arrays[field] for field in ("x_train", "y_test")})
    with pytest.raises(HandgradError, match=r"does not contain train-labels-idx1-ubyte, t10k-images-idx3-ubyte: add"):
        read_dataset(tmp_path)


def test_read_dataset_names_the_damaged_file(tmp_path, arrays):
    path = write(tmp_path, arrays) / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(HandgradError, match=r"^t10k-labels-idx1-ubyte is truncated"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y_train": np.arange(11, dtype=np.uint8) % 3}, "x_train has 12 images and y_train has 11 labels"),
        ({"y_test": np.zeros(6, np.uint8)}, "x_test has 5 images and y_test has 6 labels"),
        (
            {"y_test": np.array([0, 1, 3, 0, 1], np.uint8)},
            "y_test contains the label 3: expected those of the training set, 0, 1, 2",
        ),
        ({"x_test": np.zeros((5, 4, 5), np.uint8)}, "x_train has 5x4 pixels and x_test 4x5 pixels"),
        ({"x_train": np.zeros((12, 20), np.uint8)}, r"x_train is uint8 of shape \(12, 20\)"),
        ({"x_train": np.zeros((12, 5, 4), np.float32)}, "x_train is float32"),
        ({"y_train": np.full(12, np.nan, np.float64)}, "y_train is float64"),
        ({"y_train": np.zeros((12, 1), np.uint8)}, r"y_train is uint8 of shape \(12, 1\)"),
        ({"x_train": np.zeros((0, 5, 4), np.uint8), "y_train": np.zeros(0, np.uint8)}, "x_train .* is empty"),
        ({"x_test": np.zeros((0, 5, 4), np.uint8), "y_test": np.zeros(0, np.uint8)}, "x_test .* is empty"),
        ({"x_train": np.zeros((12, 0, 0), np.uint8), "x_test": np.zeros((5, 0, 0), np.uint8)}, "is empty"),
    ],
)
def test_read_dataset_rejects_inconsistent_arrays(tmp_path, arrays, change, message):
    with pytest.raises(HandgradError, match=message) as caught:
        read_dataset(write(tmp_path, arrays | change))
    assert "\n" not in str(caught.value)


def test_dataset_rejects_a_label_without_a_class(arrays):
    Dataset(**arrays, name="kinds", classes=("shirt", "shoe", "bag"))
    with pytest.raises(HandgradError, match=r"y_train contains the label 2, but there are 2 classes: .* from 0 to 1"):
        Dataset(**arrays, name="kinds", classes=("shirt", "shoe"))


def test_split_uses_the_last_training_examples_for_validation(arrays):
    dataset = Dataset(**arrays, name="kinds", classes=("0", "1", "2"))
    (x, y), (x_validation, y_validation), (x_test, y_test) = dataset.split(validation=3)
    np.testing.assert_array_equal(x, arrays["x_train"][:9])
    np.testing.assert_array_equal(y, arrays["y_train"][:9])
    np.testing.assert_array_equal(x_validation, arrays["x_train"][9:])
    np.testing.assert_array_equal(y_validation, arrays["y_train"][9:])
    assert x_test is arrays["x_test"]
    assert y_test is arrays["y_test"]


@pytest.mark.parametrize("validation", [-1, 0, 12, 1.5, "a"])
def test_split_rejects_numbers_out_of_range_and_other_values(arrays, validation):
    dataset = Dataset(**arrays, name="kinds", classes=("0", "1", "2"))
    message = f"cannot use {validation!r} of the 12 training images for validation: expected 1 to 11"
    with pytest.raises(HandgradError, match=message):
        dataset.split(validation)


def test_dataset_is_immutable(arrays):
    dataset = Dataset(**arrays, name="kinds", classes=("0", "1", "2"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.name = "other"


def test_repr_summarizes_the_dataset_in_one_line() -> None:
    images, labels = np.zeros((3, 4, 5), np.uint8), np.zeros(3, np.uint8)
    dataset = Dataset(images, labels, images[:2], labels[:2], "mine", ("a", "b"))
    assert repr(dataset) == "mine: 3 training images, 2 test images, 4x5 pixels, 2 classes"
