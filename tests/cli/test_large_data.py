"""handgrad data make and shuffle, train --shuffle, predict --data: data sets that are larger than memory."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from handgrad import Network
from handgrad import load as load_model
from handgrad import save as save_model
from handgrad.blas import one_blas_thread
from handgrad.data import Dataset, infinite, load
from handgrad.data.answers import write_answers
from handgrad.data.dataset import FILES
from handgrad.data.idx import read_idx, write_idx
from handgrad.data.infinite import label_bytes

Usage = namedtuple("Usage", ["total", "used", "free"])


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory, invoke) -> Path:
    """A data set of 4,000 images: copies of the 1,250 of `data`, and 250 without copies."""
    directory = tmp_path_factory.mktemp("made") / "copies"
    done = invoke("data", "make", "--count", 4000, "--out", directory, "--data", data)
    assert done == (0, f"4,000 training images in {directory}: train with handgrad train --data {directory}\n", "")
    return directory


# ---- Copies ----------------------------------------------------------------------------------------------------------


def test_copies_of_a_digit_are_on_one_side_of_the_validation_split(data: Path, made: Path) -> None:
    source, copies = load(data), load(made)
    train, validation, test = copies.split(250)
    assert np.array_equal(train[0][:1250], source.x_train[:1250])
    assert np.array_equal(validation[0], source.x_train[1250:])
    assert np.array_equal(validation[1], source.y_train[1250:])
    assert np.array_equal(test[0], source.x_test)
    assert np.array_equal(train[1], np.resize(source.y_train[:1250], 3750))
    deformed = train[0][1250:2500].astype(float)
    original = source.x_train[:1250].astype(float)
    distance = np.square(deformed - original).sum(axis=(1, 2))
    assert (distance > 0).all()
    assert np.median(distance) < np.median(np.square(deformed - original[::-1]).sum(axis=(1, 2)))  # the same digit
    assert not np.array_equal(train[0][1250:2500], train[0][2500:])


def test_copies_do_not_depend_on_the_number_of_processes(data: Path, made: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(infinite, "TASK_ROWS", 1000)
    infinite.make_copies(load(data), 4000, tmp_path / "two", workers=2)
    assert files_of(tmp_path / "two") == files_of(made)


def test_a_killed_process_leaves_no_files_and_the_next_one_starts_again(
    data: Path, made: Path, tmp_path: Path, environment
) -> None:
    command = [sys.executable, "-m", "handgrad", "data", "make", "--data", data, "--out", "copies", "--workers", "2"]
    with subprocess.Popen(
        [*map(str, command), "--count", "2000000"], cwd=tmp_path, env=environment(tmp_path, {})
    ) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("copies/.train-images*")) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGKILL)
    assert files_of(tmp_path / "copies") == {}
    done = subprocess.run(
        [*map(str, command), "--count", "4000"], cwd=tmp_path, env=environment(tmp_path, {}), check=False, timeout=120
    )
    assert done.returncode == 0
    assert files_of(tmp_path / "copies") == files_of(made)
    assert len(os.listdir(tmp_path / "copies")) == 4


def test_make_refuses_what_it_cannot_do_in_one_line(
    data: Path, made: Path, tmp_path: Path, invoke, monkeypatch
) -> None:
    out = tmp_path / "new"
    assert invoke("data", "make", "--count", 4000, "--out", made, "--data", data)[::2] == (
        2,
        f"handgrad: {made} contains t10k-images-idx3-ubyte: expected a new or an empty directory\n",
    )
    assert invoke("data", "make", "--count", 250, "--out", out, "--data", data)[::2] == (
        2,
        "handgrad: count must be an integer >= 251, got 250\n",
    )
    table = tmp_path / "table.csv"
    table.write_text("a,b,label\n" + "1,2,x\n3,4,y\n" * 10)
    assert "has numbers, not images" in invoke("data", "make", "--count", 400, "--out", out, "--data", table)[2]
    assert not out.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, 10**8))
    message = invoke("data", "make", "--count", 8_100_000, "--out", out, "--data", data)[2]
    assert message.endswith("free some space, choose another directory, or fewer images\n")
    assert "needs 6.43 GB, but its disk has 0.10 GB" in message


# ---- Shuffling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("buckets", [1, 7])
def test_shuffle_writes_every_example_once_with_its_label(
    made: Path, tmp_path: Path, invoke, monkeypatch, buckets
) -> None:
    monkeypatch.setattr(infinite, "BUCKET_BYTES", 4000 * 784 // buckets + 1)
    source, x = load(made), load(made).x_train.reshape(4000, -1)
    by_class = np.argsort(source.y_train, kind="stable")
    for name, array in zip(FILES.values(), (source.x_train[by_class], source.y_train[by_class]), strict=False):
        write_idx(tmp_path / name, array)
    for name in list(FILES.values())[2:]:
        shutil.copy(made / name, tmp_path / name)
    assert invoke("data", "shuffle", tmp_path, tmp_path / "new")[0] == 0
    found = load(tmp_path / "new")
    key, new_key = ((rows.astype(np.int64) @ np.arange(1, 785)) * 10 for rows in (x, found.x_train.reshape(4000, -1)))
    assert np.array_equal(np.sort(key + source.y_train), np.sort(new_key + found.y_train))
    changes = np.count_nonzero(np.diff(found.y_train.astype(int)))
    assert 0.85 < changes / 4000 < 0.95  # nine of ten neighbours of a random order have another class
    assert np.array_equal(found.x_test, source.x_test)
    assert sorted(os.listdir(tmp_path / "new")) == sorted(FILES.values())


def test_shuffle_keeps_labels_that_begin_with_one(tmp_path: Path, made: Path, invoke) -> None:
    for name in FILES.values():
        array = read_idx(made / name)
        write_idx(tmp_path / name, array + 1 if "labels" in name else array)
    assert invoke("data", "shuffle", tmp_path, tmp_path / "new")[0] == 0
    assert load(tmp_path / "new").classes == (*tuple("123456789"), "10")


def test_classes_with_and_without_a_leading_zero_stay_different() -> None:
    dataset = Dataset.from_arrays(np.zeros((40, 8, 8), np.uint8), ["1", "01"] * 20)
    assert np.array_equal(label_bytes(dataset, dataset.y_train), dataset.y_train)


# ---- Training --------------------------------------------------------------------------------------------------------


def test_a_killed_run_in_blocks_resumes_in_blocks_and_gives_the_same_model(made: Path, tmp_path: Path, invoke) -> None:
    options = ("--data", made, "--shuffle", "blocks", "--hidden", 8, "--batch-size", 50, "--quiet")
    assert invoke("train", *options, "--epochs", 3, "--out", tmp_path / "whole")[0] == 0
    assert invoke("train", *options, "--epochs", 1, "--out", tmp_path / "parts")[0] == 0
    assert json.loads((tmp_path / "parts/config.json").read_text())["shuffle"] == "blocks"
    assert "leave out --shuffle" in invoke("train", "--resume", tmp_path / "parts", "--shuffle", "rows")[2]
    assert invoke("train", "--resume", tmp_path / "parts", "--epochs", 3, "--quiet")[0] == 0
    models = [load_model(tmp_path / run / "model.safetensors") for run in ("whole", "parts")]
    x = load(made).x_test
    assert np.array_equal(models[0].outputs(x), models[1].outputs(x))


def test_train_prints_that_it_reads_blocks(made: Path, tmp_path: Path, invoke) -> None:
    code, out, _ = invoke(
        "train", "--data", made, "--shuffle", "blocks", "--recipe", "second", "--epochs", 1, "--out", tmp_path / "run"
    )
    assert code == 0
    assert "shuffled in blocks" in out


# ---- Predictions -----------------------------------------------------------------------------------------------------


def test_predict_writes_the_class_of_every_image(trained, made: Path, tmp_path: Path, invoke) -> None:
    model, x = load_model(trained[0] / "model.safetensors"), load(made)
    expected = model.predict(x.x_train)
    np.save(tmp_path / "x.npy", x.x_train)
    (tmp_path / "shards").mkdir()
    np.save(tmp_path / "shards/images-0.npy", x.x_train[:3000])
    np.save(tmp_path / "shards/images-1.npy", x.x_train[3000:])
    for source in (made / FILES["x_train"], tmp_path / "x.npy", tmp_path / "shards"):
        out = tmp_path / "answers.npy"
        done = invoke("predict", trained[0], "--data", source, "--out", out)
        assert done == (0, f"4,000 answers in {out}\n", "")
        assert np.load(out).dtype == np.uint8
        assert np.array_equal(np.load(out), expected)
    assert invoke("predict", trained[0], "--data", made, "--out", tmp_path / "test.npy")[0] == 0
    assert np.array_equal(np.load(tmp_path / "test.npy"), model.predict(x.x_test))
    code, out, _ = invoke("predict", trained[0], "--data", made, "--out", tmp_path / "test.csv", "--json")
    assert (code, sum(json.loads(out)["classes"].values())) == (0, len(x.x_test))
    with (tmp_path / "test.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == [str(k) for k in model.predict(x.x_test)]
    assert float(rows[0]["probability"]) == pytest.approx(model.predict_proba(x.x_test[:1]).max(), abs=1e-5)


def test_answers_do_not_depend_on_the_number_of_processes(trained, made: Path, tmp_path: Path, invoke) -> None:
    """With one BLAS thread each: with another number, the last bits of a product differ."""
    for kind in ("npy", "csv"):
        answers = []
        for workers in (1, 2):
            out = tmp_path / f"{workers}.{kind}"
            command = ("predict", trained[0], "--data", made / FILES["x_train"], "--out", out, "--workers", workers)
            with one_blas_thread():
                done = invoke(*command)
            assert done == (0, f"4,000 answers in {out}\n", "")
            answers.append(out.read_bytes())
        assert answers[0] == answers[1]


def test_error_in_one_of_several_processes_is_one_line(made: Path, tmp_path: Path, invoke) -> None:
    network = Network([784, 30, 10], activation="relu", rng=0)
    network.parameters *= 1e30
    save_model(network, tmp_path / "m.safetensors")
    code, _, error = invoke(
        *("predict", tmp_path / "m.safetensors", "--data", made / FILES["x_train"], "--out", tmp_path / "a.npy"),
        *("--workers", 2),
    )
    assert (code, "not finite" in error, error.count("\n")) == (2, True, 1), error
    assert os.listdir(tmp_path) == ["m.safetensors"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs process groups and sparse files")
@pytest.mark.parametrize("wait", [0, 2])
def test_interrupt_ends_all_processes_without_a_file(trained, tmp_path: Path, environment, wait: float) -> None:
    """Ctrl-C while the processes start, and while they predict."""
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (10**7, 28, 28))
    command = [sys.executable, "-m", "handgrad", "predict", str(trained[0]), "--data", "x.npy", "--out", "a.npy"]
    with subprocess.Popen(
        [*command, "--workers", "2"],
        cwd=tmp_path,
        env=environment(tmp_path, {}),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".a.npy*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(wait)
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "handgrad: interrupted\n")
    assert os.listdir(tmp_path) == ["x.npy"]


def test_answers_with_probabilities_that_are_rounded_to_1_are_those_of_the_model(tmp_path: Path) -> None:
    network = Network([2, 3], loss="binary_cross_entropy", rng=0)
    network.parameters[:] = 0
    network.layers[0].b[:] = 0, 20, 30
    x = np.ones((3, 2))
    for name in ("answers.npy", "answers.csv"):
        assert write_answers(network, x, tmp_path / name) == [0, 0, 3]
    assert (tmp_path / "answers.csv").read_text().splitlines()[1:] == [f"{i},2,1.000000" for i in range(3)]
    assert list(np.load(tmp_path / "answers.npy")) == list(network.predict(x)) == [2, 2, 2]


def test_predict_refuses_contradictory_options_and_leaves_no_file(trained, made: Path, tmp_path: Path, invoke) -> None:
    out = tmp_path / "answers.npy"
    for arguments, message in (
        ([], "no image to predict: expected an IMAGE, or --data with --out"),
        (["--data", made], "--data and --out belong together"),
        (["image.png", "--data", made, "--out", out], "--data and --out belong together"),
        (["--data", made, "--out", tmp_path / "answers.txt"], "expected a name that ends in .npy or .csv"),
        (["image.png", "--workers", 2], "--workers needs both"),
        (["--data", made, "--out", out, "--workers", 0], "workers must be an integer >= 1, got 0"),
        (["--data", tmp_path / "none.npy", "--out", out], "there is no data set"),
        (["--data", made / FILES["y_train"], "--out", out], "is not a data set that handgrad reads"),
    ):
        code, _, error = invoke("predict", trained[0], *arguments)
        assert (code, message in error, error.count("\n")) == (2, True, 1), error
    np.save(tmp_path / "small.npy", np.zeros((5, 8, 8), np.uint8))
    assert "x has shape (5, 8, 8)" in invoke("predict", trained[0], "--data", tmp_path / "small.npy", "--out", out)[2]
    assert not out.exists()
