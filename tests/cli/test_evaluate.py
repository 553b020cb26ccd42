"""handgrad evaluate, predict and attack."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import handgrad
import handgrad.data
from handgrad import cli
from handgrad.images import predict_image
from handgrad.wrappers import Ensemble, Preprocessed, TestTimeAugmentation, unwrap


@pytest.fixture(scope="module")
def model(trained: tuple[Path, str]) -> Path:
    """The model file of the trained run."""
    return trained[0] / "model.safetensors"


@pytest.fixture(scope="module")
def dataset(data: Path) -> handgrad.data.Dataset:
    """The small data set."""
    return handgrad.data.load(str(data))


def save(model: handgrad.Model, path: Path) -> Path:
    handgrad.save(model, path)
    return path


def surest(model: Path, dataset: handgrad.data.Dataset) -> int:
    """The index of the test digit that is read correctly with the highest confidence."""
    network, confidences = handgrad.load(model), []
    for digit, label in zip(dataset.x_test[:60], dataset.y_test, strict=False):
        (reading,) = predict_image(network, digit)
        confidences.append(reading.confidence if reading.label == str(label) else 0)
    return int(np.argmax(confidences))


# ---- evaluate --------------------------------------------------------------------------------------------------------


def test_evaluate_agrees_with_the_library(model: Path, data: Path, dataset, tmp_path: Path, run) -> None:
    network = handgrad.load(model)
    expected = network.evaluate(dataset.x_test, dataset.y_test)
    numbers = json.loads(run("evaluate", model, "--data", data, "--json", cwd=tmp_path).stdout)
    assert (numbers["correct"], numbers["total"]) == (expected.correct, 300)
    assert numbers["loss"] == pytest.approx(expected.loss, rel=1e-6)
    confusion = np.array(numbers["confusion_matrix"])
    np.testing.assert_array_equal(confusion, network.confusion_matrix(dataset.x_test, dataset.y_test))
    assert numbers["classes"] == list("0123456789")


def test_evaluate_prints_accuracy_and_confusion_matrix(model: Path, data: Path, dataset, invoke) -> None:
    network = handgrad.load(model)
    result = network.evaluate(dataset.x_test, dataset.y_test)
    code, output, errors = invoke("evaluate", model, "--data", data)
    assert code == 0, errors
    first, title, header, *rows = output.splitlines()
    assert first == (
        f"{data.name} test: {result.correct} / 300 correct ({result.accuracy:.2%}), loss {result.loss:.4f}"
    )
    assert title == "confusion matrix (rows: true class, columns: predicted class)"
    assert header.split() == list("0123456789")
    counts = [[int(cell.replace(".", "0")) for cell in row.split()[1:]] for row in rows]
    np.testing.assert_array_equal(counts, network.confusion_matrix(dataset.x_test, dataset.y_test))
    assert [row.split()[0] for row in rows] == list("0123456789")


def test_evaluate_does_not_use_mnist_in_place_of_missing_data(model: Path, tmp_path: Path, invoke) -> None:
    """Also if the name of the data is not the path of a file, as that of EMNIST/digits."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_bytes(model.read_bytes())
    (run / "config.json").write_text(json.dumps({"data": str(tmp_path / "EMNIST/digits")}))
    code, output, errors = invoke("evaluate", run)
    assert (code, output) == (2, "")
    assert f"there is no data set '{tmp_path / 'EMNIST/digits'}'" in errors


# ---- predict ---------------------------------------------------------------------------------------------------------


def test_predict_reads_both_polarities_and_shows_the_prepared_images(model: Path, dataset, tmp_path: Path, run) -> None:
    x, y, best = dataset.x_test, dataset.y_test, surest(model, dataset)
    Image.fromarray(x[best]).resize((140, 140)).save(tmp_path / "bright.png")
    Image.fromarray(255 - x[best]).resize((90, 90)).save(tmp_path / "dark.jpg", quality=95)
    np.save(tmp_path / "raw.npy", x[best])
    done = run("predict", model, "bright.png", "dark.jpg", "raw.npy", "--show", "seen.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    *predictions, last = done.stdout.splitlines()
    assert [line.split()[:2] for line in predictions] == [
        [f"{name}:", str(y[best])] for name in ("bright.png", "dark.jpg", "raw.npy")
    ]
    assert all("%), second choice " in line for line in predictions)
    assert last == "prepared images: seen.png"
    with Image.open(tmp_path / "seen.png") as seen:
        assert len(seen.convert("L").getcolors(1 << 16) or []) > 2
    row = json.loads(run("predict", model, "raw.npy", "--json", cwd=tmp_path).stdout)
    assert (row["file"], row["prediction"]) == ("raw.npy", str(y[best]))
    assert max(row["probabilities"], key=row["probabilities"].get) == row["prediction"]


def test_predict_accepts_an_ensemble_with_preprocessing(dataset, tmp_path: Path, invoke) -> None:
    networks = [handgrad.Network([196, 10], rng=seed) for seed in (0, 1)]
    for network in networks:
        network.image_shape = (14, 14)
    members = [TestTimeAugmentation(network, 5) for network in networks]
    path = save(Preprocessed(Ensemble(members), handgrad.Deskew(28, 28, 2)), tmp_path / "ensemble.safetensors")
    np.save(tmp_path / "digit.npy", dataset.x_test[0])
    code, output, errors = invoke("predict", path, tmp_path / "digit.npy", "--json")
    assert code == 0, errors
    row = json.loads(output)
    assert row["prediction"] is None  # the networks are not trained
    assert row["reason"].startswith("the confidence ")
    assert list(row["probabilities"]) == list("0123456789")


@pytest.fixture
def photos(dataset, model: Path, tmp_path: Path) -> Path:
    """A directory with a bright digit, a dark digit, a blank sheet, and a file that is no image."""
    x, best = dataset.x_test, surest(model, dataset)
    directory = tmp_path / "photos"
    (directory / "more").mkdir(parents=True)
    Image.fromarray(x[best]).resize((140, 140)).save(directory / "a.png")
    Image.fromarray(255 - x[best]).resize((140, 140)).save(directory / "more" / "b.PNG")
    Image.new("L", (50, 50), 255).save(directory / "blank.png")
    (directory / "damaged.png").write_bytes(b"no image")
    (directory / "notes.txt").write_text("not an image")
    return directory


def test_input_files_are_not_overwritten(model: Path, dataset, tmp_path: Path, invoke) -> None:
    image, images = tmp_path / "seven.png", tmp_path / "images.npy"
    Image.fromarray(dataset.x_test[0]).save(image)
    np.save(images, dataset.x_test[:5])
    parts = tmp_path / "parts"
    parts.mkdir()
    part, table = parts / "images-0.npy", parts / "numbers.csv"
    np.save(part, dataset.x_test[:5])
    table.write_text("a,label\n1,2\n")
    inputs = image, images, part, table
    before = [path.read_bytes() for path in inputs]
    for option, command in (
        (f"--show {image}", ("predict", model, image, "--show", image)),
        (f"--show {image}", ("predict", model, tmp_path, "--show", image)),
        (f"--out {images}", ("predict", model, "--data", images, "--out", images)),
        (f"--out {part}", ("predict", model, "--data", parts, "--out", part)),
        (f"--out {table}", ("predict", model, "--data", parts, "--out", table)),
        (f"--out {image}", ("attack", model, image, "--out", image)),
    ):
        code, _, errors = invoke(*command)
        assert (code, errors) == (2, f"handgrad: {option} is an input file: choose another name\n")
    assert [path.read_bytes() for path in inputs] == before


def test_predict_reads_a_directory_and_goes_on_after_bad_files(
    model: Path, photos: Path, tmp_path: Path, invoke
) -> None:
    code, output, errors = invoke("predict", model, photos, tmp_path / "missing.png", photos / "a.png")
    assert code == 2
    assert [line.partition(": ")[0] for line in output.splitlines()] == [
        str(photos / name) for name in ("a.png", "more/b.PNG", "a.png")
    ]
    first, second, third = errors.splitlines()
    assert first.startswith(f"handgrad: {photos}/blank.png: no digit found")
    assert second.startswith(f"handgrad: cannot read {photos}/damaged.png: not an image")
    assert third == f"handgrad: cannot read {tmp_path}/missing.png: No such file or directory"


def test_predict_rejects_a_directory_without_images(model: Path, tmp_path: Path, invoke) -> None:
    (tmp_path / "empty").mkdir()
    code, output, errors = invoke("predict", model, tmp_path / "empty")
    assert (code, output) == (2, "")
    assert errors.startswith(f"handgrad: {tmp_path}/empty is a directory without images")


def test_predict_leaves_out_hidden_directories(model: Path, photos: Path, tmp_path: Path, invoke) -> None:
    image = sorted(photos.rglob("*.png"))[0]
    for folder in ("shown", ".ipynb_checkpoints", "__MACOSX"):
        (tmp_path / "own" / folder).mkdir(parents=True)
        (tmp_path / "own" / folder / "image.png").write_bytes(image.read_bytes())
    _, output, _ = invoke("predict", model, tmp_path / "own", "--json")
    assert [json.loads(line)["file"] for line in output.splitlines()] == [str(tmp_path / "own/shown/image.png")]


def test_predict_reads_standard_input(model: Path, photos: Path) -> None:
    data = (photos / "a.png").read_bytes()
    done = CliRunner().invoke(cli.handgrad, ["predict", str(model), "-"], input=data)
    named = CliRunner().invoke(cli.handgrad, ["predict", str(model), str(photos / "a.png")])
    assert done.exit_code == 0, done.stderr
    assert done.stdout == named.stdout.replace(str(photos / "a.png"), "-")


def test_predict_finds_several_digits_with_their_boxes(model: Path, photos: Path, tmp_path: Path, invoke) -> None:
    digit = np.asarray(Image.open(photos / "a.png"))
    Image.fromarray(np.hstack([digit, digit])).save(tmp_path / "two.png")
    code, output, errors = invoke("predict", model, tmp_path / "two.png", "--json")
    assert code == 0, errors
    row = json.loads(output)
    assert (row["prediction"], row["reason"]) == (None, "2 digits")
    first, second = (reading["box"] for reading in row["readings"])
    assert 0 <= first[0] < first[2] <= 140 <= second[0] < second[2] <= 280
    assert 0 <= first[1] < first[3] <= 140
    code, output, errors = invoke("predict", model, tmp_path / "two.png", "--show", tmp_path / "seen.png")
    assert [line.partition(" at ")[0] for line in output.splitlines()[:2]] == [str(tmp_path / "two.png")] * 2
    assert f" at ({second[0]}, {second[1]}) to ({second[2]}, {second[3]}): " in output


def test_predict_says_why_it_is_not_sure(model: Path, tmp_path: Path, invoke) -> None:
    block = np.full((120, 120), 240, np.uint8)
    block[30:90, 25:95] = 20
    Image.fromarray(block).save(tmp_path / "block.png")
    code, output, _ = invoke("predict", model, tmp_path / "block.png")
    assert code == 0
    assert ": not sure: the shape is a filled area, not the strokes of a digit" in output


def test_percentages_of_one_answer_sum_to_at_most_100(data: Path, dataset, tmp_path: Path, invoke) -> None:
    """Also those of a network with one sigmoid per class, all of which may be near 1."""
    network = handgrad.Network([784, 10], loss="binary_cross_entropy", rng=0)
    network.image_shape = (28, 28)
    network.layers[0].b[...] = np.linspace(2, 6, 10)
    path = save(network, tmp_path / "model.safetensors")
    np.save(tmp_path / "digit.npy", dataset.x_test[0])
    row = json.loads(invoke("predict", path, tmp_path / "digit.npy", "--json")[1])
    assert 0.99 < sum(row["probabilities"].values()) <= 1 + 1e-6


def test_predict_escapes_control_characters(data: Path, photos: Path, model: Path, tmp_path: Path, invoke) -> None:
    network = handgrad.load(model)
    network.classes = [f"{k}\x1b[31m" for k in range(10)]
    path = save(network, tmp_path / "model.safetensors")
    evil = tmp_path / "a\x1b]0;x\x07\n.png"
    evil.write_bytes((photos / "a.png").read_bytes())
    for more in ((), ("--json",)):
        code, output, errors = invoke("predict", path, evil, tmp_path / "\x1b.png", photos / "blank.png", *more)
        assert code == 2
        assert not [c for c in output + errors if not c.isprintable() and c != "\n"]


# ---- attack ----------------------------------------------------------------------------------------------------------


def test_attack_changes_the_predicted_class_and_plots_the_perturbation(
    model: Path, data: Path, dataset, tmp_path: Path, run
) -> None:
    network, x = unwrap(handgrad.load(model)).core, dataset.x_test
    np.save(tmp_path / "raw.npy", x[7])
    arguments = ("attack", model, "raw.npy", "--digit", 3, "--digit", 7, "--data", data, "--out", "attack.png")
    done = run(*arguments, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["before"] for row in rows] == [network.classes[k] for k in network.predict(x[[7, 3, 7]])]
    assert all(row["after"] != row["before"] for row in rows)
    for row, image in zip(rows[1:], x[[3, 7]], strict=True):
        expected = handgrad.deepfool(network, image)
        assert row["l2"] == pytest.approx(expected.l2, rel=1e-4)
        assert row["linf"] == pytest.approx(expected.linf, rel=1e-3)
    first, second, _, last = run(*arguments, cwd=tmp_path).stdout.splitlines()
    assert first.startswith("raw.npy: ")
    assert second.startswith(f"{data.name} test image 3: {rows[1]['before']} (")
    assert f") becomes {rows[1]['after']} (" in second
    assert second.endswith(f"L2 norm {rows[1]['l2']:.3f}, largest pixel change {rows[1]['linf']:.3f}")
    assert last == "image, perturbation and sum: attack.png"
    with Image.open(tmp_path / "attack.png") as plot:
        assert min(plot.size) >= 600
        r, _, b = np.moveaxis(np.asarray(plot.convert("RGB")).astype(int), 2, 0)
    assert ((r - b) > 60).any()  # pixels that are increased
    assert ((b - r) > 60).any()  # pixels that are decreased


def test_attack_perturbs_the_preprocessed_image_of_the_inner_network(
    data: Path, dataset, tmp_path: Path, invoke
) -> None:
    network = handgrad.Network([196, 10], loss="cross_entropy", rng=0)
    network.image_shape = (14, 14)
    deskew = handgrad.Deskew(28, 28, 2)
    path = save(Preprocessed(TestTimeAugmentation(network, 5), deskew), tmp_path / "model.safetensors")
    out = tmp_path / "attack.png"
    code, output, errors = invoke("attack", path, "--digit", 3, "--data", data, "--json", "--out", out)
    assert code == 0, errors
    row, seen = json.loads(output), deskew(dataset.x_test[3:4])
    assert row["before"] == str(network.predict(seen)[0])
    assert row["after"] != row["before"]
    assert row["l2"] == pytest.approx(handgrad.deepfool(network, seen[0]).l2, rel=1e-4)
    assert out.exists()
    _, output, _ = invoke("attack", path, "--digit", 3, "--data", data)
    assert output.startswith("the images are perturbed after the preprocessing Deskew(height=28, width=28, shrink=2)\n")


def test_images_of_other_classes_are_prepared_as_a_whole(tmp_path: Path, invoke) -> None:
    network = handgrad.Network([64, 2], loss="cross_entropy", rng=0)
    network.image_shape, network.classes = (8, 8), ("bars", "dots")
    network.layers[0].b[...] = 9, 0
    path, image = save(network, tmp_path / "model.safetensors"), np.full((80, 80), 255, np.uint8)
    image[10:70, 10:20] = image[10:70, 60:70] = 0
    Image.fromarray(image).save(tmp_path / "two.png")
    seen = 255 - image[::10, ::10]
    code, output, errors = invoke("predict", path, tmp_path / "two.png", "--json")
    assert (code, errors) == (0, "")
    row, (p, _) = json.loads(output), network.predict_proba(seen[None])[0]
    assert (row["prediction"], row["readings"][0]["box"]) == ("bars", [0, 0, 80, 80])
    assert row["probabilities"]["bars"] == pytest.approx(p)
    code, output, errors = invoke("attack", path, tmp_path / "two.png", "--json")
    assert (code, errors) == (0, "")
    assert json.loads(output)["l2"] == pytest.approx(handgrad.deepfool(network, seen).l2, rel=1e-4)


def test_attack_rejects_an_ensemble_in_one_line(model: Path, data: Path, tmp_path: Path, invoke) -> None:
    network = unwrap(handgrad.load(model)).core
    path = save(Ensemble([network, network]), tmp_path / "ensemble.safetensors")
    code, output, errors = invoke("attack", path, "--digit", 0, "--data", data)
    assert (code, output) == (2, "")
    assert errors == f"handgrad: {path} is an ensemble of 2 networks: attack needs a single network\n"


# ---- Invalid files ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bad_files(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of damaged models and images, and of valid models that a command cannot use."""
    directory = tmp_path_factory.mktemp("bad")
    (directory / "truncated.safetensors").write_bytes(model.read_bytes()[:-100])
    (directory / "pickled.safetensors").write_bytes(b"\x80\x04\x95\x10")
    (directory / "text.png").write_text("not an image")
    Image.new("L", (50, 50), 255).save(directory / "blank.png")
    save(handgrad.Network([784, 2], loss="squared_error", rng=0), directory / "regression.safetensors")
    save(handgrad.Network([784, 10], rng=0), directory / "numbers.safetensors")
    small = handgrad.Network([64, 10], rng=0)
    small.image_shape = (8, 8)
    save(small, directory / "small.safetensors")
    return directory


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("predict", "truncated.safetensors", "blank.png"), "truncated.safetensors"),
        (("predict", "pickled.safetensors", "blank.png"), "pickle"),
        (("evaluate", "truncated.safetensors"), "truncated.safetensors"),
        (("evaluate", "."), "Is a directory"),
        (("evaluate", "regression.safetensors"), "regression.safetensors is a regression model with the loss Squared"),
        (("predict", "numbers.safetensors", "blank.png"), "not trained on images; pass numbers with --data FILE"),
        (("predict", "small.safetensors", "text.png"), "text.png"),
        (("predict", "small.safetensors", "blank.png"), "blank.png: no digit found"),
        (("predict", "small.safetensors", "missing.png"), "missing.png"),
        (("attack", "small.safetensors", "blank.png", "--out", "out.png"), "blank.png: no digit found"),
        (("attack", "small.safetensors"), "no image to attack: expected an IMAGE or --digit INDEX"),
        (("attack", "small.safetensors", "--digit", 0, "--data", "DATA"), "has images of (28, 28) pixels"),
        (("attack", "MODEL", "--digit", 300, "--data", "DATA"), "has the test images 0 to 299"),
        (("attack", "MODEL", "--digit", 0, "--data", "DATA", "--out", "missing/out.png"), "cannot write missing/out"),
    ],
)
def test_invalid_files_give_one_line_and_exit_code_2(
    arguments: tuple[object, ...], expected: str, model: Path, data: Path, bad_files: Path, monkeypatch, invoke
) -> None:
    monkeypatch.chdir(bad_files)
    before = sorted(bad_files.iterdir())
    code, _, errors = invoke(*({"MODEL": model, "DATA": data}.get(a, a) for a in arguments))
    assert (code, errors.count("\n")) == (2, 1), errors
    assert errors.startswith("handgrad: ")
    assert expected in errors
    assert sorted(bad_files.iterdir()) == before


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_model_with_enormous_weights_is_rejected_with_one_line(
    command: str, data: Path, dataset, tmp_path: Path, invoke
) -> None:
    network = handgrad.Network([784, 10], loss="cross_entropy", rng=0)
    network.image_shape = (28, 28)
    network.parameters[...] = np.where(np.arange(network.parameters.size) % 2, 3e38, -3e38)
    path = save(network, tmp_path / "model.safetensors")
    np.save(tmp_path / "digit.npy", dataset.x_test[0])
    arguments = (tmp_path / "digit.npy",) if command == "predict" else ("--data", data)
    code, output, errors = invoke(command, path, *arguments)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert "are not finite: its weights or inputs are too large" in errors
