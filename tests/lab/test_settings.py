"""Settings of a run: values from JSON, limits, recipes and presets."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from handgrad.lab.examples import Library
from handgrad.lab.presets import all_presets
from handgrad.lab.settings import LIMITS, RECIPE_NAMES, Settings, recipe_settings


def test_settings_survive_json():
    settings = Settings(data="spirals", n_train=100, hidden=(8, 4), activation="relu", l2=0.01, seed=7)
    assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


def test_missing_settings_are_the_defaults():
    assert Settings.from_json({}) == Settings()


@pytest.mark.parametrize("name", LIMITS)
def test_numbers_have_limits(name, rejects):
    low, high = LIMITS[name]
    for value in (low - 1, high * 2 + 1, float("nan"), float("inf"), 10**400, "3", True, None, [3]):
        with rejects(f"{name} must be"):
            Settings.from_json({"n_train": 1000, name: value})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "must be an object"),
        ("mnist", "must be an object"),
        ({"data": "/etc/passwd"}, "unknown data set"),
        ({"data": ["mnist"]}, "unknown data set"),
        ({"hidden": 30}, "hidden must be"),
        ({"hidden": [30.0]}, "hidden must be"),
        ({"hidden": [True]}, "hidden must be"),
        ({"hidden": [0]}, "hidden must be"),
        ({"hidden": [513]}, "hidden must be"),
        ({"hidden": [8] * 5}, "hidden must be"),
        ({"activation": "identity"}, "unknown activation"),
        ({"activation": None}, "unknown activation"),
        ({"loss": "huber"}, "unknown loss"),
        ({"optimizer": {"sgd": 1}}, "unknown optimizer"),
        ({"initializer": "x" * 10_000}, "unknown initializer"),
        ({"recipe": "best"}, "unknown recipe"),
        ({"recipe": 3}, "unknown recipe"),
        ({"recipe": "quick", "data": "moons"}, "needs images"),
        ({"learning_rate": 0.1}, "unknown setting"),
        ({"__init__": 0.1}, "unknown setting"),
        ({"data": "moons", "n_train": 6000}, "at most 5,000"),
        ({"n_train": 5, "batch_size": 10}, "at most n_train"),
        ({"seed": -1}, "from 0 to 4,294,967,295"),
    ],
)
def test_invalid_settings_are_rejected_with_one_line(value, message, rejects):
    with rejects(message):
        Settings.from_json(value)


def test_settings_of_a_recipe_come_from_the_recipe():
    settings = Settings.from_json({"recipe": "quick", "activation": "sigmoid", "lr": 0.02, "seed": 3})
    assert settings.activation == "relu"
    assert (settings.lr, settings.seed, settings.hidden) == (0.02, 3, (256, 256))


@pytest.mark.parametrize("name", RECIPE_NAMES)
def test_trainer_of_a_recipe_has_its_settings(name):
    settings = Settings.from_json({**recipe_settings(name).to_json(), "data": "synthetic", "n_train": 1000, "lr": 0.03})
    trainer = settings.make_trainer(Library().examples("synthetic", 1000))
    assert trainer.optimizer.lr == 0.03
    assert trainer.batch_size == settings.batch_size


def test_trainer_has_the_settings():
    settings = Settings(
        data="xor",
        n_train=50,
        hidden=(6, 3),
        activation="relu",
        loss="squared_error",
        optimizer="adam",
        lr=0.01,
        l2=0.1,
    )
    trainer = settings.make_trainer(Library().examples("xor", 50))
    layers = [type(layer).__name__ for layer in trainer.network.layers]
    assert layers == ["Dense", "ReLU", "Dense", "ReLU", "Dense"]
    assert [W.shape for W, _ in trainer.network.weights] == [(6, 2), (3, 6), (2, 3)]
    assert trainer.network.loss.output_activation == "sigmoid"
    assert (trainer.optimizer.lr, trainer.optimizer.l2) == (0.01, 0.1)


def test_two_runs_of_a_preset_differ_in_one_setting():
    for preset in all_presets("synthetic"):
        assert 1 <= len(preset.runs) <= 2
        for one in preset.runs:
            assert Settings.from_json(one.to_json()) == one
        first, last = preset.runs[0], preset.runs[-1]
        different = [
            setting.name for setting in fields(Settings) if getattr(first, setting.name) != getattr(last, setting.name)
        ]
        assert len(different) == len(preset.runs) - 1, preset.name


def test_data_sets_have_the_promised_examples():
    library = Library()
    for row in library.describe():
        if row["available"]:
            examples = library.examples(row["name"], 64)
            assert len(examples.x_train) == len(examples.y_train) == 64
            assert examples.n_in == row["n_in"]
            assert len(examples.classes) == row["n_classes"]
            assert set(examples.y_train.tolist()) <= set(range(row["n_classes"]))
            assert examples.is_images == row["image"]


def test_missing_mnist_is_not_downloaded(no_mnist, rejects):
    library = Library()
    with rejects("MNIST was not found: run handgrad data fetch"):
        library.examples("mnist", 100)
    row = next(row for row in library.describe() if row["name"] == "mnist")
    assert not row["available"]
    assert "handgrad data fetch" in row["reason"]


def test_mnist_that_is_fetched_while_the_server_runs_is_found(no_mnist, mnist, monkeypatch):
    library = Library()
    (missing,) = (row for row in library.describe() if row["name"] == "mnist")
    monkeypatch.setattr("handgrad.data.mnist.search_paths", lambda: (mnist,))
    (found,) = (row for row in library.describe() if row["name"] == "mnist")
    assert (missing["available"], found["available"]) == (False, True)


def test_own_images_are_a_data_set(tmp_path, digits):
    import numpy as np

    x, y, x_test, y_test = digits
    np.savez(tmp_path / "own.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    examples = Library(str(tmp_path / "own.npz")).examples("own", 300)
    assert examples.shape == (8, 8)
    np.testing.assert_array_equal(examples.x_train, x[:300])
