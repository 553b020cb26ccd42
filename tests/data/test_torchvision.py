"""Data sets in torchvision's layout: Fashion-MNIST, KMNIST, EMNIST, QMNIST."""

import gzip

import numpy as np
import pytest

from handgrad.data import load
from handgrad.data.idx import encode_idx

RNG = np.random.default_rng(0)
X = {"train": RNG.integers(0, 256, (30, 4, 3), np.uint8), "test": RNG.integers(0, 256, (20, 4, 3), np.uint8)}
Y = {"train": np.arange(30, dtype=np.uint8) % 10, "test": np.arange(20, dtype=np.uint8) % 10}


@pytest.fixture(autouse=True)
def no_handgrad_data(monkeypatch):
    monkeypatch.delenv("HANDGRAD_DATA", raising=False)


def write(directory, prefix="", labels=None, names=("train", "t10k"), compress=False):
    """Write a data set with MNIST's names, or with names that begin with a prefix."""
    directory.mkdir(parents=True, exist_ok=True)
    for part, name in zip(X, names, strict=True):
        y = (labels or Y)[part]
        kind = "idx2-int" if y.ndim == 2 else "idx1-ubyte"
        for file, array in ((f"{prefix}{name}-images-idx3-ubyte", X[part]), (f"{prefix}{name}-labels-{kind}", y)):
            content = encode_idx(array)
            (directory / f"{file}{'.gz' * compress}").write_bytes(gzip.compress(content) if compress else content)


def write_prefixed(directory, prefix, labels=None, compress=False):
    write(directory, f"{prefix}-", labels, ("train", "test"), compress)


def assert_has(dataset, transposed=False):
    for part in X:
        x = X[part].transpose(0, 2, 1) if transposed else X[part]
        np.testing.assert_array_equal(getattr(dataset, f"x_{part}"), x)
        np.testing.assert_array_equal(getattr(dataset, f"y_{part}"), Y[part])


@pytest.mark.parametrize(
    ("name", "given", "compress"),
    [
        *(("FashionMNIST", given, compress) for given, compress in ((".", False), ("{}", True), ("{}/raw", False))),
        *[("KMNIST", ".", True), ("QMNIST", "{}", False), ("MNIST", ".", False), ("MNIST", "{}/raw", True)],
    ],
)
def test_a_data_set_is_found_in_the_root_in_its_directory_and_in_raw(name, given, compress, tmp_path, caplog):
    write(tmp_path / name / "raw", compress=compress)
    dataset = load(tmp_path / given.format(name))
    assert_has(dataset)
    assert dataset.name == ("raw" if name == "MNIST" else name)  # the files are not MNIST's
    expected = {"FashionMNIST": ("T-shirt/top", "Ankle boot"), "KMNIST": ("o", "wo")}.get(name, ("0", "9"))
    assert (dataset.classes[0], dataset.classes[9]) == expected
    assert caplog.messages == []


def test_the_first_of_several_data_sets_is_read_with_a_warning(tmp_path, caplog):
    for name in ("KMNIST", "FashionMNIST"):
        write(tmp_path / name / "raw")
    assert load(tmp_path).name == "FashionMNIST"
    (message,) = caplog.messages
    assert message.endswith(f"reading {tmp_path / 'FashionMNIST' / 'raw'}; others are {tmp_path / 'KMNIST' / 'raw'}")


def test_fashion_mnist_is_known_by_its_name_in_any_spelling(tmp_path):
    write(tmp_path / "fashion-mnist")
    assert load(tmp_path / "fashion-mnist").classes[9] == "Ankle boot"


def test_labels_without_some_classes_keep_their_names(tmp_path):
    write(tmp_path / "FashionMNIST" / "raw", labels={part: np.array([2, 9], np.uint8)[y % 2] for part, y in Y.items()})
    dataset = load(tmp_path)
    assert dataset.classes == ("Pullover", "Ankle boot")
    np.testing.assert_array_equal(dataset.y_test, Y["test"] % 2)


@pytest.mark.parametrize(
    ("given", "compress"),
    [
        *[(".", False), ("EMNIST", True), ("EMNIST/raw", False)],
        *[("EMNIST/digits", True), ("EMNIST/raw/emnist-digits", False)],
    ],
)
def test_emnist_is_transposed(given, compress, tmp_path):
    write_prefixed(tmp_path / "EMNIST" / "raw", "emnist-digits", compress=compress)
    dataset = load(tmp_path / given)
    assert_has(dataset, transposed=True)
    assert (dataset.name, dataset.classes) == ("EMNIST digits", tuple("0123456789"))


def test_a_split_of_emnist_is_chosen_by_its_name(tmp_path, rejects):
    for split in ("digits", "letters", "balanced"):
        write_prefixed(tmp_path / "EMNIST" / "raw", f"emnist-{split}")
    raw = tmp_path / "EMNIST" / "raw"
    for given in (tmp_path, tmp_path / "EMNIST", raw):
        with rejects(
            r"contains the data sets emnist-balanced, emnist-digits, emnist-letters: give one of them, as "
            rf"{raw / 'emnist-balanced'}"
        ):
            load(given)
    for given in (raw / "emnist-balanced", tmp_path / "EMNIST" / "balanced", raw / "balanced"):
        assert load(given).name == "EMNIST balanced"
    for given in (raw / "mnist", tmp_path / "EMNIST" / "other", tmp_path / "none" / "digits"):
        with rejects(f"there is no data set '{given}'"):
            load(given)


@pytest.mark.parametrize(
    ("split", "labels", "classes"),
    [("letters", (1, 2, 26), "abz"), ("byclass", (0, 10, 61), "0Az"), ("balanced", (9, 35, 36, 46), "9Zat")],
)
def test_the_classes_of_emnist_are_characters(split, labels, classes, tmp_path):
    numbers = np.array(labels, np.uint8)
    y = {part: numbers[y % len(labels)] for part, y in Y.items()}
    write_prefixed(tmp_path, f"emnist-{split}", y)
    dataset = load(tmp_path)
    assert dataset.classes == tuple(classes)
    np.testing.assert_array_equal(dataset.y_train, Y["train"] % len(labels))


def test_the_labels_of_qmnist_are_the_first_of_eight_columns(tmp_path):
    labels = {part: RNG.integers(0, 1000, (len(y), 8)).astype(np.int32) for part, y in Y.items()}
    for part, y in Y.items():
        labels[part][:, 0] = y
    write_prefixed(tmp_path / "QMNIST" / "raw", "qmnist", labels)
    for given in (tmp_path, tmp_path / "QMNIST", tmp_path / "QMNIST" / "raw"):
        dataset = load(given)
        assert_has(dataset)
        assert (dataset.name, dataset.classes) == ("QMNIST", tuple("0123456789"))


def test_a_missing_file_is_named(tmp_path, rejects):
    write_prefixed(tmp_path, "emnist-digits")
    (tmp_path / "emnist-digits-test-labels-idx1-ubyte").unlink()
    with rejects("does not contain emnist-digits-test-labels-idx1-ubyte or emnist-digits-test-labels-idx2-int: add"):
        load(tmp_path)
