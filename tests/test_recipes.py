"""A recipe is every choice of a training as plain values: it makes the same one each time, and says what it was."""

import json
from dataclasses import fields

import numpy as np
import pytest

from handgrad import SGD, CrossEntropy, Dense, HandgradError, Relu, Sigmoid, Tanh
from handgrad.optimizers import OPTIMIZERS
from handgrad.recipes import RECIPES, Recipe
from handgrad.schedules import SCHEDULES
from handgrad.training import Callback

POST = RECIPES["post"]
SMALL = POST.with_choices(sizes=(4, 3, 2), batch_size=4, epochs=2, validation=2)
X = np.random.default_rng(0).random((12, 4))
Y = np.arange(12) % 2


def test_the_post_is_the_posts_network_with_nielsens_settings():
    trainer = POST.trainer()
    network = trainer.network
    assert [type(layer) for layer in network.layers] == [Dense, Sigmoid, Dense]
    assert [W.shape for W, _ in network.weights] == [(30, 784), (10, 30)]
    assert [layer.init for layer in network.layers if isinstance(layer, Dense)] == ["normal", "normal"]
    assert (type(network.loss), network.loss.config(), network.dtype) == (CrossEntropy, {}, np.float32)
    assert (type(trainer.optimizer), trainer.optimizer.lr, trainer.batch_size) == (SGD, 0.5, 10)
    assert not any(getattr(trainer.optimizer, name) for name in ("l1", "l2", "weight_decay", "clip_norm", "max_norm"))
    assert {trainer.schedule(epoch, 30) for epoch in (0, 10.5, 29.9)} == {1.0}
    assert (POST.epochs, POST.validation) == (30, 10_000)


def test_the_posts_weights_are_standard_normal():
    W = POST.trainer().network.layers[0].W
    assert abs(W.mean()) < 5 / W.size**0.5  # five standard errors
    assert abs(W.std() - 1) < 5 / (2 * W.size) ** 0.5


def test_recipes_go_by_their_names():
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {name: name for name in RECIPES}


@pytest.mark.parametrize("recipe", [*RECIPES.values(), SMALL], ids=[*RECIPES, "small"])
def test_a_recipe_comes_back_from_json(recipe):
    assert Recipe.from_config(json.loads(json.dumps(recipe.config()))) == recipe


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe)])
def test_a_configuration_without_one_of_its_values_is_refused_by_name(name):
    config = POST.config()
    del config[name]
    with pytest.raises(HandgradError, match=f": {name} is missing"):
        Recipe.from_config(config)


def test_a_configuration_with_a_value_too_many_is_refused_by_name():
    with pytest.raises(HandgradError, match="momentum"):
        Recipe.from_config({**POST.config(), "momentum": 0.9})


@pytest.mark.parametrize(
    ("name", "value"),
    [("sizes", 5), ("lr", "0.5"), ("epochs", 1.5), ("seed", None), ("init", 3), ("loss", ["quadratic"])],
)
def test_a_configuration_with_a_value_of_another_kind_is_refused_by_name(name, value, refused):
    with refused(f"its {name} is "):
        Recipe.from_config({**POST.config(), name: value})


def test_choices_that_are_none_leave_the_recipes_own():
    changed = POST.with_choices(lr=0.1, seed=0, batch_size=None, epochs=None)
    assert (changed.lr, changed.batch_size, changed.epochs) == (0.1, 10, 30)
    assert {k for k in POST.config() if POST.config()[k] != changed.config()[k]} == {"lr"}
    assert POST.lr == 0.5


def test_a_choice_of_zero_is_a_choice():
    assert POST.with_choices(validation=0).validation == 0


@pytest.mark.parametrize("kind", ["optimizer", "schedule", "activation", "loss", "init"])
def test_an_unknown_name_is_refused(kind):
    with pytest.raises(HandgradError, match=r"unknown .* 'nonesuch'"):
        POST.with_choices(**{kind: "nonesuch"}).trainer()


def test_a_name_that_is_near_is_suggested():
    with pytest.raises(HandgradError, match="did you mean 'adam'"):
        POST.with_choices(optimizer="adm").trainer()


@pytest.mark.parametrize(
    "choices",
    [{"epochs": 0}, {"seed": -1}, {"lr": 0.0}, {"lr": -0.5}, {"batch_size": 0}, {"sizes": (784,)}, {"sizes": (4, 0)}],
    ids=str,
)
def test_a_number_out_of_range_is_refused(choices):
    with pytest.raises(HandgradError, match=r"expected|sizes"):
        POST.with_choices(**choices).trainer()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_can_be_chosen(optimizer):
    trainer = SMALL.with_choices(optimizer=optimizer, lr=0.01).trainer()
    assert len(trainer.fit(X, Y, epochs=2)["loss"]) == 2
    assert trainer.optimizer.lr == 0.01


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_the_schedules_without_arguments_can_be_chosen(schedule):
    trainer = SMALL.with_choices(schedule=schedule).trainer()
    first, second = trainer.fit(X, Y, epochs=2)["lr"]
    factor = SCHEDULES[schedule]()
    assert (first, second) == pytest.approx((0.5 * factor(0, 2), 0.5 * factor(1, 2)), rel=1e-12)


@pytest.mark.parametrize("schedule", ["step", "exponential"])
def test_a_schedule_that_needs_arguments_is_refused_in_a_line(schedule):
    with pytest.raises(HandgradError, match=schedule):
        SMALL.with_choices(schedule=schedule).trainer()


def test_activations_are_one_for_all_or_one_for_each():
    sizes = (4, 3, 3, 2)
    one = SMALL.with_choices(sizes=sizes, activation="relu").trainer().network
    each = SMALL.with_choices(sizes=sizes, activation="relu,tanh").trainer().network
    assert [type(layer) for layer in one.layers] == [Dense, Relu, Dense, Relu, Dense]
    assert [type(layer) for layer in each.layers] == [Dense, Relu, Dense, Tanh, Dense]


def test_the_same_seed_makes_the_same_training_and_another_another():
    a, b, c = SMALL.trainer(), SMALL.trainer(), SMALL.with_choices(seed=1).trainer()
    np.testing.assert_array_equal(a.network.parameters, b.network.parameters)
    assert not np.array_equal(a.network.parameters, c.network.parameters)
    for trainer in (a, b):
        trainer.fit(X, Y, epochs=2)
    np.testing.assert_array_equal(a.network.parameters, b.network.parameters)


def test_callbacks_are_the_trainers():
    watch = Callback()
    assert SMALL.trainer((watch,)).callbacks == [watch]
