"""Files that the fuzzer found or that were built by hand: each ends with one line, in little time and memory."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner

from handgrad import Deskew, EarlyStopping, Network, Trainer, cli, save
from handgrad.adversarial import VirtualAdversarial
from handgrad.callbacks import Checkpoint
from handgrad.cli.run_directory import read_config
from handgrad.data.archives import load_npz
from handgrad.data.tables import load_table
from handgrad.images.augmentation import Augmentation
from handgrad.interop import from_keras
from handgrad.io.safetensors import read_arrays, write_arrays
from handgrad.optimizers import SGD
from handgrad.recipes import POST


def command(*arguments):
    """(exit code, stderr) of a command that must not end with a traceback."""
    done = CliRunner().invoke(cli.handgrad, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stderr


def assert_one_line(code_and_errors, match):
    code, errors = code_and_errors
    assert (code, errors.count("\n")) == (2, 1)
    assert match in errors


# ---- Sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shrink", [29, 10_000_000_000, 10**400])
def test_shrink_is_bounded_by_the_size_of_the_images(shrink, tmp_path):
    out = tmp_path / "out"
    arguments = ("train", "--data", "synthetic", "--deskew", "--shrink", shrink, "--out", out)
    assert_one_line(command(*arguments), "shrink must be at most 28")
    assert not out.exists()


def test_shrink_of_a_model_file_is_bounded_by_the_size_of_the_images(tmp_path, rejects):
    with rejects("shrink must be at most 4"):
        Deskew(4, 4, 10**12)


@pytest.mark.parametrize("size", [10**14, 10**40, 10**400])
def test_layers_that_no_memory_holds_are_rejected(size, rejects):
    with rejects("the network has more than 1,099,511,627,776 parameters"):
        Network([4, size, 3])


@pytest.mark.parametrize("name", ["epochs", "batch_size", "lr", "shift", "validation"])
def test_huge_number_in_a_configuration_prints_one_line(name, tmp_path):
    config = {**POST.config(), "data": "synthetic", "handgrad": "1"} | {name: 10**400}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert_one_line(command("train", "--resume", tmp_path), f"the configuration is invalid: {name} is 1000")


def test_teacher_with_an_impossible_name_is_not_found(tmp_path, rejects):
    x, y = np.zeros((8, 4, 4), np.uint8), np.arange(8) % 2
    for name in ("\0", "a" * 5000):
        config = {**POST.config(), "data": "synthetic", "handgrad": "1", "teacher": name, "validation": 0}
        (tmp_path / "config.json").write_text(json.dumps(config))
        recipe = read_config(tmp_path).recipe
        with rejects("is neither a model file nor a recipe"):
            recipe.train(x, y, 2)


@pytest.mark.parametrize("smoothness", [0, 1e-320, 1e-9, 1e200, np.nan])
def test_smoothness_whose_square_is_0_or_infinite_is_rejected(smoothness, rejects):
    with rejects("smoothness must be a (finite number > 0|number of pixels from 0.001 to 1e6)"):
        Augmentation(8, 8, elastic=1, smoothness=smoothness)


def test_keras_archive_that_lies_about_a_size_is_read_up_to_the_limit(tmp_path, rejects):
    """The entry claims 100 bytes and decompresses to 256 MiB."""
    pytest.importorskip("h5py")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", bytes(1 << 28))
        archive.writestr("model.weights.h5", b"")
    content = bytearray(buffer.getvalue())
    for signature, offset in ((b"PK\3\4", 22), (b"PK\1\2", 24)):
        struct.pack_into("<I", content, content.index(signature) + offset, 100)
    path = tmp_path / "m.keras"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with rejects("m.keras"):
            from_keras(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 26
    finally:
        tracemalloc.stop()


# ---- Contents --------------------------------------------------------------------------------------------------------


def test_random_state_of_a_perturbation_is_checked(tmp_path, rejects):
    def trainer():
        return Trainer(
            Network([4, 3], rng=0),
            SGD(0.1),
            callbacks=[EarlyStopping("loss"), Checkpoint(tmp_path / "c")],
            perturb=VirtualAdversarial(0.1, rng=0),
            rng=0,
        )

    trainer().fit(np.eye(4), [0, 1, 2, 0], epochs=1)
    arrays, description = read_arrays(tmp_path / "c")
    description["state"]["perturb.rng"] = {"bit_generator": "PCG64", "state": None}
    write_arrays(tmp_path / "c", arrays, {"state": description["state"]})
    from handgrad.callbacks import resume

    with rejects("the checkpoint is damaged"):
        resume(trainer(), tmp_path / "c")


@pytest.mark.parametrize(
    ("name", "value", "exit_code"),
    [
        *[("epoch", float("nan"), 0), ("stop", float("-inf"), 0), ("optimizer.kind", {"a": float("inf")}, 0)],
        *[("optimizer.steps", [[[[[[1]]]]]], 2), ("history", float("nan"), 2)],
    ],
)
def test_inspect_prints_valid_json_for_any_training_state(name, value, exit_code, tmp_path):
    state = {"epoch": 1, "stop": False, "history": {"loss": [1.0]}} | {name: value}
    write_arrays(tmp_path / "c", {"parameters": np.zeros(3)}, {"state": state})
    done = CliRunner().invoke(cli.handgrad, ["inspect", str(tmp_path / "c"), "--json"])
    assert done.exit_code == exit_code
    if exit_code == 0:
        json.loads(done.stdout, parse_constant=lambda constant: pytest.fail(constant))
    else:
        assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)


def test_metadata_of_other_programs_is_printed_in_short_lines(tmp_path):
    import safetensors.numpy

    path = tmp_path / "m.safetensors"
    safetensors.numpy.save_file({"9" * 5000: np.ones(2)}, path, {"n" * 3000: "v" * 100_000})
    done = CliRunner().invoke(cli.handgrad, ["inspect", str(path)])
    assert done.exit_code == 0
    assert max(map(len, done.stdout.splitlines())) < 500


def test_row_that_is_shorter_than_the_header_is_rejected(tmp_path, rejects):
    (tmp_path / "t.csv").write_text("label,id,,pixel0,pixel1\n" + "0,1,2,3\n" * 4)
    with rejects("t.csv, line 2 has 4 cells: expected 5"):
        load_table(tmp_path / "t.csv")


def test_characters_that_do_not_exist_are_rejected(tmp_path, rejects):
    names = np.array(["a", "b"])
    names.view(np.uint32)[0] = 0x7FFFFFFF
    np.savez(tmp_path / "d.npz", x=np.eye(2), y=names)
    with rejects("contains characters that do not exist"):
        load_npz(tmp_path / "d.npz")


def test_evaluate_prints_valid_json(tmp_path):
    """A model with large but finite weights has an infinite loss."""
    model = Network([784, 10], loss="cross_entropy", rng=0)
    model.image_shape = (28, 28)
    model.parameters *= 3e36
    save(model, tmp_path / "m.safetensors")
    with np.errstate(all="ignore"):
        done = CliRunner().invoke(
            cli.handgrad, ["evaluate", str(tmp_path / "m.safetensors"), "--data", "synthetic", "--json"]
        )
    if done.exit_code == 0:
        json.loads(done.stdout, parse_constant=lambda constant: pytest.fail(constant))
    else:
        assert done.stderr.count("\n") == 1
