"""handgrad train and evaluate on own data: tables, folders of images, archives; what the output says about them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import handgrad
from handgrad import Preprocessed, Standardize

RNG = np.random.default_rng(4)
KINDS = np.array(["oak", "elm", "ash"])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 180 trees with a height, a price and a kind."""
    y = np.arange(180) % 3
    numbers = np.column_stack([20 + 5 * y + RNG.normal(size=180), 1e5 + 1e4 * RNG.normal(size=180)])
    path = tmp_path_factory.mktemp("table") / "trees.csv"
    rows = [f"{height:.3f},{price:.2f},{KINDS[k]}" for (height, price), k in zip(numbers, y, strict=True)]
    path.write_text("\n".join(["height,price,kind", *rows]) + "\n")
    return path


def test_a_table_of_numbers(table: Path, tmp_path: Path, invoke) -> None:
    code, output, errors = invoke("train", "--data", table, "--epochs", 20, "--out", tmp_path / "run")
    assert (code, errors) == (0, "")
    _, _, sizes, about, *_ = output.splitlines()
    assert sizes == "trees.csv: 120 training examples, 24 validation, 36 test"
    assert about == (
        "data: 2 features, 3 classes; the labels are the column 'kind'; the test set is a random 20% of the examples; "
        "the validation set is a sixth of the training set; the numbers are standardized"
    )
    model_file = tmp_path / "run" / "model.safetensors"
    assert output.splitlines()[-1] == f"try: handgrad evaluate {model_file} --data {table}"
    model = handgrad.load(model_file)
    assert isinstance(model, Preprocessed)
    assert isinstance(model.preprocessing, Standardize)
    assert model.classes == ("ash", "elm", "oak")
    assert [model.classes[k] for k in model.predict([[20.0, 1e5], [30.0, 1e5]])] == ["oak", "ash"]
    code, output, _ = invoke("evaluate", model_file, "--data", table, "--json")
    assert json.loads(output)["accuracy"] > 0.9
    assert json.loads((tmp_path / "run" / "config.json").read_text())["validation"] == 24
    code, output, errors = invoke("train", "--resume", tmp_path / "run", "--epochs", 21)
    assert code == 0, errors
    assert "continuing after epoch 20" in output


@pytest.mark.parametrize("members", [1, 2])
def test_a_folder_of_images(tmp_path: Path, invoke, members: int) -> None:
    for kind, box in (("left", (0, 4)), ("right", (4, 8))):
        for part, count in (("train", 30), ("test", 10)):
            (tmp_path / "signs" / part / kind).mkdir(parents=True)
            for i in range(count):
                image = RNG.integers(0, 60, (8, 8), np.uint8)
                image[:, slice(*box)] += 150
                Image.fromarray(image).convert("RGB").save(tmp_path / "signs" / part / kind / f"{i}.png")
    arguments = ("--data", tmp_path / "signs", "--epochs", 5, "--members", members, "--out", tmp_path / "run")
    code, output, errors = invoke("train", *arguments)
    assert (code, errors) == (0, "")
    assert "signs: 50 training examples, 10 validation, 20 test" in output
    assert "test: 20 / 20 correct" in output
    model = handgrad.load(tmp_path / "run" / "model.safetensors")
    assert (model.classes, model.image_shape) == (("left", "right"), (8, 8))
    image = tmp_path / "signs" / "test" / "left" / "0.png"
    assert output.splitlines()[-1].endswith("IMAGE.png")
    assert image.exists()


def test_a_recipe_for_images_rejects_a_table_in_one_line(table: Path, tmp_path: Path, invoke) -> None:
    code, output, errors = invoke("train", "--data", table, "--recipe", "minute", "--out", tmp_path / "run")
    assert (code, output) == (2, "")
    assert "the recipe minute needs images (deskew, rotation, scale, shift, elastic, hog)" in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_an_explicit_validation_set_is_not_reduced(table: Path, tmp_path: Path, invoke) -> None:
    arguments = ("train", "--data", table, "--epochs", 1, "--quiet", "--out", tmp_path / "run")
    code, _, errors = invoke(*arguments, "--validation", 144)
    assert code == 2
    assert "validation 144: expected less than the 144 training examples, for example 24" in errors
    assert invoke(*arguments, "--validation", 100)[0] == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["validation"] == 100


def test_evaluate_matches_the_classes_by_name(table: Path, tmp_path: Path, invoke) -> None:
    assert invoke("train", "--data", table, "--epochs", 20, "--quiet", "--out", tmp_path / "run")[0] == 0
    model = tmp_path / "run" / "model.safetensors"
    lines = table.read_text().splitlines()
    some = tmp_path / "some.csv"
    some.write_text("\n".join([lines[0], *(line for line in lines[1:] if not line.endswith("elm"))]) + "\n")
    code, output, errors = invoke("evaluate", model, "--data", some, "--json")
    assert code == 0, errors
    assert json.loads(output)["accuracy"] > 0.9
    some.write_text(table.read_text().replace("elm", "yew"))
    code, _, errors = invoke("evaluate", model, "--data", some)
    assert code == 2
    assert "has the class 'yew': expected the classes ash, elm, oak of the model" in errors


def test_the_column_of_the_labels_can_be_chosen(tmp_path: Path, invoke) -> None:
    path, run = tmp_path / "people.csv", tmp_path / "run"
    rows = [f"{i % 3},{i % 2},{10.5 + 5 * (i % 2) + RNG.normal():.3f}" for i in range(90)]
    path.write_text("\n".join(["ticket,survived,age", *rows]) + "\n")
    code, output, errors = invoke("train", "--data", path, "--label", "survived", "--epochs", 20, "--out", run)
    assert (code, "2 features, 2 classes; the labels are the column 'survived'" in output) == (0, True), errors
    assert "- the labels are the column 'survived'" in (run / "model.md").read_text()
    for arguments in ((), ("--data", path), ("--data", path, "--label", 1)):
        code, output, errors = invoke("evaluate", run, *arguments, "--json")
        assert (code, json.loads(output)["total"]) == (0, 18), errors
        assert "the labels are the column 'survived'" in errors
    assert "continuing after epoch 20" in invoke("train", "--resume", run, "--epochs", 21)[1]
    assert "leave out --label" in invoke("train", "--resume", run, "--label", 0)[2]
    code, _, errors = invoke("train", "--data", path, "--label", "age", "--out", tmp_path / "other")
    assert code == 2
    assert errors.endswith("; the labels are the column 'age' (label or --label chooses another one)\n")


def test_the_column_of_the_labels_of_a_run_is_only_for_tables(tmp_path: Path, invoke) -> None:
    path, run = tmp_path / "people.csv", tmp_path / "run"
    rows = [f"{i % 3},{i % 2},{10.5 + 5 * (i % 2)}" for i in range(90)]
    path.write_text("\n".join(["ticket,survived,age", *rows]) + "\n")
    assert invoke("train", "--data", path, "--label", "survived", "--epochs", 1, "--quiet", "--out", run)[0] == 0
    np.savez(tmp_path / "own.npz", x=np.ones((4, 2)), y=np.arange(4) % 2)
    np.save(tmp_path / "x.npy", np.ones((4, 2)))
    for command in (("evaluate", run, "--data", tmp_path / "own.npz"), ("predict", run, "--data", tmp_path / "x.npy")):
        options = ("--out", tmp_path / "out.npy") if command[0] == "predict" else ()
        assert invoke(*command, *options)[0] == 0
        code, _, errors = invoke(*command, *options, "--label", "survived")
        assert (code, errors) == (
            2,
            f"handgrad: {command[-1]} is not a CSV file: leave out the column of its labels, 'survived'\n",
        )


def test_other_data_than_those_of_the_run_are_used_completely_and_in_their_order(
    table: Path, tmp_path: Path, invoke
) -> None:
    run, out = tmp_path / "run", tmp_path / "answers.csv"
    assert invoke("train", "--data", table, "--epochs", 20, "--quiet", "--out", run)[0] == 0
    header, *rows = table.read_text().splitlines()
    model = handgrad.load(run / "model.safetensors")
    for count in (58, 1):
        other = tmp_path / "other.csv"
        other.write_text("\n".join([header, *rows[-count:]]) + "\n")
        code, output, errors = invoke("evaluate", run, "--data", other)
        assert (code, f" / {count} correct" in output) == (0, True)
        assert errors == "data: the labels are the column 'kind'; all examples are used, in their order\n"
        done = invoke("predict", run, "--data", other, "--out", out)
        assert done == (0, f"{count:,} answers in {out}\n", "data: left out: the column 'kind'\n")
        x = [[float(cell) for cell in row.split(",")[:2]] for row in rows[-count:]]
        answers = [line.split(",")[:2] for line in out.read_text().splitlines()[1:]]
        assert answers == [[str(i), model.classes[k]] for i, k in enumerate(model.predict(x))]
    assert invoke("predict", run, "--data", table, "--out", out)[1] == f"180 answers in {out}\n"


def test_examples_without_labels_are_predicted(table: Path, tmp_path: Path, invoke) -> None:
    run, out = tmp_path / "run", tmp_path / "answers.npy"
    assert invoke("train", "--data", table, "--epochs", 20, "--quiet", "--out", run)[0] == 0
    lines = table.read_text().splitlines()
    x = np.array([[float(cell) for cell in line.split(",")[:2]] for line in lines[1:]])
    features = [line.rpartition(",")[0] for line in lines]
    (tmp_path / "features.csv").write_text("\n".join(features) + "\n")
    (tmp_path / "numbers.csv").write_text("\n".join(features[1:]) + "\n")
    numbered = [f"id,{features[0]}", *(f"{i},{line}" for i, line in enumerate(features[1:]))]
    (tmp_path / "numbered.csv").write_text("\n".join(numbered) + "\n")
    (tmp_path / "labelled.csv").write_text("\n".join(lines[1:]) + "\n")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "columns.npy", np.asfortranarray(x))
    np.savez(tmp_path / "x.npz", x=x)
    expected = handgrad.load(run / "model.safetensors").predict(x)
    for name in ("features.csv", "numbers.csv", "numbered.csv", "labelled.csv", "x.npy", "columns.npy", "x.npz"):
        done = invoke("predict", run, "--data", tmp_path / name, "--out", out)
        assert done[:2] == (0, f"180 answers in {out}\n"), (name, done)
        assert np.array_equal(np.load(out), expected), name
    for name, message in (
        ("features.csv", "features.csv has no column of labels: expected one next to the 2 features"),
        ("x.npz", "x.npz contains x: expected x_train, y_train, x_test and y_test, or x and y"),
    ):
        code, _, errors = invoke("evaluate", run, "--data", tmp_path / name)
        assert (code, message in errors) == (2, True), errors
    np.save(tmp_path / "x.npy", x[:, :1])
    assert (
        "x has shape (180, 1): expected (180, 2)"
        in invoke("predict", run, "--data", tmp_path / "x.npy", "--out", out)[2]
    )


def test_a_table_without_a_header_and_without_labels(tmp_path: Path, invoke) -> None:
    """The label is left out if there is one more column than features."""
    x, y = RNG.integers(0, 9, (60, 3)), np.arange(60) % 2
    x[:, 0] += 9 * y
    np.savetxt(tmp_path / "all.csv", np.column_stack([x, y]), "%d", delimiter=",")
    np.savetxt(tmp_path / "x.csv", x, "%d", delimiter=",")
    run, out = tmp_path / "run", tmp_path / "answers.npy"
    done = invoke("train", "--data", tmp_path / "all.csv", "--label", 3, "--epochs", 20, "--quiet", "--out", run)
    assert done[0] == 0, done[2]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "all.csv").write_text((tmp_path / "all.csv").read_text())
    for name in ("all.csv", "x.csv", "folder"):
        assert invoke("predict", run, "--data", tmp_path / name, "--out", out)[0] == 0
        assert np.array_equal(np.load(out), handgrad.load(run / "model.safetensors").predict(x))


def test_a_table_of_one_feature(tmp_path: Path, invoke) -> None:
    x, run, out = RNG.normal(size=60), tmp_path / "run", tmp_path / "answers.npy"
    (tmp_path / "all.csv").write_text("x,y\n" + "".join(f"{number},{int(number > 0)}\n" for number in x))
    (tmp_path / "x.csv").write_text("x\n" + "".join(f"{number}\n" for number in x))
    assert invoke("train", "--data", tmp_path / "all.csv", "--epochs", 20, "--quiet", "--out", run)[0] == 0
    for name in ("all.csv", "x.csv"):
        assert invoke("predict", run, "--data", tmp_path / name, "--out", out)[0] == 0
        assert np.array_equal(np.load(out), handgrad.load(run / "model.safetensors").predict(x[:, None]))


def test_columns_in_another_order_are_found_by_their_names(table: Path, tmp_path: Path, invoke) -> None:
    run, out = tmp_path / "run", tmp_path / "answers.csv"
    assert invoke("train", "--data", table, "--epochs", 20, "--quiet", "--out", run)[0] == 0
    assert handgrad.load(run / "model.safetensors").feature_names == ("height", "price")
    assert "| inputs | 2 numbers\\: height, price |" in (run / "model.md").read_text()
    other, cells = tmp_path / "other.csv", [line.split(",") for line in table.read_text().splitlines()]
    results = []
    for order in ([0, 1, 2], [1, 2, 0], [0, 2]):
        other.write_text("\n".join(",".join(row[i] for i in order) for row in cells) + "\n")
        evaluated = invoke("evaluate", run, "--data", other)
        predicted = invoke("predict", run, "--data", other, "--out", out)
        results.append((evaluated[:2], predicted[:2], out.read_text()))
    assert results[0] == results[1]
    for code, output, errors in (evaluated, predicted):
        assert (code, output) == (2, "")
        assert errors == "handgrad: other.csv has no column 'price': expected the features height, price\n"
    tuned = ("train", "--from", run, "--epochs", 1, "--quiet")
    assert invoke(*tuned, "--data", other, "--out", tmp_path / "no")[2] == errors
    other.write_text("\n".join(",".join(row[i] for i in (1, 2, 0)) for row in cells) + "\n")
    for name, data in (("same", table), ("other", other)):
        assert invoke(*tuned, "--data", data, "--out", tmp_path / name)[0] == 0
    models = [handgrad.load(tmp_path / name / "model.safetensors") for name in ("same", "other")]
    same, moved = (model.predict_proba([[20.0, 1e5], [30.0, 1e5]]) for model in models)
    np.testing.assert_array_equal(same, moved)


def test_images_of_another_size_are_resized_to_those_of_the_model(tmp_path: Path, invoke) -> None:
    for size, folder in ((8, "small"), (16, "large")):
        for kind, box in (("left", slice(0, size // 2)), ("right", slice(size // 2, size))):
            (tmp_path / folder / kind).mkdir(parents=True)
            for i in range(30):
                image = RNG.integers(0, 60, (size, size), np.uint8)
                image[:, box] += 150
                Image.fromarray(image).save(tmp_path / folder / kind / f"{i}.png")
    run, out = tmp_path / "run", tmp_path / "answers.npy"
    assert invoke("train", "--data", tmp_path / "small", "--epochs", 5, "--quiet", "--out", run)[0] == 0
    code, output, errors = invoke("evaluate", run, "--data", tmp_path / "large")
    assert (code, "60 / 60 correct" in output) == (0, True), errors
    assert "60 images of 60 are resized to 8x8 pixels; all examples are used, in their order" in errors
    assert invoke("predict", run, "--data", tmp_path / "large", "--out", out)[0] == 0
    assert np.load(out).tolist() == [0] * 30 + [1] * 30


def test_data_that_does_not_exist_is_one_line(tmp_path: Path, invoke) -> None:
    code, _, errors = invoke("train", "--data", tmp_path / "none.csv")
    assert code == 2
    assert "there is no data set" in errors


def test_warnings_of_the_training_are_lines_on_stderr(table: Path, tmp_path: Path, run) -> None:
    options = ("--data", table, "--lr", 1e-9, "--epochs", 30, "--batch-size", 10, "--json", "--out", "run")
    done = run("train", *options, cwd=tmp_path)  # other warnings are errors there
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("handgrad: warning: the training accuracy is ")
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 31


def test_a_number_to_predict_is_warned_of(tmp_path: Path, run) -> None:
    (tmp_path / "price.csv").write_text("a,price\n" + "".join(f"{i}.5,{i % 40}\n" for i in range(400)))
    done = run("train", "--data", "price.csv", "--label", "price", "--epochs", 1, "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "MLPRegressor" in line]
    assert line.startswith("handgrad: warning: price.csv: y has 40 different numbers in 400 examples")


def test_deskewing_images_with_a_bright_background_is_warned_of(tmp_path: Path, invoke) -> None:
    x = np.full((60, 8, 8), 250, np.uint8)
    x[np.arange(60), 3, np.arange(60) % 2 * 4 + 1] = 0
    np.savez(tmp_path / "own.npz", x=x, y=np.arange(60) % 2)
    arguments = ("train", "--data", tmp_path / "own.npz", "--epochs", 1, "--quiet")
    assert "bright background" in invoke(*arguments, "--deskew", "--out", tmp_path / "a")[2]
    assert invoke(*arguments, "--out", tmp_path / "b")[2] == ""


def test_evaluate_without_data_uses_that_of_the_run_or_asks_for_it(table: Path, tmp_path: Path, invoke) -> None:
    run = tmp_path / "run"
    code, _, errors = invoke("train", "--data", table, "--epochs", 2, "--out", run)
    assert code == 0, errors
    given, found = invoke("evaluate", run, "--data", table), invoke("evaluate", run)
    assert found[:2] == given[:2]
    assert found[2] == f"data: {table}, as in {run / 'config.json'}\n{given[2]}"
    assert given[2] == "data: the labels are the column 'kind'; the test set is a random 20% of the examples\n"
    config = run / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"setting of another version": 1}))
    assert invoke("evaluate", run, "--data", table) == given
    alone = (run / "model.safetensors").rename(tmp_path / "alone.safetensors")
    code, output, errors = invoke("evaluate", alone)
    assert (code, output) == (2, "")
    assert errors == f"handgrad: {alone} expects rows of 2 numbers: give their file with --data\n"
