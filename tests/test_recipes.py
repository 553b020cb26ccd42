"""A recipe is every choice of a training as plain values: it makes the same one each time, and says what it was."""

import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest

from handgrad import (
    SGD,
    Adversarial,
    BatchNorm,
    Ensemble,
    BinaryCrossEntropy,
    Dense,
    Deskew,
    Dropout,
    EMA,
    Network,
    ReLU,
    Sigmoid,
    CrossEntropy,
    Tanh,
    Trainer,
)
from handgrad.images.augmentation import Augmentation
from handgrad.io.models import load, save
from handgrad.optimizers import OPTIMIZERS
from handgrad.recipes import RECIPES, Recipe
from handgrad.schedules import SCHEDULES
from handgrad.training import Callback

POST = RECIPES["post"]
SMALL = POST.with_choices(hidden=(3,), batch_size=4, epochs=2, validation=2)
PLAIN = Recipe(name="plain", hidden=(6,), batch_size=8, epochs=2, lr=0.01)
SHAPE, CLASSES = (2, 2), 2  # of X, Y
X = np.random.default_rng(0).random((12, 4))
Y = np.arange(12) % 2
# Another value for every field, and all of them together a training that can be done.
OTHER = Recipe(
    name="other",
    hidden=(5, 4),
    activation="relu,tanh",
    loss="cross_entropy",
    init="lecun",
    batch_norm=True,
    dropout=0.1,
    label_smoothing=0.05,
    optimizer="muon",
    lr=0.02,
    epochs=2,
    weight_decay=0.01,
    schedule="cosine",
    batch_size=16,
    average=0.9,
    validation=3,
    deskew=True,
    shrink=2,
    rotation=10.0,
    scale=0.1,
    shear=0.2,
    shift=1.5,
    elastic=1.0,
    smoothness=4.0,
    adversarial=0.3,
    views=5,
    members=2,
    teacher="second",
    temperature=3.0,
    seed=7,
)


def pictures(height, width, classes=3, count=48):
    """(x, y): bytes with a bright bar of another height for each class, under noise."""
    rng = np.random.default_rng(height * 100 + width)
    y = (np.arange(count) % classes).astype(np.uint8)
    x = rng.integers(0, 90, (count, height, width))
    for picture, label in zip(x, y, strict=True):
        picture[(label + 1) * height // (classes + 1)] = 255
    return x.astype(np.uint8), y


def small(recipe):
    """The recipe with so little to do that a test can do it: all its other choices as they are."""
    hidden = tuple(min(width, 12) for width in recipe.hidden)
    return recipe.with_choices(hidden=hidden, epochs=1, batch_size=16, members=min(recipe.members, 2), validation=0)


def parameters(classifier):
    members = classifier.members if isinstance(classifier, Ensemble) else (classifier,)
    return np.concatenate([member.parameters for member in members])


def test_the_post_is_the_posts_network_with_nielsens_settings():
    trainer = POST.trainer()
    network = trainer.network
    assert [type(layer) for layer in network.layers] == [Dense, Sigmoid, Dense]
    assert [W.shape for W, _ in network.weights] == [(30, 784), (10, 30)]
    assert [layer.init for layer in network.layers if isinstance(layer, Dense)] == ["normal", "normal"]
    assert (type(network.loss), network.loss.config(), network.dtype) == (BinaryCrossEntropy, {}, np.float32)
    assert (network.preprocessing, network.views) == (None, 1)
    assert (type(trainer.optimizer), trainer.optimizer.lr, trainer.batch_size) == (SGD, 0.5, 10)
    assert not any(getattr(trainer.optimizer, name) for name in ("l1", "l2", "weight_decay", "clip_norm", "max_norm"))
    assert {trainer.schedule(epoch, 30) for epoch in (0, 10.5, 29.9)} == {1.0}
    assert (trainer.augment, trainer.perturb, trainer.teacher, trainer.callbacks) == (None, None, None, [])
    assert (POST.epochs, POST.validation, POST.members) == (30, 10_000, 1)


def test_the_posts_weights_are_standard_normal():
    W = POST.trainer().network.layers[0].W
    assert abs(W.mean()) < 5 / W.size**0.5  # five standard errors
    assert abs(W.std() - 1) < 5 / (2 * W.size) ** 0.5


def test_recipes_go_by_their_names():
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {name: name for name in RECIPES}


# ---- As values ------------------------------------------------------------------------------------------------------


def test_another_value_is_known_for_every_field():
    plain = Recipe(name="plain")
    assert [name for name, value in OTHER.config().items() if value == getattr(plain, name)] == [
        "loss"
    ]  # temperature wants it


@pytest.mark.parametrize("recipe", [*RECIPES.values(), SMALL, OTHER], ids=[*RECIPES, "small", "other"])
def test_a_recipe_comes_back_from_json(recipe):
    again = Recipe.from_config(json.loads(json.dumps(recipe.config())))
    assert again == recipe
    assert {name: type(value) for name, value in again.config().items()} == {
        name: type(value) for name, value in recipe.config().items()
    }


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe)])
def test_a_configuration_without_one_of_its_values_is_refused_by_name(name, refused):
    config = POST.config()
    del config[name]
    with refused(f": {name} is missing"):
        Recipe.from_config(config)


def test_a_configuration_with_a_value_too_many_is_refused_by_name(refused):
    with refused("momentum"):
        Recipe.from_config({**POST.config(), "momentum": 0.9})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("hidden", 5), ("lr", "0.5"), ("epochs", 1.5), ("seed", None), ("init", 3), ("loss", ["quadratic"])],
        *[("batch_norm", "yes"), ("deskew", 1), ("teacher", 3), ("views", 5.0), ("rotation", None), ("members", "2")],
    ],
)
def test_a_configuration_with_a_value_of_another_kind_is_refused_by_name(name, value, refused):
    with refused(f"its {name} is "):
        Recipe.from_config({**POST.config(), name: value})


def test_a_whole_number_is_a_number():
    assert Recipe.from_config({**POST.config(), "lr": 1, "rotation": 15}).rotation == 15


def test_choices_that_are_none_leave_the_recipes_own():
    changed = POST.with_choices(lr=0.1, seed=0, batch_size=None, epochs=None)
    assert (changed.lr, changed.batch_size, changed.epochs) == (0.1, 10, 30)
    assert {k for k in POST.config() if POST.config()[k] != changed.config()[k]} == {"lr"}
    assert POST.lr == 0.5


def test_a_choice_of_zero_is_a_choice():
    assert POST.with_choices(validation=0).validation == 0
    zeroes = {"deskew": False, "rotation": 0.0, "hidden": ()}
    assert OTHER.with_choices(**zeroes).config() == OTHER.config() | zeroes


# ---- What it makes --------------------------------------------------------------------------------------------------


def test_every_choice_reaches_the_training():
    recipe, watch = OTHER, Callback()
    teacher = Network([196, 3], loss="cross_entropy", rng=0, preprocessing=Deskew(28, 28, 2))
    trainer = recipe.trainer((28, 28), 3, teacher=teacher, callbacks=(watch,))
    network, optimizer, augment = trainer.network, trainer.optimizer, trainer.augment
    chain = [*(Dense, BatchNorm, ReLU, Dropout), *(Dense, BatchNorm, Tanh, Dropout), Dense]
    assert [type(layer) for layer in network.layers] == chain
    assert [W.shape for W, _ in network.weights] == [(5, 196), (4, 5), (3, 4)]
    assert {layer.init for layer in network.layers if isinstance(layer, Dense)} == {"lecun"}
    assert {layer.rate for layer in network.layers if isinstance(layer, Dropout)} == {0.1}
    assert repr(network.preprocessing) == "Deskew(height=28, width=28, shrink=2)"
    assert (network.image_shape, network.n_in, network.views) == ((28, 28), 784, 1)
    assert type(network.loss) is CrossEntropy
    assert network.loss.config() == {"label_smoothing": 0.05, "temperature": 3.0}
    assert (type(optimizer), optimizer.lr, optimizer.weight_decay) == (OPTIMIZERS["muon"], 0.02, 0.01)
    assert trainer.batch_size == 16
    assert trainer.schedule(1, 2) == SCHEDULES["cosine"]()(1, 2)
    assert [type(callback) for callback in trainer.callbacks] == [EMA, Callback]
    assert (trainer.callbacks[0].decay, trainer.callbacks[1]) == (0.9, watch)
    assert (type(trainer.perturb), trainer.perturb.epsilon) == (Adversarial, 0.3 / 2)
    assert trainer.teacher.parameters is teacher.parameters
    assert (augment.height, augment.width) == (14, 14)
    assert (augment.rotation, augment.scale, augment.shear) == (math.radians(10), 0.1, 0.2)
    assert augment.shift == 1.5 / 2  # a pixel is two of the picture 28 high


def test_with_all_its_choices_it_trains_and_answers():
    x, y = pictures(28, 28)
    answering = replace(OTHER, teacher=None).train(x, y, 3)
    assert isinstance(answering, Ensemble)
    assert [member.views for member in answering.members] == [5, 5]
    assert [[type(layer) for layer in m.layers] for m in answering.members] == [
        [Dense, ReLU, Dropout, Dense, Tanh, Dropout, Dense]  # batch normalisation is folded away
    ] * 2
    p = answering.predict_proba(x)
    np.testing.assert_allclose(p, np.mean([m.predict_proba(x) for m in answering.members], axis=0), rtol=1e-6)


@pytest.mark.parametrize("kind", ["optimizer", "schedule", "activation", "loss", "init"])
def test_an_unknown_name_is_refused(kind, refused):
    with refused(r"unknown .* 'nonesuch'"):
        POST.with_choices(**{kind: "nonesuch"}).trainer()


def test_a_name_that_is_near_is_suggested(refused):
    with refused("did you mean 'adam'"):
        POST.with_choices(optimizer="adm").trainer()


def test_a_teacher_that_is_no_recipe_is_refused(refused):
    with refused("did you mean 'post'"):
        PLAIN.with_choices(teacher="pots").train(*pictures(4, 4), 3)


@pytest.mark.parametrize(
    "choices",
    [
        *[{"epochs": 0}, {"seed": -1}, {"members": 0}, {"lr": 0.0}, {"lr": -0.5}, {"batch_size": 0}],
        *[{"hidden": (0,)}, {"hidden": (30, -2)}, {"hidden": (2.5,)}, {"dropout": 1.0}, {"dropout": -0.1}],
        *[{"label_smoothing": 1.0}, {"weight_decay": -1.0}, {"average": 1.0}, {"average": -0.5}],
        *[{"rotation": -1.0}, {"rotation": math.nan}, {"scale": 1.0}, {"shift": math.inf}, {"elastic": -2.0}],
        *[{"elastic": 1.0, "smoothness": 0.0}, {"adversarial": -1.0}, {"adversarial": math.nan}],
        *[{"temperature": 2.0}, {"loss": "cross_entropy", "temperature": -2.0}, {"shrink": 2}],
        *[{"shrink": 0}, {"deskew": True, "shrink": -1}, {"views": 3}, {"views": 0}],
    ],
    ids=str,
)
def test_a_number_out_of_range_is_refused_before_anything_is_trained(choices, refused):
    with refused("expected"):
        POST.with_choices(**choices).trainer()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_can_be_chosen(optimizer):
    trainer = SMALL.with_choices(optimizer=optimizer, lr=0.01).trainer(SHAPE, CLASSES)
    assert len(trainer.fit(X, Y, epochs=2)["loss"]) == 2
    assert trainer.optimizer.lr == 0.01


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_the_schedules_without_arguments_can_be_chosen(schedule):
    trainer = SMALL.with_choices(schedule=schedule).trainer(SHAPE, CLASSES)
    first, second = trainer.fit(X, Y, epochs=2)["lr"]
    factor = SCHEDULES[schedule]()
    assert (first, second) == pytest.approx((0.5 * factor(0, 2), 0.5 * factor(1, 2)), rel=1e-12)


@pytest.mark.parametrize("schedule", ["step", "exponential"])
def test_a_schedule_that_needs_arguments_is_refused_in_a_line(schedule, refused):
    with refused(schedule):
        SMALL.with_choices(schedule=schedule).trainer(SHAPE, CLASSES)


def test_activations_are_one_for_all_or_one_for_each():
    hidden = (3, 3)
    one = SMALL.with_choices(hidden=hidden, activation="relu").trainer().network
    each = SMALL.with_choices(hidden=hidden, activation="relu,tanh").trainer().network
    assert [type(layer) for layer in one.layers] == [Dense, ReLU, Dense, ReLU, Dense]
    assert [type(layer) for layer in each.layers] == [Dense, ReLU, Dense, Tanh, Dense]


def test_without_hidden_layers_it_is_one_product():
    network = PLAIN.with_choices(hidden=()).trainer((3, 5), 4).network
    assert [W.shape for W, _ in network.weights] == [(4, 15)]


def test_callbacks_are_the_trainers():
    watch = Callback()
    assert SMALL.trainer(callbacks=(watch,)).callbacks == [watch]


# ---- Seeds and members ----------------------------------------------------------------------------------------------


def test_the_same_seed_makes_the_same_training_and_another_another():
    made = [SMALL.trainer(SHAPE, CLASSES), SMALL.trainer(SHAPE, CLASSES), SMALL.with_choices(seed=1).trainer(SHAPE, 2)]
    a, b, c = made
    np.testing.assert_array_equal(a.network.parameters, b.network.parameters)
    assert not np.array_equal(a.network.parameters, c.network.parameters)
    for trainer in (a, b):
        trainer.fit(X, Y, epochs=2)
    np.testing.assert_array_equal(a.network.parameters, b.network.parameters)


def test_the_first_member_is_the_plain_run_and_the_others_differ_in_all_that_is_drawn():
    recipe = PLAIN.with_choices(members=3)
    first, second, third = (recipe.trainer(SHAPE, CLASSES, member=member) for member in range(3))
    plain = PLAIN.trainer(SHAPE, CLASSES)
    np.testing.assert_array_equal(first.network.parameters, plain.network.parameters)
    orders = [trainer.shuffling.permutation(100).tolist() for trainer in (first, second, third, plain)]
    draws = [trainer.augmenting.random() for trainer in (first, second, third, plain)]
    assert (orders[0], draws[0]) == (orders[3], draws[3])
    assert len(set(map(tuple, orders))) == len(set(draws)) == 3
    assert len({trainer.network.parameters.tobytes() for trainer in (first, second, third)}) == 3
    others = [PLAIN.with_choices(seed=seed).trainer(SHAPE, CLASSES) for seed in (1, 2)]  # no ensemble holds another's
    assert not {t.network.parameters.tobytes() for t in others} & {
        t.network.parameters.tobytes() for t in (second, third)
    }
    again = recipe.trainer(SHAPE, CLASSES, member=2)
    np.testing.assert_array_equal(again.network.parameters, third.network.parameters)
    other = recipe.with_choices(seed=1).trainer(SHAPE, CLASSES, member=2)
    assert (other.network.parameters != third.network.parameters).any()


def test_training_is_the_members_one_after_the_other():
    x, y = pictures(6, 5)
    together = PLAIN.with_choices(members=2, validation=7).train(x, y, 3)
    for member, network in enumerate(together.members):
        trainer = PLAIN.trainer((6, 5), 3, member=member)
        trainer.fit(x, y, epochs=2)
        np.testing.assert_array_equal(network.parameters, trainer.network.parameters)
    assert isinstance(PLAIN.train(x, y, 3), Network)


def test_a_teacher_that_is_a_recipe_is_trained_first_from_the_same_seed(monkeypatch):
    x, y = pictures(6, 5)
    monkeypatch.setitem(RECIPES, "wise", PLAIN.with_choices(name="wise", hidden=(9,), members=2))
    pupil = PLAIN.with_choices(teacher="wise", temperature=2.0, seed=3)
    answering = pupil.train(x, y, 3)
    wise = RECIPES["wise"].with_choices(seed=3).train(x, y, 3)
    trainer = pupil.trainer((6, 5), 3, teacher=wise)
    trainer.fit(x, y, epochs=2)
    np.testing.assert_array_equal(answering.parameters, trainer.network.parameters)
    assert (answering.parameters != pupil.with_choices(teacher=None).trainer((6, 5), 3).network.parameters).any()


def test_a_teacher_that_sees_other_pictures_than_its_pupil_is_refused(refused):
    with refused("the teacher sees other pictures than the network, which has the preprocessing Deskew"):
        OTHER.with_choices(teacher="post").train(*pictures(28, 28), 3)
    upright, as_they_are = (PLAIN.with_choices(deskew=d).trainer((6, 5), 3).network for d in (True, False))
    for network, teacher in ((upright, as_they_are), (as_they_are, Ensemble([upright]))):
        with refused("expected a teacher with the same"):  # though as many pixels
            Trainer(network, SGD(0.1), teacher=teacher)
    with refused("to 4 outputs"):
        PLAIN.trainer((6, 5), 3, teacher=Network([30, 4], rng=0))


def test_a_pupil_agrees_with_its_teacher_more_than_one_who_had_none():
    """The teacher calls every class by the next one's name: who learnt from it says so too, whatever y says."""
    x, y = pictures(6, 6, count=300)
    recipe = PLAIN.with_choices(epochs=12, lr=0.02, temperature=2.0)
    teacher = recipe.with_choices(hidden=(20,), temperature=1.0).train(x, (y + 1) % 3, 3)
    trainer = recipe.trainer((6, 6), 3, teacher=teacher)
    trainer.fit(x, y, epochs=recipe.epochs)
    pupil, untaught = trainer.network, recipe.train(x, y, 3)
    agree = [float((network.predict(x) == teacher.predict(x)).mean()) for network in (pupil, untaught)]
    assert agree[0] > 0.95, agree
    assert agree[1] < 0.05, agree


# ---- Pictures of any size, any number of classes --------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [*RECIPES.values(), OTHER], ids=[*RECIPES, "other"])
@pytest.mark.parametrize("shape", [(8, 8), (20, 30), (9, 7)], ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_nothing_in_a_recipe_is_of_28_by_28_pixels_or_ten_classes(recipe, shape, tmp_path, monkeypatch):
    for name, each in RECIPES.items():
        monkeypatch.setitem(RECIPES, name, small(each))
    (x, y), recipe = pictures(*shape), small(recipe)
    answering = recipe.train(x, y, 3)
    assert (answering.n_in, answering.n_out, answering.image_shape) == (math.prod(shape), 3, shape)
    assert np.isfinite(answering.outputs(x)).all()
    save(answering, tmp_path / "m.safetensors")
    np.testing.assert_array_equal(load(tmp_path / "m.safetensors").outputs(x), answering.outputs(x))
    np.testing.assert_array_equal(parameters(recipe.train(x, y, 3)), parameters(answering))


@pytest.mark.parametrize(
    ("shape", "wanted", "shrink"),
    [
        *[((28, 28), 2, 2), ((28, 28), 1, 1), ((56, 56), 2, 4), ((8, 8), 2, 1), ((14, 14), 2, 1), ((28, 28), 4, 4)],
        *[((28, 28), 3, 2), ((28, 30), 2, 2), ((28, 29), 2, 1), ((42, 30), 2, 3), ((20, 30), 7, 5), ((7, 7), 28, 7)],
    ],
)
def test_pictures_shrink_by_the_nearest_divisor_not_above_what_their_height_calls_for(shape, wanted, shrink):
    recipe = PLAIN.with_choices(deskew=True, shrink=wanted)
    network = recipe.trainer(shape, 3).network
    assert (type(network.preprocessing), network.preprocessing.shrink) == (Deskew, shrink)
    assert network.n_in == shape[0] * shape[1] // shrink**2
    assert (network.image_shape, network.input_shape) == (shape, (shape[0] // shrink, shape[1] // shrink))


@pytest.mark.parametrize(
    ("shape", "deskew", "shrink", "made_of", "pixel"),
    [
        *[((28, 28), False, 1, (28, 28), 1), ((28, 28), True, 1, (28, 28), 1), ((28, 28), True, 2, (14, 14), 0.5)],
        *[((56, 40), False, 1, (56, 40), 2), ((8, 8), True, 2, (8, 8), 8 / 28), ((56, 40), True, 2, (14, 10), 0.5)],
    ],
)
def test_lengths_are_in_pixels_of_a_picture_28_high_as_the_first_layer_sees_it(shape, deskew, shrink, made_of, pixel):
    choices = {"shift": 3.0, "elastic": 1.5, "smoothness": 5.0, "rotation": 7.0, "shear": 0.1, "scale": 0.2}
    augment = PLAIN.with_choices(deskew=deskew, shrink=shrink, **choices).augmentation(shape)
    lengths = {name: choices[name] * pixel for name in ("shift", "elastic", "smoothness")}
    expected = Augmentation(*made_of, rotation=7, shear=0.1, scale=0.2, **lengths)
    assert vars(augment).keys() == vars(expected).keys()
    assert (augment.height, augment.width, augment.shift) == (*made_of, pytest.approx(3 * pixel))
    assert (augment.rotation, augment.shear, augment.scale) == (expected.rotation, 0.1, 0.2)
    np.testing.assert_allclose(augment.basis, expected.basis, rtol=1e-6)


def test_what_moves_nothing_makes_no_new_pictures():
    assert PLAIN.augmentation((28, 28)) is None
    assert PLAIN.with_choices(smoothness=3.0, deskew=True).augmentation((28, 28)) is None
    for name in ("rotation", "scale", "shear", "shift", "elastic"):
        assert PLAIN.with_choices(**{name: 0.1}).augmentation((28, 28)) is not None


def test_the_trainer_has_what_the_recipe_names_and_no_more():
    trainer = PLAIN.trainer((8, 8), 3)
    assert isinstance(trainer, Trainer)
    assert (trainer.augment, trainer.teacher, trainer.perturb, trainer.callbacks) == (None, None, None, [])


# ---- What the recipes promise ----------------------------------------------------------------------------------------


def test_small_has_no_more_than_25_000_parameters_as_it_answers():
    recipe = RECIPES["small"]
    assert recipe.classifier([recipe.trainer().network]).parameters.size == 24_914 <= 25_000


def test_pure_knows_nothing_of_pictures():
    """Pixels shuffled alike in all pictures, and the first layer's columns with them: the same answers, to rounding."""
    # By SGD, for Adam makes whole steps of the rounding that is all the gradient of a bias below a BatchNorm.
    recipe = RECIPES["pure"].with_choices(hidden=(8, 8), epochs=2, batch_size=16, optimizer="sgd", lr=0.05)
    assert (recipe.deskew, recipe.augmentation((28, 28)), recipe.views) == (False, None, 1)
    x, y = pictures(6, 6, count=64)
    shuffled = np.random.default_rng(5).permutation(36)
    plain, other = recipe.trainer((6, 6), 3), recipe.trainer((6, 6), 3)
    other.network.layers[0].W[...] = plain.network.layers[0].W[:, shuffled]
    plain.fit(x, y, epochs=2)
    other.fit(x.reshape(64, 36)[:, shuffled], y, epochs=2)
    z = plain.network.outputs(x)
    np.testing.assert_allclose(other.network.outputs(x.reshape(64, 36)[:, shuffled]), z, rtol=1e-3, atol=1e-3)
