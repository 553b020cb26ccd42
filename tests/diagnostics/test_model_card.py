"""Model card: its numbers, a code block that loads the model, and names that stay text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import handgrad
from handgrad import Deskew, Ensemble, Network, Preprocessed, TestTimeAugmentation
from handgrad.data import Dataset
from handgrad.diagnostics.model_card import model_card
from handgrad.io.atomic import encode_json

HISTORY = {
    "loss": [2.0, 1.0, 0.5],
    "val_loss": [1.5, float("nan"), 1.75],
    "val_accuracy": [0.5, float("nan"), 0.625],
    "seconds": [1.0, 1.0, 0.5],
}
HOSTILE = "a|b`<script>alert(1)</script> [x](http://e.org) *y* $z$ \\\n# heading\n| new | row |\x1b[2J\u202e @me"


def rows(card: str) -> dict[str, str]:
    """The rows of all tables."""
    return dict(re.findall(r"^\| (.*?) \| (.*) \|$", card, re.MULTILINE))


def test_a_card_has_model_data_settings_results_environment_and_use(digits: Any) -> None:
    x, y, x_test, y_test = digits
    dataset = Dataset.from_arrays(x, y, x_test, y_test, name="patterns", notes=["a note"])
    network = Network([64, 20, 10], rng=0)
    network.image_shape = (8, 8)
    settings = {"lr": 0.1, "hidden": (20, 10), "deskew": False, "teacher": None}
    result = network.evaluate(x_test, y_test)
    card = model_card(network, HISTORY, dataset=dataset, settings=settings, evaluation=result)
    assert re.findall(r"^#+ (.*)$", card, re.MULTILINE) == [
        *("Model card", "Model", "Data", "Settings", "Results", "Environment", "Use"),
        "x: images (count, 8, 8), integers 0 to 255 or floats in [0, 1]",
    ]
    table = rows(card)
    assert table["parameters"] == "1,510 in float32"
    assert table["training examples"] == "600"
    assert "\n- a note\n" in card
    assert (table["lr"], table["hidden"], table["deskew"]) == ("0.1", "20, 10", "no")
    assert "teacher" not in table
    assert table["test accuracy"] == f"{result.accuracy:.2%} ({result.correct} of 300 examples)"
    assert table["loss, last epoch"] == "0.5"
    assert table[r"val\_accuracy, last epoch"] == "62.50%"
    assert table[r"val\_loss, best epoch"] == "1.5 (epoch 1)"
    assert table["epochs"] == "3"
    assert "seconds" not in card  # so that a resumed run has the same card
    assert table["handgrad"] == handgrad.__version__


@pytest.mark.parametrize("kind", ["numbers", "images", "regression"])
def test_the_code_of_a_card_loads_the_model(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    network = Network([16, 3, 2], loss="squared_error" if kind == "regression" else "cross_entropy", rng=0)
    x = np.random.default_rng(0).random((5, 16))
    if kind == "images":
        network.image_shape = (4, 4)
        x = x.reshape(5, 4, 4)
    handgrad.save(network, tmp_path / "a 'model'.safetensors")
    (code,) = re.findall(r"^```python\n(.*?)^```$", model_card(network, file="a 'model'.safetensors"), re.M | re.S)
    names: dict[str, Any] = {"x": x}
    exec(code, names)
    np.testing.assert_array_equal(names.get("labels", names.get("y")), network.predict(x))


def test_a_card_of_wrappers_describes_the_network_in_them() -> None:
    network = Network([64, 20, 10], rng=0)
    network.image_shape = (8, 8)
    table = rows(model_card(Preprocessed(TestTimeAugmentation(network, 5), Deskew(8, 8))))
    assert table["preprocessing"] == "Deskew(height=8, width=8)"
    assert table["test-time augmentation"] == "5 shifts"
    assert "mean probability of 2 models" in model_card(Ensemble([network, network]))


def test_a_history_from_a_json_file_has_null_in_place_of_nan() -> None:
    network, history = Network([4, 3], rng=0), json.loads(encode_json(HISTORY))
    assert history["val_loss"][1] is None
    assert model_card(network, history) == model_card(network, HISTORY)


def test_a_metric_that_was_not_measured_last_is_shown_with_its_epoch() -> None:
    found = rows(model_card(Network([4, 3], rng=0), {"loss": [2.0, 1.0], "val_loss": [1.5, float("nan")]}))
    assert (found["loss, last epoch"], found["val\\_loss, epoch 1"]) == ("1", "1.5")


def test_names_are_shown_as_text() -> None:
    markdown_it = pytest.importorskip("markdown_it")
    network = Network([4, 3, 2], rng=0)
    network.classes = (HOSTILE, "b")
    card = model_card(network, dataset=HOSTILE, settings={HOSTILE: HOSTILE}, title=HOSTILE, file=HOSTILE)
    assert card.replace("\n", "").isprintable()
    html = markdown_it.MarkdownIt("commonmark").enable("table").render(card)
    assert "<script" not in html
    assert "<a " not in html
    assert "<em>" not in html
    assert html.count("<table>") == html.count("<pre>") + 2 == 3
    assert html.count("<tr>") == 3 + len(re.findall(r"^\| (?!---|(?:property|setting|software) \|)", card, re.M))
    shown = r"a|b`&lt;script&gt;alert(1)&lt;/script&gt; [x](http://e.org) *y* $z$ \\n# heading\n| new | row |\x1b[2J"
    for tag in ("h1", "p", "td"):
        assert f"<{tag}>{shown}" in html
