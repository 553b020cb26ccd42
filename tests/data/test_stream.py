"""Data in files: memory-mapped and in blocks, in the order of an array, complete, reproducible, with flat memory."""

from __future__ import annotations

import gzip
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from handgrad import SGD, Adam, Augmentation, Network, Trainer
from handgrad.arrays import Rows
from handgrad.callbacks import Checkpoint, resume
from handgrad.data import load, stream
from handgrad.data.answers import read_examples
from handgrad.data.dataset import FILES
from handgrad.data.idx import encode_idx, write_idx
from handgrad.data.stream import BLOCK_ROWS, FileRows
from handgrad.errors import HandgradWarning
from handgrad.images.deskew import Deskew
from handgrad.recipes import RECIPES
from handgrad.training import TARGET_FLOATS, Targets, make_targets

COUNT = 3000


@pytest.fixture(scope="module")
def arrays():
    """(x, y, x_test, y_test): random images of 6x4 pixels, of which column y is bright."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 128, (COUNT + 100, 6, 4)).astype(np.uint8)
    y = rng.integers(0, 4, len(x)).astype(np.uint8)
    x[np.arange(len(x)), :, y] += 127
    return x[:COUNT], y[:COUNT], x[COUNT:], y[COUNT:]


@pytest.fixture(scope="module")
def idx(arrays, tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("idx")
    for name, array in zip(FILES.values(), arrays, strict=True):
        write_idx(directory / name, array)
    return directory


@pytest.fixture
def shards(arrays, tmp_path) -> Path:
    """A folder of three shards for training, of different lengths, and one pair of files for testing."""
    x, y, x_test, y_test = arrays
    for number, rows in enumerate((slice(0, 700), slice(700, 701), slice(701, COUNT)), start=9):
        np.save(tmp_path / f"train-images-{number}.npy", x[rows])
        np.save(tmp_path / f"train-labels-{number}.npy", y[rows].astype(np.int32))
    np.save(tmp_path / "test-images.npy", x_test)
    np.save(tmp_path / "test-labels.npy", y_test)
    return tmp_path


def train(x, y, *, epochs=2, network=None, **options) -> Trainer:
    trainer = Trainer(network or Network([24, 8, 4], rng=1), SGD(lr=0.5), batch_size=7, rng=2, **options)
    trainer.fit(x, y, epochs, progress=False)
    return trainer


def epoch_order(x: FileRows, seed: int, step: int) -> list[int]:
    """The indices of an epoch, read `step` at a time, after checking that `take` returns their examples."""
    order, pixels, indices = x.in_order(np.random.default_rng(seed)), np.asarray(x), []
    for first in range(0, len(x), step):
        chosen = order[first : first + step]
        out = np.empty((len(chosen), *x.shape[1:]), x.dtype)
        np.take(order, chosen, axis=0, out=out, mode="clip")
        assert np.array_equal(out, pixels[chosen])
        indices += chosen.tolist()
    return indices


# ---- Same as in memory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["idx", "shards"])
def test_training_on_mapped_rows_gives_the_bits_of_training_in_memory(arrays, source, request) -> None:
    x, y, *_ = arrays
    dataset = load(request.getfixturevalue(source), shuffle="rows")
    assert isinstance(dataset.x_train, Rows)
    assert np.array_equal(dataset.x_test, arrays[2])
    augment = Augmentation(6, 4, shift=1)
    for options in ({}, {"augment": augment}):
        expected = train(x, y, **options)
        found = train(dataset.x_train, dataset.y_train, **options)
        assert np.array_equal(found.network.parameters, expected.network.parameters)
    assert found.history["loss"] == expected.history["loss"]


def test_validation_fraction_and_evaluation_are_those_of_the_array(arrays, idx: Path) -> None:
    x, y, *_ = arrays
    for shuffle in ("rows", "blocks"):
        dataset = load(idx, shuffle=shuffle)
        network = Network([24, 8, 4], rng=1)
        network.image_shape = (6, 4)
        assert network.evaluate(dataset.x_train, dataset.y_train) == network.evaluate(x, y)
        assert np.array_equal(network.predict(dataset.x_train[5:1500]), network.predict(x[5:1500]))
    dataset, found, expected = load(idx, shuffle="rows"), Network([24, 4], rng=1), Network([24, 4], rng=1)
    found.fit(dataset.x_train, dataset.y_train, 1, rng=3, progress=False)
    expected.fit(x, y, 1, rng=3, progress=False)
    assert np.array_equal(found.parameters, expected.parameters)


def test_a_recipe_deskews_the_images_when_they_are_read(arrays, idx: Path) -> None:
    x, y, *_ = arrays
    recipe = RECIPES["quick"].replace(hidden=(8,), epochs=1, shrink=1, validation=500)
    x_mapped = load(idx, shuffle="rows").x_train
    found, expected = recipe.train(x_mapped, y, 4), recipe.train(x, y, 4)
    assert np.array_equal(found.outputs(x[:50]), expected.outputs(x[:50]))
    assert np.array_equal(np.asarray(x_mapped.transformed(Deskew(6, 4, 2))[10:20]), Deskew(6, 4, 2)(x[10:20]))


def test_a_second_function_is_applied_after_the_first(arrays, idx: Path) -> None:
    x, rows = arrays[0], load(idx, shuffle="rows").x_train
    twice = rows.transformed(lambda images: images // 2).transformed(lambda images: images + 1)
    assert np.array_equal(twice[np.arange(5)], x[:5] // 2 + 1)


def test_indices_and_slices_of_rows_are_those_of_the_array(arrays, shards: Path) -> None:
    x = arrays[0]
    for shuffle in ("rows", "blocks"):
        rows = load(shards, shuffle=shuffle).x_train
        chosen = np.array([699, 0, 701, 700, -1, 2500])
        for index in (slice(690, 710), slice(-20, None), slice(None, None, 9), chosen, x[:, 0, 0] > 250, 5):
            assert np.array_equal(np.asarray(rows[index]), x[index]), (shuffle, index)
        assert np.array_equal(rows.subset(chosen)[np.array([2, 0])], x[chosen][[2, 0]])
        assert np.array_equal(np.asarray(rows[600:900][50:150]), x[650:750])
        with pytest.raises(IndexError):
            rows[np.array([COUNT])]


# ---- Blocks ----------------------------------------------------------------------------------------------------------


def test_blocks_cover_every_example_once_in_an_order_that_depends_only_on_the_seed(
    arrays, shards: Path, monkeypatch
) -> None:
    monkeypatch.setattr(stream, "BUFFER_BLOCKS", 2)
    x = load(shards, shuffle="blocks").x_train
    first = epoch_order(x, 1, 70)
    assert sorted(first) == list(range(COUNT))
    assert first == epoch_order(x, 1, 1100)  # more than a buffer at a time
    assert first != epoch_order(x, 2, 70)
    assert epoch_order(x.transformed(Deskew(6, 4, 2)), 1, 70) == first  # which a thread deskews
    part = x.subset(np.flatnonzero(np.arange(COUNT) % 10))
    assert sorted(epoch_order(part, 1, 70)) == list(range(len(part)))


def test_blocks_are_mixed_in_the_buffer_and_only_there(shards: Path, monkeypatch) -> None:
    monkeypatch.setattr(stream, "BUFFER_BLOCKS", 2)
    order = np.array(epoch_order(load(shards, shuffle="blocks").x_train, 0, 70))
    blocks = order[: 2 * BLOCK_ROWS] // BLOCK_ROWS
    assert len(set(blocks.tolist())) <= 3  # two blocks, or three if the short one is among them
    assert np.count_nonzero(np.diff(blocks)) > BLOCK_ROWS / 2


def test_a_resumed_run_in_blocks_gives_the_bits_of_an_uninterrupted_one(idx: Path, tmp_path: Path) -> None:
    dataset = load(idx, shuffle="blocks")
    x, y = dataset.x_train, dataset.y_train
    expected = train(x, y, epochs=3).network.parameters

    class Kill(Checkpoint):
        def on_epoch_end(self, trainer: Trainer) -> None:
            super().on_epoch_end(trainer)
            raise KeyboardInterrupt

    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(x, y, epochs=3, callbacks=[Kill(path)])
    resumed = Trainer(Network([24, 8, 4], rng=5), SGD(lr=0.5), batch_size=7, rng=6, callbacks=[Checkpoint(path)])
    resume(resumed, path)
    resumed.fit(x, y, until_epoch=3, progress=False)
    assert np.array_equal(resumed.network.parameters, expected)


def test_sorted_files_warn_with_the_remedy_and_shuffled_files_do_not(arrays, tmp_path: Path) -> None:
    x, y, x_test, y_test = arrays
    by_class = np.argsort(y, kind="stable")
    for name, array in zip(FILES.values(), (x[by_class], y[by_class], x_test, y_test), strict=True):
        write_idx(tmp_path / name, array)
    dataset = load(tmp_path, shuffle="blocks")
    with pytest.warns(HandgradWarning, match="sorted by class.*handgrad data shuffle"):
        train(dataset.x_train, dataset.y_train)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(load(tmp_path, shuffle="rows").x_train, dataset.y_train)


def test_an_error_of_the_reader_thread_is_one_line(arrays, idx: Path, tmp_path: Path, rejects) -> None:
    path = tmp_path / "x.npy"
    np.save(path, arrays[0])
    x = FileRows([stream.Part(path, 128, (COUNT, 6, 4))], "blocks")
    with path.open("r+b") as file:
        file.truncate(10_000)
    with rejects(r"x\.npy has become shorter while it was read"):
        train(x, arrays[1])
    path.unlink()
    with rejects(r"cannot read .*x\.npy: No such file"):
        train(x, arrays[1])


# ---- Choice ----------------------------------------------------------------------------------------------------------


def test_auto_maps_large_files_and_reads_blocks_of_files_larger_than_memory(
    arrays, idx: Path, shards: Path, monkeypatch
) -> None:
    assert isinstance(load(idx).x_train, np.ndarray)
    monkeypatch.setattr("handgrad.data.mapped.MAP_BYTES", 1000)
    for source in (idx, shards):
        x = load(source).x_train
        assert (x.in_blocks, np.array_equal(np.asarray(x), arrays[0])) == (False, True)
        with monkeypatch.context() as small:
            small.setattr(stream, "available_memory", lambda: 50_000)
            dataset = load(source)
        assert dataset.x_train.in_blocks
        assert dataset.notes[0].startswith("shuffled in blocks, because 0.00 GB do not fit into")


def test_available_memory_is_that_of_the_system() -> None:
    assert 1 << 20 < stream.available_memory() < 1 << 50


def test_blocks_of_other_data_sets_are_refused(arrays, tmp_path: Path, rejects) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=arrays[0], y=arrays[1])
    with rejects("shuffle='blocks' needs a directory of IDX or .npy files, not '.*x.npz'"):
        load(path, shuffle="blocks")
    path.unlink()
    with rejects("shuffle must be auto, rows or blocks, got 'random'"):
        load("synthetic", shuffle="random")
    for name, array in zip(FILES.values(), arrays, strict=True):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(encode_idx(array)))
    with rejects("is compressed, so that blocks of it cannot be read: decompress it with gunzip"):
        load(tmp_path, shuffle="blocks")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("train-images-10.npy", None, "contains train-labels-10.npy, but not train-images-10.npy"),
        ("train-labels-11.npy", None, "contains train-images-11.npy, but not train-labels-11.npy"),
        ("test-images.npy", None, "contains test-labels.npy, but not test-images.npy"),
        ("train-images-10.npy", np.zeros((1, 4, 6), np.uint8), r"has images of \(4, 6\) pixels"),
        ("train-images-10.npy", np.zeros((1, 6, 4), np.float32), "is float32 of shape"),
        ("train-images-10.npy", np.zeros((6, 4), np.uint8), r"is uint8 of shape \(6, 4\)"),
        ("train-images-10.npy", np.zeros((0, 6, 4), np.uint8), "expected at least one image"),
        ("train-images-10.npy", np.asfortranarray(np.zeros((2, 6, 4), np.uint8)), "is stored column by column"),
        ("train-labels-10.npy", np.zeros(2, np.int64), "has 1 images and train-labels-10.npy has 2 labels"),
        ("train-labels-10.npy", np.zeros(1), "expected labels, integers"),
        ("train-images-10.npy", b"\x93NUMPY", "is not an .npy file of numbers, or is incomplete"),
        ("train-images-10.npy", b"PK\3\4", "is not an .npy file"),
        (
            "train-images-010.npy",
            np.zeros((1, 6, 4), np.uint8),
            "contains train-images-010.npy and train-images-10.npy",
        ),
        ("train-images.npy", np.zeros((1, 6, 4), np.uint8), "expected files with consecutive numbers"),
    ],
)
def test_incomplete_and_damaged_folders_are_one_line(shards: Path, name, change, message, rejects) -> None:
    path = shards / name
    if change is None:
        path.unlink()
    elif isinstance(change, bytes):
        path.write_bytes(change)
    else:
        np.save(path, change)
    with rejects(message):
        load(shards, shuffle="blocks")


def test_files_of_images_to_predict_have_different_and_consecutive_numbers(tmp_path: Path, rejects) -> None:
    network = Network([24, 3], rng=0)
    for name in ("images-1.npy", "images-2.npy"):
        np.save(tmp_path / name, np.zeros((5, 6, 4), np.uint8))
    assert len(read_examples(str(tmp_path), network).x) == 10
    (tmp_path / "images-2.npy").rename(tmp_path / "images-3.npy")
    with rejects("lacks images-2.npy: expected files with consecutive numbers"):
        read_examples(str(tmp_path), network)
    (tmp_path / "images-3.npy").rename(tmp_path / "images-9999999999999.npy")
    with rejects("lacks images-2.npy: expected files with consecutive numbers"):
        read_examples(str(tmp_path), network)
    (tmp_path / "images-9999999999999.npy").rename(tmp_path / "images-01.npy")
    with rejects("contains images-01.npy and images-1.npy: remove one of them"):
        read_examples(str(tmp_path), network)


def test_damaged_idx_files_are_one_line(idx: Path, arrays, tmp_path: Path, rejects) -> None:
    for name, array in zip(FILES.values(), arrays, strict=True):
        write_idx(tmp_path / name, array)
    path = tmp_path / FILES["x_train"]
    content = path.read_bytes()
    for damaged, message in (
        (content[:-1], "is truncated"),
        (content[:7], "is truncated within its header"),
        (b"\1" + content[1:], "is not an IDX file"),
        (content + b"\0", "has extra bytes at the end"),
    ):
        path.write_bytes(damaged)
        with rejects(message):
            load(tmp_path, shuffle="rows")


# ---- Memory ----------------------------------------------------------------------------------------------------------


def test_targets_of_many_labels_are_made_when_they_are_used(rejects) -> None:
    loss, count = Network([2, 10], loss="cross_entropy").loss, TARGET_FLOATS // 10 + 1
    y = (np.arange(count) % 10).astype(np.uint8)
    t = make_targets(loss, y, count, 10, np.dtype(np.float32))
    assert isinstance(t, Targets)
    rows = np.array([3, 14, count - 1])
    assert np.array_equal(t[rows], loss.targets(y[rows], 3, 10, np.float32))
    y[-1] = 10
    with rejects("y contains the label 10"):
        make_targets(loss, y, count, 10, np.dtype(np.float32))
    with rejects("y has shape"):
        make_targets(loss, y[1:], count, 10, np.dtype(np.float32))


def test_training_with_targets_that_are_made_when_they_are_used_gives_the_same_bits(arrays, monkeypatch) -> None:
    x, y, *_ = arrays
    expected = train(x, y)
    monkeypatch.setattr("handgrad.training.TARGET_FLOATS", 1000)
    assert np.array_equal(train(x, y).network.parameters, expected.network.parameters)


GROWTH = """
import sys, warnings
import numpy as np
from handgrad import Network, SGD, Trainer
from handgrad.data.stream import FileRows, Part
from pathlib import Path

warnings.simplefilter("ignore")
count, path = int(sys.argv[1]), Path(sys.argv[2])
with path.open("wb") as file:
    file.truncate(count * 784)
x = FileRows([Part(path, 0, (count, 28, 28))], "blocks")
network = Network([784, 10], rng=0)
Trainer(network, SGD(lr=0.1), batch_size=500, rng=0).fit(x, np.arange(count) % 10, 1, progress=False)
network.evaluate(x[:20000], np.arange(20000) % 10)
(largest,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")]
print(int(largest) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is a part of Linux")
def test_memory_does_not_grow_with_the_number_of_examples(tmp_path: Path) -> None:
    sizes = []
    for count in (40_000, 300_000):  # 31 and 235 MB; the file has holes, which take no space on the disk
        command = [sys.executable, "-c", GROWTH, str(count), str(tmp_path / "x.npy")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        sizes.append(int(done.stdout))
    assert sizes[1] - sizes[0] < 100, f"{sizes} MiB"  # the images would take 194 MiB more


def test_an_optimizer_with_state_trains_on_blocks(idx: Path) -> None:
    dataset = load(idx, shuffle="blocks")
    trainer = Trainer(Network([24, 16, 4], rng=1, activation="relu", loss="cross_entropy"), Adam(0.01), rng=0)
    trainer.fit(dataset.x_train, dataset.y_train, 8, validation=0.2, progress=False)
    assert trainer.validation is not None
    assert trainer.validation.accuracy > 0.7
