"""Any four IDX files that fit together are a set; whatever does not fit is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from handgrad.data.dataset import FILES, Dataset, read_dataset
from handgrad.data.idx import write_idx
from handgrad.errors import HandgradError


@pytest.fixture
def arrays():
    """Twelve pictures of 5 by 4 to train on and five to test on, of three kinds."""
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
def test_any_set_in_the_format(tmp_path, arrays, rename):
    dataset = read_dataset(str(write(tmp_path / "clothes", arrays, rename)))
    for field, array in arrays.items():
        np.testing.assert_array_equal(getattr(dataset, field), array, strict=True)
    assert dataset.name == "clothes"
    assert dataset.classes == ("0", "1", "2")


def test_names_as_in_the_archive_that_has_directories_of_the_same_names(tmp_path, arrays):
    directory = write(tmp_path, arrays, lambda name: name.replace("-idx", ".idx"))
    for name in FILES.values():
        (directory / name).mkdir()
    np.testing.assert_array_equal(read_dataset(directory).x_train, arrays["x_train"])


def test_all_missing_files_are_named(tmp_path, arrays):
    write(tmp_path, {field: arrays[field] for field in ("x_train", "y_test")})
    with pytest.raises(HandgradError, match=r"holds no train-labels-idx1-ubyte, t10k-images-idx3-ubyte: put"):
        read_dataset(tmp_path)


def test_a_damaged_file_is_named(tmp_path, arrays):
    path = write(tmp_path, arrays) / "t10k-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(HandgradError, match=r"^t10k-labels-idx1-ubyte is cut off"):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"y_train": np.zeros(11, np.uint8)}, "x_train has 12 images and y_train 11 labels"),
        ({"y_test": np.zeros(6, np.uint8)}, "x_test has 5 images and y_test 6 labels"),
        ({"y_test": np.array([0, 1, 3, 0, 1], np.uint8)}, "y_test holds the label 3, but there are 3 classes"),
        ({"x_test": np.zeros((5, 4, 5), np.uint8)}, "are 5x4 and those to test on 4x5"),
        ({"x_train": np.zeros((12, 20), np.uint8)}, r"x_train is uint8 of shape \(12, 20\)"),
        ({"x_train": np.zeros((12, 5, 4), np.float32)}, "x_train is float32"),
        ({"y_train": np.zeros(12, np.int32)}, "y_train is int32"),
        ({"y_train": np.full(12, np.nan, np.float64)}, "y_train is float64"),
        ({"y_train": np.zeros((12, 1), np.uint8)}, r"y_train is uint8 of shape \(12, 1\)"),
        ({"x_train": np.zeros((0, 5, 4), np.uint8), "y_train": np.zeros(0, np.uint8)}, "no pixel"),
        ({"x_test": np.zeros((0, 5, 4), np.uint8), "y_test": np.zeros(0, np.uint8)}, "no pixel"),
        ({"x_train": np.zeros((12, 0, 0), np.uint8), "x_test": np.zeros((5, 0, 0), np.uint8)}, "no pixel"),
    ],
)
def test_what_does_not_fit_together(tmp_path, arrays, change, says):
    with pytest.raises(HandgradError, match=says) as caught:
        read_dataset(write(tmp_path, arrays | change))
    assert "\n" not in str(caught.value)


def test_labels_must_have_a_class(arrays):
    Dataset(**arrays, name="kinds", classes=("shirt", "shoe", "bag"))
    with pytest.raises(HandgradError, match="y_train holds the label 2, but there are 2 classes: expected 0 to 1"):
        Dataset(**arrays, name="kinds", classes=("shirt", "shoe"))


def test_split_holds_out_the_last_of_the_training_set(arrays):
    dataset = Dataset(**arrays, name="kinds", classes=("0", "1", "2"))
    (x, y), (x_validation, y_validation), (x_test, y_test) = dataset.split(validation=3)
    np.testing.assert_array_equal(x, arrays["x_train"][:9])
    np.testing.assert_array_equal(y, arrays["y_train"][:9])
    np.testing.assert_array_equal(x_validation, arrays["x_train"][9:])
    np.testing.assert_array_equal(y_validation, arrays["y_train"][9:])
    assert x_test is arrays["x_test"]
    assert y_test is arrays["y_test"]


@pytest.mark.parametrize("validation", [-1, 0, 12, 10_000])
def test_split_leaves_something_on_both_sides(arrays, validation):
    dataset = Dataset(**arrays, name="kinds", classes=("0", "1", "2"))
    with pytest.raises(HandgradError, match=f"{validation} images cannot be held out of the 12 .* expected 1 to 11"):
        dataset.split(validation)


def test_a_dataset_stays_as_it_is(arrays):
    dataset = Dataset(**arrays, name="kinds", classes=("0", "1", "2"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        dataset.name = "other"


def test_a_set_says_what_it_is_in_a_line() -> None:
    images, labels = np.zeros((3, 4, 5), np.uint8), np.zeros(3, np.uint8)
    said = repr(Dataset(images, labels, images[:2], labels[:2], "mine", ("a", "b")))
    assert said == "mine: 3 images to train on, 2 to test on, 4x5, 2 classes"
