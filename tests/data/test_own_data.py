"""Own data: arrays, tables, NumPy archives and folders of images, with labels of any kind."""

from __future__ import annotations

import gzip
import warnings
import zipfile

import numpy as np
import pandas
import polars
import pytest
import scipy.sparse
from PIL import Image

from handgrad import HandgradError, Network
from handgrad.data import Dataset, load
from handgrad.data.archives import read_npz
from handgrad.data.dataset import split_by_class
from handgrad.data.labels import encode_labels
from handgrad.errors import HandgradWarning

RNG = np.random.default_rng(5)
PIXELS = RNG.integers(0, 256, (40, 6, 5), np.uint8)
NUMBERS = RNG.normal(100, 20, (40, 3))
KINDS = np.array(["cat", "dog", "emu"])[np.arange(40) % 3]


def pairs(x_train, y_train, x_test, y_test, classes) -> set[tuple[bytes, str]]:
    """Each example with the name of its class."""
    x, y = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
    return {(np.asarray(row, float).tobytes(), classes[label]) for row, label in zip(x, y, strict=True)}


def contents(dataset: Dataset) -> set[tuple[bytes, str]]:
    return pairs(dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test, dataset.classes)


def expected(x, names) -> set[tuple[bytes, str]]:
    return {(np.asarray(row, float).tobytes(), str(name)) for row, name in zip(x, names, strict=True)}


# ---- Labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("y", "indices", "classes"),
    [
        ([0, 1, 2, 1], [0, 1, 2, 1], ("0", "1", "2")),
        ([5, 9, 5], [0, 1, 0], ("5", "9")),
        ([-1, 1, -1], [0, 1, 0], ("-1", "1")),
        ([3.0, 7.0], [0, 1], ("3", "7")),
        (["b", "a", "b"], [1, 0, 1], ("a", "b")),
        (["10", "9", "2"], [2, 1, 0], ("2", "9", "10")),
        ([True, False], [1, 0], ("False", "True")),
        ([b"b", b"a"], [1, 0], ("a", "b")),
        ([[0, 1], [1, 0], [0, 1]], [1, 0, 1], ("0", "1")),
        ([[4], [6]], [0, 1], ("4", "6")),
        (np.array(["b", "a"], np.dtypes.StringDType()), [1, 0], ("a", "b")),
        (np.array(["x", 3], object), [1, 0], ("3", "x")),
        (np.array([4, 2.0], object), [1, 0], ("2", "4")),
        (pandas.Series(["b", "a"], dtype="category"), [1, 0], ("a", "b")),
        (pandas.Series([7, 8], dtype="Int64"), [0, 1], ("7", "8")),
        (polars.Series(["b", "a"]), [1, 0], ("a", "b")),
        (np.array(["2024-01-02", "2023-01-02"], "datetime64[D]"), [1, 0], ("2023-01-02", "2024-01-02")),
    ],
)
def test_labels_of_any_kind(y, indices, classes) -> None:
    encoded, _, names = encode_labels(y)
    assert encoded.tolist() == indices
    assert names == classes


@pytest.mark.parametrize(
    ("y", "classes", "names", "indices"),
    [
        ([0, 2, 0], ["a", "b", "c"], ("a", "b", "c"), [0, 2, 0]),
        ([1, 2, 1], ["a", "b"], ("a", "b"), [0, 1, 0]),
        (["no", "yes"], ["yes", "no"], ("yes", "no"), [1, 0]),
        ([3, 5], {3: "three", 5: "five"}, ("three", "five"), [0, 1]),
        (["u", "v"], ["up", "down"], ("up", "down"), [0, 1]),
    ],
)
def test_names_of_the_classes(y, classes, names, indices) -> None:
    encoded, _, found = encode_labels(y, None, classes)
    assert (encoded.tolist(), found) == (indices, names)


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        ([0.5, 1.0], {}, "contains the label 0.5: expected integers"),
        ([np.nan, 1.0], {}, "contains a missing label"),
        (np.array(["a", None], object), {}, r"y\[1\] is missing"),
        (["a", ""], {}, r"y\[1\] is empty"),
        ([[0.2, 0.8]], {}, "expected one label for each example"),
        (list(range(100)), {}, "100 different labels in 100 examples: .* MLPRegressor"),
        ([0, 1], {"y_test": [0, 2]}, "y_test contains the label 2: expected those of the training set, 0, 1"),
        (["a", "b"], {"y_test": ["c"]}, "y_test contains the label c: expected those of the training set, a, b"),
        ([0, 1], {"classes": ["a"]}, "classes has 1 names"),
        ([0, 1], {"classes": {0: "a"}}, "no name for the label 1"),
        ([0, 1], {"classes": "ab"}, "must be a list of names"),
        ([0, 1], {"classes": {"a", "b"}}, "must be a list of names"),
        ([], {}, "no labels"),
    ],
)
def test_labels_that_are_rejected(rejects, y, options, message) -> None:
    with rejects(message):
        encode_labels(y, **options)


# ---- Arrays ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16, np.int32])
def test_integer_pixels_of_any_type_are_the_same_images(dtype) -> None:
    dataset = Dataset.from_arrays(PIXELS.astype(dtype), KINDS)
    assert dataset.x_train.dtype == np.uint8
    assert contents(dataset) == expected(PIXELS, KINDS)


@pytest.mark.parametrize(
    "x",
    [
        PIXELS / 255,
        (PIXELS / 255).astype(np.float32),
        PIXELS[..., None],
        PIXELS[:, None],
        np.stack([PIXELS] * 3, axis=3),
        np.stack([PIXELS] * 3, axis=1),
        np.stack([PIXELS / 255] * 3, axis=3),
    ],
    ids=["float64", "float32", "one channel", "one channel first", "colour", "colour first", "float colour"],
)
def test_images_of_other_layouts_are_the_same_images(x) -> None:
    assert contents(Dataset.from_arrays(x, KINDS)) == expected(PIXELS, KINDS)


def test_images_have_one_rule_for_pixels(rejects) -> None:
    with rejects("float pixels from .* expected \\[0, 1\\]; divide"):
        Dataset.from_arrays(PIXELS.astype(float), KINDS)
    with rejects("integer pixels from .* to 300: expected 0 to 255"):
        Dataset.from_arrays(np.full((40, 2, 2), 300), KINDS)


def test_two_dimensional_arrays_are_numbers_whatever_their_type() -> None:
    x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]] * 5, np.uint8)
    dataset = Dataset.from_arrays(x, [0, 1, 1, 0] * 5)
    assert dataset.x_train.dtype == np.float32
    assert dataset.x_train.max() == 1
    assert not dataset.is_images


@pytest.mark.parametrize("frame", [pandas.DataFrame, lambda x: polars.DataFrame(x), np.ndarray.tolist])
def test_frames_and_lists_are_numbers(frame) -> None:
    assert contents(Dataset.from_arrays(frame(NUMBERS), KINDS)) == expected(NUMBERS, KINDS)


def test_a_frame_with_columns_of_several_types() -> None:
    frame = pandas.DataFrame({"a": np.arange(40), "b": np.arange(40) / 2, "c": [True, False] * 20})
    x = np.stack([np.arange(40), np.arange(40) / 2, [1, 0] * 20], axis=1)
    assert contents(Dataset.from_arrays(frame, pandas.Series(KINDS))) == expected(x, KINDS)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (pandas.DataFrame({"a": ["red"] * 40}), r"x\[0, 0\] is 'red': expected a number"),
        (np.full((40, 2), np.nan), "nan: expected a number"),
        (NUMBERS[:, 0], "expected numbers"),
        (NUMBERS[:30], "x has 30 examples and y has 40 labels"),
        (np.zeros((40, 4, 4, 2)), "1 or 3 channels"),
        (np.zeros((40, 0)), "expected numbers"),
        (NUMBERS[:0], r"x is empty, with shape \(0, 3\): expected numbers"),
        (scipy.sparse.csr_array(NUMBERS), r"pass x.toarray\(\)"),
        (polars.LazyFrame({"a": range(40)}), r"pass x.collect\(\)"),
        (np.ma.masked_less(NUMBERS, NUMBERS.mean()), "masked values"),
        (iter(NUMBERS), "expected numbers"),
    ],
)
def test_arrays_that_are_rejected(rejects, x, message) -> None:
    with rejects(message):
        Dataset.from_arrays(x, KINDS)


def test_the_test_set_has_a_share_of_each_class_and_is_always_the_same() -> None:
    labels = np.repeat([0, 1, 2, 3], [50, 20, 5, 1])
    train, test = split_by_class(labels, 0.2)
    assert sorted([*train, *test]) == list(range(76))
    assert np.bincount(labels[test], minlength=4).tolist() == [10, 4, 1, 0]
    assert len(set(labels[train[:20]])) > 1  # not sorted
    again = split_by_class(labels, 0.2)
    np.testing.assert_array_equal(test, again[1])
    assert [len(part) for part in split_by_class(np.array([0, 0]), 0.01)] == [1, 1]


def test_given_test_sets_are_not_changed() -> None:
    dataset = Dataset.from_arrays(NUMBERS[:30], KINDS[:30], NUMBERS[30:], KINDS[30:], name="zoo")
    np.testing.assert_array_equal(dataset.x_test, NUMBERS[30:])
    np.testing.assert_array_equal(dataset.x_train, NUMBERS[:30])
    assert repr(dataset) == "zoo: 30 training examples, 10 test examples, 3 features, 3 classes"


def test_data_that_are_not_divided(tmp_path) -> None:
    labels = np.arange(40)  # more than a training accepts
    dataset = Dataset.from_arrays(NUMBERS, labels, divide=False)
    for x, y in ((dataset.x_train, dataset.y_train), (dataset.x_test, dataset.y_test)):
        np.testing.assert_array_equal(x, NUMBERS)
        np.testing.assert_array_equal(y, labels)
    np.savez(tmp_path / "own.npz", x=NUMBERS, y=KINDS)
    write_table(tmp_path / "own.csv", NUMBERS, KINDS)
    write_images(tmp_path / "own", PIXELS[:9], KINDS[:9])
    by_class = [0, 3, 6, 1, 4, 7, 2, 5, 8]
    for path, x in (("own.npz", NUMBERS), ("own.csv", NUMBERS), ("own", PIXELS[by_class])):
        dataset = load(tmp_path / path, divide=False)
        np.testing.assert_array_equal(dataset.x_test, x)
        assert dataset.notes[-1] == "all examples are used, in their order"


def test_labels_that_seem_to_be_numbers_to_predict_are_warned_of() -> None:
    x, prices = np.arange(400.0)[:, None], np.arange(400) % 40 * 3
    with pytest.warns(HandgradWarning, match="shop: y has 40 different numbers in 400 examples.* MLPRegressor"):
        Dataset.from_arrays(x, prices, name="shop")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Dataset.from_arrays(x, prices, classes=[str(price) for price in range(0, 120, 3)])
        Dataset.from_arrays(x, [f"person {price}" for price in prices])
        Dataset.from_arrays(np.tile(x, (3, 1)), np.tile(prices, 3))  # 30 examples of a class
        Dataset.from_arrays(x, np.arange(400) % 20)


def test_training_examples_that_are_sorted_by_class_are_shuffled() -> None:
    order = np.argsort(KINDS, kind="stable")
    dataset = Dataset.from_arrays(NUMBERS[order], KINDS[order], NUMBERS[:5], KINDS[:5])
    assert contents(dataset) == expected(NUMBERS, KINDS)
    assert len(set(dataset.split(10).validation[1])) == 3
    assert dataset.notes == ("the training examples are shuffled, because they are sorted by class",)


def test_validation_is_a_sixth_of_a_small_set() -> None:
    split = Dataset.from_arrays(NUMBERS[:30], KINDS[:30], NUMBERS[30:], KINDS[30:]).split()
    assert [len(y) for _, y in split] == [25, 5, 10]


def test_with_classes_gives_the_labels_of_a_model(rejects) -> None:
    dataset = Dataset.from_arrays(NUMBERS, KINDS)
    wider = dataset.with_classes(["emu", "ape", "dog", "cat"])
    assert wider.classes == ("emu", "ape", "dog", "cat")
    assert contents(wider) == contents(dataset)
    assert dataset.with_classes(dataset.classes) is dataset
    with rejects("has the class 'emu': expected the classes dog, cat of the model"):
        dataset.with_classes(["dog", "cat"])
    numbered = Dataset.from_arrays(NUMBERS, np.arange(40) % 3)
    assert numbered.with_classes(["a", "b", "c"]) is numbered
    assert (numbered.with_classes(["-1", "0", "1", "2"]).y_train == numbered.y_train + 1).all()


# ---- Tables ----------------------------------------------------------------------------------------------------------


def write_table(path, x, y, header=None, first=True, delimiter=","):
    rows = [[name, *row] if first else [*row, name] for row, name in zip(x.tolist(), y, strict=True)]
    lines = [delimiter.join(map(str, row)) for row in ([header] if header else []) + rows]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


FLAT = PIXELS.reshape(40, 30)
SQUARE = RNG.integers(0, 256, (40, 64), np.uint8)


def test_kaggle_table_has_images(tmp_path) -> None:
    x = RNG.integers(0, 256, (40, 49), np.uint8)
    y = np.arange(40) % 10
    path = write_table(tmp_path / "train.csv", x, y, ["label", *(f"pixel{i}" for i in range(49))])
    dataset = load(path)
    assert dataset.x_train.shape[1:] == (7, 7)
    assert contents(dataset) == expected(x.reshape(-1, 7, 7), y)
    assert dataset.classes == tuple("0123456789")
    assert dataset.notes == ("the labels are the column 'label'", "the test set is a random 20% of the examples")
    frame = pandas.read_csv(path)
    assert contents(dataset) == contents(
        Dataset.from_arrays(frame.drop(columns="label").to_numpy().reshape(-1, 7, 7), frame["label"])
    )


def test_tables_with_positions_or_without_a_header_have_images(tmp_path) -> None:
    y = np.arange(40) % 3
    names = [f"{row + 1}x{column + 1}" for row in range(6) for column in range(5)]
    dataset = load(write_table(tmp_path / "a.csv", FLAT, y, ["label", *names]))
    assert contents(dataset) == expected(PIXELS, y)
    dataset = load(write_table(tmp_path / "b.csv", SQUARE, y))
    assert contents(dataset) == expected(SQUARE.reshape(-1, 8, 8), y)
    assert load(write_table(tmp_path / "c.csv", SQUARE // 16, y)).x_train.ndim == 2  # 0 to 15 are numbers
    numbers = load(write_table(tmp_path / "d.csv", SQUARE, y, ["label", *(f"sensor{i}" for i in range(64))]))
    assert numbers.x_train.ndim == 2


@pytest.mark.parametrize(
    ("delimiter", "header", "first"),
    [
        *((",", header, first) for header in (["kind", "a", "b", "c"], None) for first in (True, False)),
        *[(";", None, False), ("\t", ["kind", "a", "b", "c"], False), ("|", None, True), (" ", None, False)],
    ],
)
def test_tables_of_numbers_with_labels_of_text(tmp_path, delimiter, header, first) -> None:
    if header and not first:
        header = [*header[1:], header[0]]
    path = write_table(tmp_path / "zoo.csv", NUMBERS, KINDS, header, first, delimiter)
    assert contents(load(path)) == expected(NUMBERS, KINDS)


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\na;b;kind\n{}",  # Excel
        "# measured in May\na,b,kind\n{}",
        "a,b,kind,\n{,}",  # a delimiter at the end of each row
        "a,b,kind\n{,}",
        "a,b,kind\n{number}",  # R's write.table
        "0,1,label\n{}",  # DataFrame(array) with a column of labels
        ",0,1,label\n{number}",
        'a, b, "kind"\n{space}',
        "id,a,b,kind\n{text}",
    ],
)
def test_tables_as_other_programs_write_them(tmp_path, text) -> None:
    delimiter = ";" if ";" in text else ","
    start, _, kind = text.rstrip("}").partition("{")
    rows = []
    for i in range(40):
        row = [f"{i}.5", f"{i}", ["cat", "dog"][i % 2]]
        row = {"number": [str(i), *row], "text": [f"user{i}", *row], ",": [*row, ""]}.get(kind, row)
        rows.append(", ".join([*row[:-1], f'"{row[-1]}"']) if kind == "space" else delimiter.join(row))
    (tmp_path / "table.csv").write_text(start + "\n".join(rows))
    dataset = load(str(tmp_path / "table.csv"))
    assert dataset.classes == ("cat", "dog")
    assert len(dataset.x_train) + len(dataset.x_test) == 40
    assert np.concatenate([dataset.x_train, dataset.x_test]).sum(axis=0).tolist() == [800.0, 780.0]


def test_comments_with_as_many_cells_as_the_rows_are_left_out(tmp_path) -> None:
    text = "# one, two, three\n# a,b,label\n" + "1.5,2,x\n3.5,4,y\n" * 10
    (tmp_path / "table.csv").write_text(text)
    assert load(str(tmp_path / "table.csv")).feature_names == ("a", "b")


def test_a_label_can_be_a_number_sign(tmp_path) -> None:
    (tmp_path / "table.csv").write_text("#,1.5,2\n#,2.5,3\na,3.5,1\na,1.5,2\n" * 5)
    dataset = load(str(tmp_path / "table.csv"))
    assert (dataset.classes, len(dataset.y_train) + len(dataset.y_test)) == (("#", "a"), 20)


def test_labels_with_line_breaks_are_rejected(rejects, tmp_path) -> None:
    rows = "1.5,2,x\n3.5,4,y\n"
    (tmp_path / "table.csv").write_text(f'a,b,label\n{rows}1.5,2,"x\n{rows * 5}1.5,2,x"\n{rows * 5}')
    with rejects("line 15 ends a label with a line break: close the quotation mark before it"):
        load(str(tmp_path / "table.csv"))


def test_long_labels_are_rejected(rejects, tmp_path) -> None:
    path = write_table(tmp_path / "table.csv", NUMBERS, [*KINDS[:-1], "x" * 100_000])
    with rejects("line 40 has a label of 100,000 characters: expected at most 1,000"):
        load(path)


def test_a_table_without_rows_is_rejected(rejects, tmp_path) -> None:
    (tmp_path / "table.csv").write_text("a,b,kind\n")
    with rejects("has no rows"):
        load(str(tmp_path / "table.csv"))


def test_the_column_of_labels(tmp_path) -> None:
    y = np.arange(40) % 2
    x = np.column_stack([np.arange(40), NUMBERS])
    path = write_table(tmp_path / "a.csv", x, y, ["id", "a", "b", "c", "Target"], first=False)
    assert contents(load(path)) == expected(NUMBERS, y)
    assert load(path).notes[:2] == ("the labels are the column 'Target'", "left out: the column 'id'")
    path = write_table(tmp_path / "e.csv", NUMBERS.round(), y, ["a", "b", "c", "Class"], first=False)
    assert contents(load(path)) == expected(NUMBERS.round(), y)
    path = write_table(tmp_path / "b.csv", NUMBERS, y, first=False)  # fractions in the first column
    assert contents(load(path)) == expected(NUMBERS, y)
    path = write_table(tmp_path / "c.csv", NUMBERS.round(), y, ["a", "b", "c", "d"], first=False)
    for label in ("d", "3", -1):
        assert contents(load(path, label=label)) == expected(NUMBERS.round(), y)


def test_the_column_of_labels_is_rejected_for_data_without_columns(rejects, tmp_path) -> None:
    x, y = np.zeros((10, 4)), np.arange(10) % 2
    np.savez(tmp_path / "own.npz", x=x, y=y)
    (tmp_path / "numbers").mkdir()
    for name in ("train-images", "test-images"):
        np.save(tmp_path / f"numbers/{name}.npy", np.zeros((10, 8, 8), np.uint8))
        np.save(tmp_path / f"numbers/{name.replace('images', 'labels')}.npy", y)
    for data in ("synthetic", "mnist", tmp_path / "own.npz", tmp_path / "numbers"):
        with rejects(f"{data} is not a CSV file: leave out the column of its labels, 'species'"):
            load(data, label="species")


def test_columns_are_found_by_the_names_of_the_features(rejects, tmp_path) -> None:
    path = write_table(tmp_path / "a.csv", NUMBERS, KINDS, ["kind", "a", "b", "c"])
    data = load(path)
    assert data.feature_names == ("a", "b", "c")
    other = np.column_stack([NUMBERS[:, [2, 0]], np.arange(40) % 5, NUMBERS[:, 1]])
    path = write_table(tmp_path / "b.csv", other, KINDS, ["species", "c", "a", "more", "b"])
    found = load(path, feature_names=data.feature_names)
    np.testing.assert_array_equal(found.x_test, data.x_test)
    assert (found.feature_names, found.classes) == (data.feature_names, data.classes)
    assert found.notes[:2] == ("the labels are the column 'species'", "left out: the column 'more'")
    assert set(load(path, label="more", feature_names=data.feature_names).classes) == set("01234")
    with rejects("b.csv has no column 'd': expected the features a, d"):
        load(path, feature_names=["a", "d"])
    with rejects("the column 'a' is a feature of the model: it cannot be the label"):
        load(path, label="a", feature_names=data.feature_names)
    path = write_table(tmp_path / "c.csv", NUMBERS, KINDS, ["kind", "a", "b", "b"])
    assert load(path).feature_names is None
    with rejects("c.csv has two columns 'b'"):
        load(path, feature_names=["a", "b"])
    path = write_table(tmp_path / "d.csv", NUMBERS, NUMBERS[:, 0], ["a", "b", "c", "d"])
    with rejects("d.csv has no column of labels: expected one next to the 4 features"):
        load(path, feature_names=["b", "a", "c", "d"])


def test_tables_that_programs_write(tmp_path) -> None:
    frame = pandas.DataFrame(NUMBERS, columns=["a", "b, c", 'd"e']).assign(species=KINDS)
    wanted = expected(NUMBERS, KINDS)
    for index, encoding in ((True, "utf-8"), (False, "utf-8-sig"), (False, "utf-16")):
        frame.to_csv(tmp_path / "p.csv", index=index, encoding=encoding)
        assert contents(load(str(tmp_path / "p.csv"))) == wanted
    frame.to_csv(tmp_path / "p.csv", index=False, sep=";", decimal=",")
    assert contents(load(str(tmp_path / "p.csv"))) == wanted
    pandas.DataFrame(SQUARE).assign(label=np.arange(40) % 3).to_csv(tmp_path / "p.csv", index=False)
    assert load(str(tmp_path / "p.csv")).x_train.shape[1:] == (8, 8)
    table = np.column_stack([np.arange(40) % 3, SQUARE])
    pandas.DataFrame(table).to_csv(tmp_path / "p.csv", index=False)  # the header is 0, 1, 2, ...
    assert contents(load(str(tmp_path / "p.csv"))) == expected(SQUARE.reshape(-1, 8, 8), np.arange(40) % 3)
    np.savetxt(tmp_path / "p.csv", table, header="label " + " ".join(f"pixel{i}" for i in range(64)))
    assert contents(load(str(tmp_path / "p.csv"))) == expected(SQUARE.reshape(-1, 8, 8), np.arange(40) % 3)
    text = "\r\n".join(f'"{kind}";{a:g};{b:g}' for kind, (a, b, _) in zip(KINDS, NUMBERS, strict=True))
    (tmp_path / "p.csv.gz").write_bytes(gzip.compress(text.encode("latin-1")))
    assert load(str(tmp_path / "p.csv.gz")).classes == ("cat", "dog", "emu")


def test_a_table_with_a_partner_for_testing(tmp_path) -> None:
    y = np.arange(40) % 3
    header = ["label", "a", "b", "c"]
    path = write_table(tmp_path / "zoo_train.csv", NUMBERS[:30], y[:30], header)
    write_table(tmp_path / "zoo_test.csv", NUMBERS[30:], y[30:], header)
    dataset = load(path)
    np.testing.assert_array_equal(dataset.x_test, NUMBERS[30:])
    assert dataset.notes[-1] == "the test set is zoo_test.csv"
    assert dataset.y_train.tolist() != y[:30].tolist()  # shuffled
    assert contents(dataset) == contents(load(str(tmp_path))) == expected(NUMBERS, y)
    (tmp_path / "zoo_test.csv").write_text("a,b,c\n1,2,3\n4,5,6\n")  # without labels, as Kaggle's
    assert len(load(path).x_test) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label,a\n0,1\n1\n", r"t.csv, line 3 has 1 cells: expected 2"),
        ("label,a\n0,1\n1,\n0,1\n", r"line 3, column 'a' has no value"),
        ("label,a\n0,1\n1,red\n0,1\n", r"line 3, column 'a' contains 'red': expected a number"),
        ("label,a\n0,1\n,2\n0,1\n", r"line 3 has no label"),
        ("label,a\n0,1\n1,inf\n0,1\n", r"line 3, column 'a' contains 'inf'"),
        ("abc\ndef\n", "t.csv is not a table"),
        ("", "t.csv is not a table"),
        ("label,a\n", "expected"),
        ("a\0b", "not a text file"),
        ('label,a\n0,"1\n', "line|expected"),
    ],
)
def test_tables_that_are_rejected(rejects, tmp_path, text, message) -> None:
    (tmp_path / "t.csv").write_text(text)
    with rejects(message):
        load(str(tmp_path / "t.csv"))


# ---- NumPy archives --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "y_train", "X_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
    ],
)
def test_npz_with_a_test_set(tmp_path, names) -> None:
    arrays = (PIXELS[:30], KINDS[:30], PIXELS[30:], KINDS[30:])
    np.savez_compressed(tmp_path / "own.npz", **dict(zip(names, arrays, strict=True)))
    dataset = load(str(tmp_path / "own.npz"))
    np.testing.assert_array_equal(dataset.x_train, PIXELS[:30])
    np.testing.assert_array_equal(dataset.x_test, PIXELS[30:])
    assert contents(dataset) == expected(PIXELS, KINDS)
    assert dataset.name == "own.npz"


def test_npz_without_a_test_set(tmp_path) -> None:
    for save in ({"x": NUMBERS, "y": KINDS}, {"data": NUMBERS, "target": KINDS}, {"arr_0": NUMBERS, "arr_1": KINDS}):
        np.savez(tmp_path / "own.npz", **save)
        dataset = load(str(tmp_path / "own.npz"))
        assert contents(dataset) == expected(NUMBERS, KINDS)
        assert len(dataset.x_test) == 9


def test_npz_with_validation_sorted_by_class_and_with_names(tmp_path) -> None:
    order = np.argsort(KINDS[:20], kind="stable")
    y = np.unique(KINDS, return_inverse=True)[1]
    arrays = {"train_images": PIXELS[order], "train_labels": y[order], "classes": np.array(["cat", "dog", "emu"])}
    arrays |= {"test_images": PIXELS[20:], "test_labels": y[20:, None]}
    np.savez(tmp_path / "own.npz", **arrays)
    dataset = load(str(tmp_path / "own.npz"))
    assert contents(dataset) == expected(PIXELS, KINDS)
    assert (np.diff(dataset.y_train.astype(int)) < 0).any()
    arrays |= {"val_images": PIXELS[:5], "val_labels": y[:5]}
    np.savez(tmp_path / "own.npz", **arrays)
    assert len(load(str(tmp_path / "own.npz")).x_train) == 25


def test_npz_files_that_are_rejected(rejects, tmp_path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, a=NUMBERS)
    with rejects("own.npz contains a: expected x_train"):
        load(str(path))
    np.savez(path, x=NUMBERS, y=np.array([{}, None], object))
    with rejects("Python objects"):
        load(str(path))
    path.write_bytes(b"PK\3\4 no archive")
    with rejects("is not an .npz file, or is damaged"):
        load(str(path))
    with zipfile.ZipFile(path, "w") as archive:  # a header that claims more than there is
        archive.writestr("x.npy", _npy((10**9, 10**9), b""))
    with rejects("damaged"):
        load(str(path))


def _npy(shape, data) -> bytes:
    header = str({"descr": "<f8", "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + data


def test_a_single_name_of_a_class_in_an_npz_file_is_rejected(rejects, tmp_path) -> None:
    np.savez(tmp_path / "own.npz", x=NUMBERS, y=np.arange(40) % 2, classes=np.array("cat"))
    with rejects("classes has 1 names and y has the 2 labels 0, 1"):
        load(str(tmp_path / "own.npz"))


def test_damaged_npz_files_give_one_line(tmp_path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, x=NUMBERS, y=np.asfortranarray(PIXELS[:, 0]))
    np.testing.assert_array_equal(read_npz(path)["y"], PIXELS[:, 0])
    good, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(good)
        for position in rng.integers(0, len(good), rng.integers(1, 5)):
            data[position] = rng.integers(256)
        path.write_bytes(data[: rng.integers(1, len(good)) if rng.random() < 0.3 else len(good)])
        message = ""
        try:
            read_npz(path)
        except HandgradError as error:
            message = str(error)
        assert "\n" not in message


# ---- Folders of images -----------------------------------------------------------------------------------------------


def write_images(folder, images, names, mode="L", suffix="png"):
    for i, (image, name) in enumerate(zip(images, names, strict=True)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).convert(mode).save(folder / name / f"{i}.{suffix}")
    return str(folder)


DARK = PIXELS // 2


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_folder_with_one_folder_of_images_per_class(tmp_path, mode) -> None:
    path = write_images(tmp_path / "zoo", DARK, KINDS, mode)
    (tmp_path / "zoo" / "notes.txt").write_text("no image")
    (tmp_path / "zoo" / ".hidden").mkdir()
    (tmp_path / "zoo" / "cat" / "Thumbs.db").write_bytes(b"no image")
    dataset = load(path)
    assert contents(dataset) == expected(DARK, KINDS)
    assert (dataset.name, dataset.classes, len(dataset.x_test)) == ("zoo", ("cat", "dog", "emu"), 9)


def test_folder_with_train_and_test(tmp_path) -> None:
    write_images(tmp_path / "train", DARK[:30], KINDS[:30])
    write_images(tmp_path / "test", DARK[30:], KINDS[30:])
    dataset = load(str(tmp_path))
    assert contents(dataset) == expected(DARK, KINDS)
    assert len(dataset.x_test) == 10
    assert dataset.y_train.tolist() != sorted(dataset.y_train.tolist())


def test_folders_next_to_train_and_test_are_left_out_with_a_note(tmp_path) -> None:
    for part in ("train", "val", "test"):
        write_images(tmp_path / part, DARK, KINDS)
    dataset = load(tmp_path)
    assert (len(dataset.x_train), len(dataset.x_test)) == (len(KINDS), len(KINDS))
    assert dataset.notes[0] == "left out: the folder 'val'"
    (tmp_path / "extra").mkdir()
    assert load(tmp_path).notes[0] == "left out: the folders 'extra', 'val'"


def test_folder_names_that_are_numbers_are_sorted_as_numbers(tmp_path) -> None:
    write_images(tmp_path, DARK, (np.arange(40) % 11).astype(str))
    assert load(str(tmp_path)).classes == tuple(map(str, range(11)))


def test_images_are_resized_to_the_most_common_or_the_given_size(tmp_path) -> None:
    odd = np.full((12, 10), 40, np.uint8)
    path = write_images(tmp_path / "zoo", [*DARK, odd], [*KINDS, "dog"])
    dataset = load(path)
    assert dataset.x_train.shape[1:] == (6, 5)
    assert (np.full((6, 5), 40.0).tobytes(), "dog") in contents(dataset)
    assert dataset.notes[0] == "1 images of 41 are resized to 6x5 pixels"
    assert load(path, size=(4, 8)).x_train.shape[1:] == (4, 8)
    large = write_images(tmp_path / "large", np.zeros((10, 300, 100), np.uint8), ["a", "b"] * 5)
    assert load(large).x_train.shape[1:] == (64, 21)


def test_images_with_a_bright_background_are_inverted(tmp_path) -> None:
    dataset = load(write_images(tmp_path, 255 - DARK, KINDS))
    assert contents(dataset) == expected(DARK, KINDS)
    assert dataset.notes[0] == "the images are inverted, because their background is bright"


def test_folders_that_are_rejected(rejects, tmp_path) -> None:
    with rejects("contains neither IDX files nor a folder of images for each class"):
        load(str(tmp_path))
    write_images(tmp_path, DARK[:2], ["cat", "cat"])
    with rejects("at least two classes"):
        load(str(tmp_path))
    write_images(tmp_path, DARK[:2], ["dog", "dog"])
    (tmp_path / "dog" / "0.png").write_bytes(b"damaged")
    with rejects(r"dog.0\.png"):
        load(str(tmp_path))


def test_hidden_folders_and_test_images_without_classes_are_left_out(tmp_path) -> None:
    write_images(tmp_path / "train", DARK, KINDS)
    (tmp_path / "test").mkdir()
    Image.fromarray(DARK[0]).save(tmp_path / "test" / "0.png")
    hidden = next(entry for entry in (tmp_path / "train").iterdir() if entry.is_dir()) / ".ipynb_checkpoints"
    hidden.mkdir()
    (hidden / "1.png").write_bytes(b"damaged")
    dataset = load(str(tmp_path))
    assert contents(dataset) == expected(DARK, KINDS)
    assert dataset.notes[0] == "test is left out, because it has no folders of the classes"


@pytest.mark.parametrize("size", [20, (0, 20), (10, 20, 30), (10**6, 10**6), "28", (2.5, 3)])
def test_sizes_that_are_rejected(rejects, tmp_path, size) -> None:
    write_images(tmp_path, DARK, KINDS)
    with rejects("size must be"):
        load(str(tmp_path), size=size)


def test_archives_with_capital_letters_dates_and_files_of_macos(tmp_path) -> None:
    path = tmp_path / "OWN.NPZ"
    with path.open("wb") as file:
        np.savez(file, x=NUMBERS, y=np.array(["2026-01-01", "2026-02-01"], "M8[D]")[np.arange(40) % 2])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/._x.npy", b"no array")
    assert load(str(path)).classes == ("2026-01-01", "2026-02-01")


def test_paths_that_are_no_data_set(rejects, tmp_path) -> None:
    with rejects("there is no data set .*: expected mnist, synthetic, a directory"):
        load(str(tmp_path / "nothing"))
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    with rejects("is not a data set that handgrad reads"):
        load(str(tmp_path / "table.parquet"))


def test_names_that_are_too_long_are_one_line(rejects) -> None:
    with rejects("cannot read n+: File name too long"):
        load("n" * 300)


def test_load_renames_the_classes(tmp_path) -> None:
    np.savez(tmp_path / "own.npz", x=NUMBERS, y=np.arange(40) % 3)
    assert load(str(tmp_path / "own.npz"), classes=["a", "b", "c"]).classes == ("a", "b", "c")
    assert load(str(tmp_path / "own.npz"), classes={0: "a", 1: "b", 2: "c"}).classes == ("a", "b", "c")


@pytest.mark.parametrize("column", [0, 1, 2])
@pytest.mark.parametrize("number", ["7", "7.5"])
def test_labels_with_leading_zeros_are_not_merged_with_numbers(column, number, tmp_path):
    rows = [[number, "3"] for _ in range(40)]
    for i, row in enumerate(rows):
        row.insert(column, ("1", "01")[i % 2])
    path = tmp_path / "codes.csv"
    names = ["a", "b"]
    names.insert(column, "label")
    path.write_text("\n".join(",".join(row) for row in [names, *rows]) + "\n")
    assert set(load(path).classes) == {"1", "01"}


def test_names_of_classes_must_be_different(rejects):
    x, y = np.eye(4), [0, 1, 0, 1]
    for classes in (["cat", "cat"], {0: "cat", 1: "cat"}):
        with rejects("classes has the name 'cat' twice"):
            Dataset.from_arrays(x, y, classes=classes)
    with rejects("classes has the name '1' twice"):
        load("synthetic", classes=["1"] * 10)
    with rejects("classes has the name 'cat' twice"):
        Network([4, 2], rng=0).classes = ["cat", "cat"]


@pytest.mark.parametrize("suffix", [".zip", ".bz2", ".xz"])
def test_a_compressed_table_is_named_with_what_to_do(suffix, tmp_path, rejects):
    path = tmp_path / f"x.csv{suffix}"
    path.write_bytes(b"compressed")
    with rejects("is compressed: expected a .csv or .csv.gz file; decompress it first"):
        load(path)
