"""The history: a dict that finds its best epoch, writes a CSV file and shows itself."""

import copy
import csv
import json
import math
import pickle

import pytest

from handgrad import History
from handgrad.history import MAX_ROWS, Best, format_metric

METRICS = {
    "loss": [0.9, 0.5, 0.6],
    "val_loss": [math.nan, 0.7, 0.7],
    "val_accuracy": [0.8, 0.9, 0.9],
    "lr": [0.1, 0.05, 0.01],
}


def test_history_equals_a_plain_dict():
    history = History(METRICS)
    assert history == METRICS
    assert json.loads(json.dumps(History(loss=[1.0]))) == {"loss": [1.0]}
    assert History().epochs == 0
    assert history.epochs == 3


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda h: pickle.loads(pickle.dumps(h))])
def test_copies_are_histories(copied):
    twin = copied(History(METRICS))
    assert type(twin) is History
    assert repr(twin) == repr(History(METRICS))


@pytest.mark.parametrize(
    ("metric", "best"),
    [
        ("loss", (2, 0.5)),
        ("val_loss", (2, 0.7)),
        ("val_accuracy", (2, 0.9)),
        ("lr", (3, 0.01)),
        ("f1_score", (2, 0.9)),
    ],
)
def test_best_is_the_first_epoch_with_the_largest_accuracy_or_score_or_the_smallest_other_metric(metric, best):
    assert History(METRICS | {"f1_score": [0.1, 0.9, 0.2]}).best(metric) == Best(*best)


@pytest.mark.parametrize(
    ("history", "message"),
    [
        (History(METRICS), "unknown metric 'val_los': did you mean 'val_loss'"),
        (History(), "the history is empty"),
        (History(val_los=[math.nan]), "'val_los' was not measured in any epoch"),
    ],
)
def test_best_of_a_metric_without_values_is_rejected(history, message, rejects):
    with rejects(message):
        history.best("val_los")


def test_csv_has_a_line_per_epoch_and_an_empty_cell_for_nan(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("an earlier file")
    History(METRICS | {"a, b": [1.0]}).to_csv(path)
    header, first, *_, last = csv.reader(path.read_text().splitlines())
    assert header == ["epoch", "loss", "val_loss", "val_accuracy", "lr", "a, b"]
    assert first == ["1", "0.9", "", "0.8", "0.1", "1.0"]
    assert last == ["3", "0.6", "0.7", "0.9", "0.01", ""]
    assert [file.name for file in tmp_path.iterdir()] == ["history.csv"]


def test_csv_that_cannot_be_written_is_an_error(tmp_path, rejects):
    with rejects("cannot write"):
        History(METRICS).to_csv(tmp_path / "missing" / "history.csv")


def test_repr_shows_the_last_epoch():
    assert repr(History(METRICS)) == "History(epochs=3, loss=0.6000, val_loss=0.7000, val_accuracy=90.00%, lr=0.01)"
    assert repr(History()) == "History(epochs=0)"
    assert repr(History(loss=[])) == "History(epochs=0, loss=[])"


def test_html_shows_the_epochs_and_the_best_one():
    html = History(METRICS)._repr_html_()
    assert html.count("<tr>") == 4
    assert "best val_accuracy: 90.00% in epoch 2; best val_loss: 0.7000 in epoch 2" in html
    assert "<td" not in History()._repr_html_()


def test_html_of_a_long_history_shows_the_last_epochs():
    html = History(loss=[float(i) for i in range(1000)])._repr_html_()
    assert html.count("<tr>") == MAX_ROWS + 1
    assert f"the last {MAX_ROWS} of 1,000 epochs" in html


def test_html_escapes_the_names_of_metrics():
    assert "<script>" not in History({"<script>": [1.0]})._repr_html_()


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("val_accuracy", 0.97816, "97.82%"),
        ("loss", 0.51234, "0.5123"),
        ("loss", 1.5e-7, "1.5e-07"),
        ("loss", 3e8, "3e+08"),
        ("loss", math.inf, "inf"),
        ("seconds", 1.234, "1.23"),
        ("lr", 0.00125, "0.00125"),
        ("accuracy", math.nan, "nan"),
    ],
)
def test_metrics_are_formatted_by_name(name, value, text):
    assert format_metric(name, value) == text


def test_plot_returns_a_figure():
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    assert isinstance(History(METRICS).plot(), Figure)
