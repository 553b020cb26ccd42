"""Recipes: every setting reaches the training, configurations round-trip, interrupted trainings give the same bits."""

import itertools
import json
import math
from dataclasses import fields

import numpy as np
import pytest

from handgrad import (
    EMA,
    HOG,
    Adversarial,
    BatchNorm,
    BinaryCrossEntropy,
    Callback,
    Dense,
    Deskew,
    Dropout,
    EarlyStopping,
    Ensemble,
    Ladder,
    Network,
    Preprocessed,
    ReLU,
    Sigmoid,
    SquaredError,
    Tanh,
    TestTimeAugmentation,
    Trainer,
    fold_batchnorm,
    load,
    save,
)
from handgrad.callbacks import Checkpoint, resume
from handgrad.images.augmentation import Augmentation
from handgrad.preprocessing import Standardize
from handgrad.recipes import GROUPS, OPTIMIZERS, RECIPES, Recipe
from handgrad.schedules import SCHEDULES
from handgrad.wrappers import Calibrated, fit_temperature, unwrap

POST = RECIPES["post"]
PLAIN = Recipe(name="plain", hidden=(6,), batch_size=8, epochs=2, lr=0.01)
# Another value for every setting; together they are a training that can be done.
OTHER = Recipe(
    name="other",
    hidden=(5, 4),
    hog=2,
    hog_order=2,
    activation="relu,tanh",
    loss="cross_entropy",
    init="lecun",
    batch_norm=True,
    dropout=0.1,
    label_smoothing=0.05,
    optimizer="muon",
    lr=0.02,
    epochs=2,
    momentum=0.8,
    warm_up=0.5,
    clip_norm=1.5,
    l2=1e-4,
    weight_decay=0.03,
    schedule="cosine",
    early_stopping=1,
    batch_size=16,
    ema_decay=0.9,
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
    calibration=0.8,
    tta=5,
    members=2,
    teacher="second",
    temperature=3.0,
    seed=7,
)


def make_images(height, width, classes=3, count=48):
    """(x, y): uint8 images with a bright bar at another height for each class, and noise."""
    rng = np.random.default_rng(height * 100 + width)
    y = (np.arange(count) % classes).astype(np.uint8)
    x = rng.integers(0, 90, (count, height, width))
    for image, label in zip(x, y, strict=True):
        image[(label + 1) * height // (classes + 1)] = 255
    return x.astype(np.uint8), y


SHAPE = (6, 5)
X, Y = make_images(*SHAPE)


def shortened(recipe):
    """The recipe with a small network and one epoch, and all other settings unchanged."""
    hidden = tuple(min(width, 12) for width in recipe.hidden)
    return recipe.replace(
        hidden=hidden, epochs=1, batch_size=16, members=min(recipe.members, 2), validation=0, early_stopping=0
    )


def networks_of(model):
    """The networks that a model consists of."""
    core = unwrap(model).core
    return [core] if isinstance(core, Network) else [unwrap(member).core for member in core.members]


def parameters(model):
    return np.concatenate([network.parameters for network in networks_of(model)])


# ---- post ------------------------------------------------------------------------------------------------------------


def test_post_is_the_network_of_the_blog_post_with_the_settings_of_nielsen():
    trainer = POST.trainer()
    network = trainer.network
    assert [type(layer) for layer in network.layers] == [Dense, Sigmoid, Dense]
    assert [W.shape for W, _ in network.weights] == [(30, 784), (10, 30)]
    assert [layer.init for layer in network.layers if isinstance(layer, Dense)] == ["normal", "normal"]
    assert (type(network.loss), network.loss.config(), network.dtype) == (BinaryCrossEntropy, {}, np.float32)
    assert POST.preprocessing((28, 28)) is None
    assert repr(trainer.optimizer) == "SGD(lr=0.5)"
    assert trainer.batch_size == 10
    assert {trainer.schedule(epoch, 30) for epoch in (0, 10.5, 29.9)} == {1.0}
    assert (trainer.augment, trainer.perturb, trainer.teacher, trainer.callbacks) == (None, None, None, [])
    assert (POST.epochs, POST.validation, POST.members, POST.tta) == (30, 10_000, 1, 1)


def test_initial_weights_of_post_are_standard_normal():
    W = POST.trainer().network.layers[0].W
    assert abs(W.mean()) < 5 / W.size**0.5  # five standard errors
    assert abs(W.std() - 1) < 5 / (2 * W.size) ** 0.5


def test_post_trains_on_50_000_of_the_60_000_examples_of_mnist():
    """From Python as from the command line, which uses Recipe.train."""
    x, y = np.zeros((60_000, 2, 2), np.uint8), np.zeros(60_000, np.uint8)
    counts = []

    class Stop(Callback):
        def on_batch_end(self, trainer):
            counts.append(trainer.batches * trainer.batch_size)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        POST.train(x, y, 10, on_trainer=lambda trainer, member: trainer.callbacks.append(Stop()))
    assert counts == [50_000]


def test_last_examples_are_the_validation_set():
    """The model is that of a training on the others, and the history has their metrics."""
    trainers = []
    recipe = PLAIN.replace(validation=11)
    model = recipe.train(X, Y, 3, on_trainer=lambda trainer, member: trainers.append(trainer))
    reference = PLAIN.trainer(SHAPE, 3)
    history = reference.fit(X[:-11], Y[:-11], epochs=2, validation=(X[-11:], Y[-11:]))
    np.testing.assert_array_equal(parameters(model), reference.network.parameters)
    assert isinstance(model, Calibrated)
    assert model.temperature == fit_temperature(model.model, X[-11:], Y[-11:])
    for name in ("val_loss", "val_accuracy"):
        assert trainers[0].history[name] == history[name]


def test_temperature_of_a_recipe_is_that_of_the_validation_set_or_its_calibration():
    """It changes no training and no predicted class."""
    recipe = PLAIN.replace(calibration=0.5, label_smoothing=0.1, members=2)
    calibrated, plain = recipe.train(X, Y, 3), recipe.replace(calibration=1.0).train(X, Y, 3)
    assert isinstance(calibrated, Calibrated)
    assert calibrated.temperature == 0.5
    np.testing.assert_array_equal(calibrated.model.outputs(X), plain.outputs(X))
    assert isinstance(recipe.replace(label_smoothing=0.0).train(X, Y, 3), Ensemble)
    fitted = recipe.replace(validation=11).train(X, Y, 3)
    assert unwrap(fitted).temperature == fit_temperature(fitted.model, X[-11:], Y[-11:])


def test_validation_set_larger_than_the_data_is_rejected(rejects):
    with rejects("validation 48: expected less than the 48 training examples"):
        PLAIN.replace(validation=48).train(X, Y, 3)


def test_early_stopping_ends_with_the_best_epoch_and_resumes_to_the_same_bits(tmp_path):
    """Also if the process ends between the last checkpoint and the end of the training."""
    recipe = PLAIN.replace(hidden=(30,), lr=0.05, schedule="constant", validation=12, early_stopping=2, epochs=200)
    trainers = []
    rng = np.random.default_rng(0)
    x, y = X, rng.integers(0, 3, len(X))  # random labels: the validation loss increases soon

    def train(path, resumed):
        def on_trainer(trainer, member):
            trainer.callbacks.append(Checkpoint(path))
            if resumed:
                resume(trainer, path)
            trainers.append(trainer)

        return parameters(recipe.train(x, y, 3, on_trainer=on_trainer))

    complete = train(tmp_path / "checkpoint.safetensors", resumed=False)
    stopped = trainers[0].epoch
    losses = trainers[0].history["val_loss"]
    assert stopped == np.argmin(losses) + 1 + 2 < 200
    np.testing.assert_array_equal(train(tmp_path / "checkpoint.safetensors", resumed=True), complete)
    assert trainers[1].epoch == stopped
    reference = recipe.replace(early_stopping=0, epochs=int(np.argmin(losses)) + 1)
    np.testing.assert_array_equal(parameters(reference.train(x, y, 3)), complete)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"early_stopping": 3}, "early_stopping 3 needs validation examples, got validation 0"),
        ({"early_stopping": -1, "validation": 9}, "early_stopping must be an integer >= 0"),
        ({"momentum": 0.9}, "momentum 0.9 needs the optimizer momentum, nesterov or muon, got adam"),
        ({"l2": -1.0}, "l2 must be"),
        ({"clip_norm": math.nan}, "clip_norm must be"),
        ({"warm_up": math.inf}, "warm_up must be"),
        ({"threads": 0}, "threads must be an integer >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be an integer >= 1, got 0"),
        ({"threads": 9, "batch_size": 8}, "threads must be at most the batch size, 8, got 9"),
        ({"threads": 2, "adversarial": 0.5}, "adversarial 0.5 needs the whole batch: expected threads=1, got 2"),
        ({"ladder": -1.0}, "ladder must be"),
        ({"ladder": 9.0}, "ladder 9 needs batch_norm=True, got False"),
        ({"ladder": 9.0, "batch_norm": True, "activation": "tanh"}, "ladder 9 needs activation='relu', got 'tanh'"),
        ({"ladder": 9.0, "batch_norm": True, "threads": 2}, "ladder 9 needs threads=1, got 2"),
        ({"ladder": 9.0, "batch_norm": True, "optimizer": "muon"}, "ladder 9 needs another optimizer than muon"),
    ],
)
def test_training_settings_out_of_range_are_rejected(settings, message, rejects):
    with rejects(message):
        PLAIN.replace(**settings)


def test_every_setting_has_a_group_and_a_help_text():
    settings = [setting for setting in fields(Recipe) if setting.name != "name"]
    assert list(dict.fromkeys(setting.metadata["group"] for setting in settings)) == list(GROUPS)
    assert all(setting.metadata["help"].endswith(".") for setting in settings)


# ---- Configuration ---------------------------------------------------------------------------------------------------


def test_other_has_another_value_for_every_setting():
    plain = Recipe(name="plain")
    same = [name for name, value in OTHER.config().items() if value == getattr(plain, name)]
    # The temperature needs the loss; adversarial training needs one thread; a ladder network has no other activation.
    assert same == ["loss", "threads", "ladder"]


@pytest.mark.parametrize("recipe", [*RECIPES.values(), OTHER], ids=[*RECIPES, "other"])
def test_recipe_round_trips_through_json(recipe):
    again = Recipe.from_config(json.loads(json.dumps(recipe.config())))
    assert again == recipe
    assert {name: type(value) for name, value in again.config().items()} == {
        name: type(value) for name, value in recipe.config().items()
    }


def test_settings_missing_from_an_older_configuration_have_their_defaults():
    assert Recipe.from_config({"name": "plain", "lr": 0.02}) == Recipe(name="plain", lr=0.02)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"nesterov": True}, "unknown setting nesterov; was it written by another version"),
        ({"average": 0.9, "views": 5}, "unknown setting average, views"),
        ({"hidden": 5}, "hidden is 5"),
        ({"lr": "0.5"}, "lr is '0.5'"),
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"seed": None}, "seed is None"),
        ({"deskew": 1}, "deskew is 1"),
        ({"teacher": 3}, "teacher is 3"),
        ({"epochs": True}, "epochs is True"),
        ({"epochs": 10**400}, "epochs is 1000"),
        ({"lr": 10**400}, "lr is 1000"),
        ({"lr": math.nan}, "lr is nan"),
        ({"hidden": ["30"]}, r"hidden is \['30'\]"),
        ({"hidden": [30, 1.5]}, r"hidden is \[30, 1.5\]"),
        ({"hidden": [10**30]}, r"hidden is \[1000"),
        ({"hog": 7.5}, "hog is 7.5"),
    ],
)
def test_invalid_configuration_is_rejected_with_the_name_of_the_setting(change, says, rejects):
    with rejects(f"the configuration is invalid: {says}"):
        Recipe.from_config({**POST.config(), **change})


def test_configuration_without_a_name_is_rejected(rejects):
    with rejects("the configuration is invalid: no name"):
        Recipe.from_config({"lr": 0.1})


def test_integers_are_accepted_as_floats():
    recipe = Recipe.from_config({**POST.config(), "lr": 1, "rotation": 15, "weight_decay": 0})
    assert (recipe.lr, recipe.rotation, recipe.weight_decay) == (1, 15, 0)


def test_replace_keeps_settings_for_none_and_sets_zeros():
    changed = POST.replace(lr=0.1, batch_size=None, validation=0)
    assert changed.config() == POST.config() | {"lr": 0.1, "validation": 0}
    assert POST.lr == 0.5
    zeros = {"deskew": False, "shrink": 1, "rotation": 0.0, "hidden": (), "activation": "relu", "weight_decay": 0.0}
    assert OTHER.replace(**zeros).config() == OTHER.config() | zeros


# ---- The training that a recipe describes ----------------------------------------------------------------------------


def test_misspelled_settings_get_a_suggestion(rejects):
    with rejects("unknown setting 'epoch': did you mean 'epochs'"):
        RECIPES["post"].replace(epoch=3)


def test_every_setting_reaches_the_training():
    watch, deskew = Callback(), Deskew(28, 28, 2)
    teacher = Network([196, 3], loss="cross_entropy", rng=0)
    trainer = OTHER.trainer((28, 28), 3, teacher=Preprocessed(teacher, deskew), callbacks=(watch,))
    network, optimizer, augment = trainer.network, trainer.optimizer, trainer.augment
    kinds = [HOG, HOG, *(Dense, BatchNorm, ReLU, Dropout), *(Dense, BatchNorm, Tanh, Dropout), Dense]
    assert [type(layer) for layer in network.layers] == kinds
    assert [W.shape for W, _ in network.weights] == [(5, 8 * 8 * 2**2), (4, 5), (3, 4)]
    assert {layer.init for layer in network.layers if isinstance(layer, Dense)} == {"lecun"}
    assert {layer.rate for layer in network.layers if isinstance(layer, Dropout)} == {0.1}
    assert OTHER.preprocessing((28, 28)) == deskew
    assert (network.image_shape, network.n_in) == ((14, 14), 196)
    assert repr(network.loss) == "CrossEntropy(label_smoothing=0.05, temperature=3.0)"
    assert (type(optimizer), optimizer.lr, optimizer.weight_decay) == (OPTIMIZERS["muon"], 0.02, 0.03)
    assert (optimizer.momentum, optimizer.l2, optimizer.clip_norm) == (0.8, 1e-4, 1.5)
    assert trainer.batch_size == 16
    assert trainer.schedule(1, 2) == SCHEDULES["cosine"]()(1, 2)
    assert trainer.schedule(0.25, 2) == SCHEDULES["cosine"]()(0.25, 2) / 2  # in the middle of the warm-up
    assert [type(callback) for callback in trainer.callbacks] == [EMA, EarlyStopping, Callback]
    average, stopping, last = trainer.callbacks
    assert (average.decay, stopping.patience, last) == (0.9, 1, watch)
    assert (type(trainer.perturb), trainer.perturb.epsilon) == (Adversarial, 0.3 / 2)
    assert trainer.teacher is teacher
    assert (augment.height, augment.width) == (14, 14)
    assert (augment.rotation, augment.scale, augment.shear) == (math.radians(10), 0.1, 0.2)
    assert augment.shift == 1.5 / 2  # pixels of images with half of the height


def test_recipe_with_all_settings_trains_and_predicts():
    x, y = make_images(28, 28)
    model = OTHER.train(
        x, y, 3, teacher=Preprocessed(Network([196, 3], loss="cross_entropy", rng=0), Deskew(28, 28, 2))
    )
    assert isinstance(model, Preprocessed)
    core = unwrap(model).core
    assert isinstance(core, Ensemble)
    assert [(type(member), member.shifts) for member in core.members] == [(TestTimeAugmentation, 5)] * 2
    layers = [HOG, HOG, Dense, ReLU, Dropout, Dense, Tanh, Dropout, Dense]  # BatchNorm is folded
    assert [[type(layer) for layer in network.layers] for network in networks_of(model)] == [layers] * 2


@pytest.mark.parametrize(
    ("settings", "decay"),
    [
        ({"optimizer": "adamw"}, 0.01),
        ({"optimizer": "adamw", "weight_decay": 0.0}, 0),
        ({"optimizer": "adamw", "weight_decay": 0.2}, 0.2),
        ({"optimizer": "adam"}, 0),
        ({"optimizer": "sgd", "weight_decay": 0.2}, 0.2),
    ],
    ids=str,
)
def test_weight_decay_is_the_default_of_the_optimizer_unless_it_is_given(settings, decay):
    assert PLAIN.replace(**settings).trainer(SHAPE, 3).optimizer.weight_decay == decay


def test_squared_error_is_that_of_sigmoids():
    loss = PLAIN.replace(loss="squared_error", label_smoothing=0.1).trainer(SHAPE, 3).network.loss
    assert isinstance(loss, SquaredError)
    assert loss.is_classification
    assert loss.config() == SquaredError("sigmoid", 0.1).config()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_can_be_used(optimizer):
    trainer = PLAIN.replace(optimizer=optimizer).trainer(SHAPE, 3)
    assert len(trainer.fit(X, Y, epochs=1)["loss"]) == 1
    assert trainer.optimizer.lr == 0.01


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_can_be_used(schedule):
    first, second = PLAIN.replace(schedule=schedule).trainer(SHAPE, 3).fit(X, Y, epochs=2)["lr"]
    factor = SCHEDULES[schedule]()
    assert (first, second) == pytest.approx((0.01 * factor(0, 2), 0.01 * factor(1, 2)), rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"optimizer": "adm"}, "unknown optimizer 'adm': did you mean 'adam'"),
        ({"optimizer": "AdamW"}, "unknown optimizer 'AdamW': did you mean 'adamw'"),
        ({"schedule": "step"}, "unknown schedule 'step'"),
        ({"loss": "quadratic"}, "unknown loss 'quadratic'"),
        ({"activation": "nonesuch"}, "unknown activation 'nonesuch'"),
        ({"init": "nonesuch"}, "unknown init.* 'nonesuch'"),
    ],
    ids=str,
)
def test_unknown_name_is_rejected(settings, says, rejects):
    with rejects(says):
        POST.replace(**settings).trainer()


@pytest.mark.parametrize(
    "settings",
    [
        *[
            {"epochs": 0},
            {"seed": -1},
            {"members": 0},
            {"lr": 0.0},
            {"batch_size": 0},
            {"hidden": (30, -2)},
            {"hog": -1},
            {"hog_order": 3},
        ],
        *[{"dropout": 1.0}, {"label_smoothing": 1.0}, {"weight_decay": -1.0}, {"ema_decay": 1.0}, {"validation": -1}],
        *[{"rotation": math.nan}, {"scale": 1.0}, {"elastic": 1.0, "smoothness": 0.0}, {"adversarial": -1.0}],
        *[{"temperature": 2.0}, {"loss": "cross_entropy", "temperature": -2.0}, {"shrink": 2}, {"shrink": 0}],
        *[{"tta": 3}, {"activation": "relu,tanh"}, {"calibration": 0.0}],
    ],
    ids=str,
)
def test_setting_out_of_range_is_rejected_before_training(settings, rejects):
    with rejects("must be|needs|expected"):
        POST.replace(**settings).trainer()


def test_activation_is_one_for_all_layers_or_one_for_each():
    one = PLAIN.replace(hidden=(3, 3), activation="relu").trainer(SHAPE, 3).network
    each = PLAIN.replace(hidden=(3, 3), activation="relu,tanh").trainer(SHAPE, 3).network
    assert [type(layer) for layer in one.layers] == [Dense, ReLU, Dense, ReLU, Dense]
    assert [type(layer) for layer in each.layers] == [Dense, ReLU, Dense, Tanh, Dense]


def test_recipe_without_hidden_layers_is_a_linear_model():
    network = PLAIN.replace(hidden=()).trainer((3, 5), 4).network
    assert [W.shape for W, _ in network.weights] == [(4, 15)]


# ---- Seeds, members, resuming ----------------------------------------------------------------------------------------


def test_first_member_is_the_single_network_and_the_others_have_their_own_random_numbers():
    recipe = PLAIN.replace(members=3)
    first, second, third = (recipe.trainer(SHAPE, 3, member=member) for member in range(3))
    plain = PLAIN.trainer(SHAPE, 3)
    np.testing.assert_array_equal(first.network.parameters, plain.network.parameters)
    orders = [trainer.shuffling.permutation(100).tolist() for trainer in (first, second, third, plain)]
    draws = [trainer.augmenting.random() for trainer in (first, second, third, plain)]
    assert (orders[0], draws[0]) == (orders[3], draws[3])
    assert len(set(map(tuple, orders))) == len(set(draws)) == 3
    initial = {trainer.network.parameters.tobytes() for trainer in (first, second, third)}
    other_seeds = {PLAIN.replace(seed=seed).trainer(SHAPE, 3).network.parameters.tobytes() for seed in (1, 2)}
    assert len(initial | other_seeds) == 5
    again = recipe.trainer(SHAPE, 3, member=2)
    np.testing.assert_array_equal(again.network.parameters, third.network.parameters)


def test_ensemble_is_its_members_trained_one_after_the_other():
    model = PLAIN.replace(members=2).train(X, Y, 3)
    for member, network in enumerate(model.members):
        trainer = PLAIN.trainer(SHAPE, 3, member=member)
        trainer.fit(X, Y, epochs=2)
        np.testing.assert_array_equal(network.parameters, trainer.network.parameters)
    assert isinstance(PLAIN.train(X, Y, 3), Network)


def test_on_trainer_receives_every_trainer_before_its_training():
    calls = []

    def on_trainer(trainer, member):
        calls.append((member, trainer.epoch, type(trainer)))
        trainer.network.classes = ("a", "b", "c")

    model = PLAIN.replace(members=2).train(X, Y, 3, on_trainer=on_trainer)
    assert calls == [(0, 0, Trainer), (1, 0, Trainer)]
    assert model.classes == ("a", "b", "c")


@pytest.mark.parametrize(
    "settings", [{}, {"ema_decay": 0.9, "batch_norm": True, "dropout": 0.2, "rotation": 5.0}], ids=str
)
def test_recipe_resumed_by_on_trainer_gives_the_same_bits(settings, tmp_path):
    recipe = PLAIN.replace(epochs=4, schedule="one_cycle", **settings)
    expected = recipe.train(X, Y, 3)

    class Kill(Callback):
        def on_batch_end(self, trainer):
            if (trainer.epoch, trainer.batch) == (2, 3):
                raise KeyboardInterrupt

    def interrupted(trainer, member):
        trainer.callbacks += [Kill(), Checkpoint(tmp_path / "c")]

    def resumed(trainer, member):
        trainer.callbacks += [Callback(), Checkpoint(tmp_path / "c")]
        resume(trainer, tmp_path / "c")

    with pytest.raises(KeyboardInterrupt):
        recipe.train(X, Y, 3, on_trainer=interrupted)
    np.testing.assert_array_equal(parameters(recipe.train(X, Y, 3, on_trainer=resumed)), parameters(expected))


# ---- Knowledge distillation ------------------------------------------------------------------------------------------


def test_teacher_that_is_a_recipe_is_trained_first_with_the_same_seed_and_split(monkeypatch):
    monkeypatch.setitem(RECIPES, "wise", PLAIN.replace(name="wise", hidden=(9,), members=2))
    student = PLAIN.replace(teacher="wise", temperature=2.0, seed=3, validation=5)
    model = student.train(X, Y, 3)
    wise = RECIPES["wise"].replace(seed=3, validation=5).train(X, Y, 3)
    trainer = student.trainer(SHAPE, 3, teacher=wise)
    trainer.fit(X[:-5], Y[:-5], epochs=2)
    np.testing.assert_array_equal(parameters(model), trainer.network.parameters)


def test_teacher_that_is_a_file_is_loaded(tmp_path):
    teacher = PLAIN.replace(hidden=(9,)).train(X, Y, 3)
    save(teacher, tmp_path / "t.safetensors")
    from_file = PLAIN.replace(teacher=str(tmp_path / "t.safetensors")).train(X, Y, 3)
    np.testing.assert_array_equal(parameters(from_file), parameters(PLAIN.train(X, Y, 3, teacher=teacher)))


def test_student_agrees_with_its_teacher():
    """The teacher was trained on wrong labels: a student predicts them, whatever y is, and another network does not."""
    x, y = make_images(6, 6, count=300)
    recipe = PLAIN.replace(epochs=12, lr=0.02, temperature=2.0)
    teacher = recipe.replace(hidden=(20,), temperature=1.0).train(x, (y + 1) % 3, 3)
    student, untaught = recipe.train(x, y, 3, teacher=teacher), recipe.train(x, y, 3)
    agreement = [float((network.predict(x) == teacher.predict(x)).mean()) for network in (student, untaught)]
    assert agreement[0] > 0.95, agreement
    assert agreement[1] < 0.05, agreement


@pytest.mark.parametrize(("deskew", "theirs"), [(True, False), (False, True)])
def test_teacher_with_another_preprocessing_is_rejected(deskew, theirs, rejects):
    teacher = PLAIN.replace(deskew=theirs, epochs=1).train(X, Y, 3)
    with rejects("the teacher has the preprocessing .*: expected "):
        PLAIN.replace(deskew=deskew).train(X, Y, 3, teacher=teacher)


def test_unknown_teacher_is_rejected(rejects):
    with rejects("the teacher pots is neither a model file nor a recipe: unknown recipe 'pots': did you mean 'post'"):
        PLAIN.replace(teacher="pots").train(X, Y, 3)


# ---- Images of any size, any number of classes -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape"),
    [*((name, (9, 7)) for name in [*RECIPES, "other"]), ("other", (20, 30))],
    ids=str,
)
def test_recipe_works_for_other_image_sizes_and_numbers_of_classes(name, shape, tmp_path, monkeypatch):
    for other, recipe in RECIPES.items():
        monkeypatch.setitem(RECIPES, other, shortened(recipe))
    (x, y), recipe = make_images(*shape), shortened({**RECIPES, "other": OTHER}[name])
    model = recipe.train(x, y, 3)
    assert (model.n_in, model.n_out, model.image_shape) == (math.prod(shape), 3, shape)
    assert np.isfinite(model.outputs(x)).all()
    save(model, tmp_path / "m.safetensors")
    np.testing.assert_array_equal(load(tmp_path / "m.safetensors").outputs(x), model.outputs(x))
    np.testing.assert_array_equal(parameters(recipe.train(x, y, 3)), parameters(model))


@pytest.mark.parametrize(
    ("shape", "wanted", "shrink"),
    [
        *[((28, 28), 2, 2), ((56, 56), 2, 4), ((8, 8), 2, 1), ((28, 28), 3, 2)],
        *[((28, 30), 2, 2), ((28, 29), 2, 1), ((42, 30), 2, 3), ((20, 30), 7, 5), ((7, 7), 28, 7)],
    ],
)
def test_shrink_is_the_closest_divisor_for_the_height(shape, wanted, shrink):
    recipe = PLAIN.replace(deskew=True, shrink=wanted)
    assert recipe.preprocessing(shape) == Deskew(*shape, shrink)
    network = recipe.trainer(shape, 3).network
    assert (network.n_in, network.image_shape) == (
        math.prod(shape) // shrink**2,
        (shape[0] // shrink, shape[1] // shrink),
    )


@pytest.mark.parametrize(
    ("shape", "shrink", "cells", "expected"),
    [((28, 28), 1, 7, 7), ((28, 28), 2, 7, 7), ((28, 28), 1, 20, 14), ((8, 6), 1, 7, 3), ((1, 9), 1, 7, 1)],
)
def test_a_cell_of_hog_has_at_least_2_x_2_pixels(shape, shrink, cells, expected):
    recipe = PLAIN.replace(deskew=True, shrink=shrink, hog=cells)
    network = recipe.trainer(shape, 3).network
    assert network.layers[0].config() == {
        "height": shape[0] // shrink,
        "width": shape[1] // shrink,
        "cells": expected,
    }
    assert (network.n_in, network.layers[1].n_in) == (math.prod(shape) // shrink**2, 8 * expected**2)


@pytest.mark.parametrize(
    ("shape", "cells", "half", "expected"), [((28, 28), 5, 14, 5), ((28, 20), 7, 10, 5), ((8, 6), 7, 3, 1)]
)
def test_hog_of_order_2_sees_one_direction_at_a_time(shape, cells, half, expected):
    first, second, dense = PLAIN.replace(hog=cells, hog_order=2, hidden=()).trainer(shape, 3).network.layers
    assert repr(first) == f"HOG(height={shape[0]}, width={shape[1]}, cells={half})"
    assert repr(second) == f"HOG(height={half}, width={half}, cells={expected}, channels=8)"
    assert dense.n_in == 8 * 8 * expected**2


@pytest.mark.parametrize("shape", [(1, 9), (9, 3)])
def test_an_image_without_second_order_gradients_has_those_of_first_order(shape):
    hog, dense = PLAIN.replace(hog=5, hog_order=2, hidden=()).trainer(shape, 3).network.layers
    assert repr(hog) == f"HOG(height={shape[0]}, width={shape[1]}, cells=1)"
    assert dense.n_in == 8


@pytest.mark.parametrize(
    ("shape", "deskew", "shrink", "seen", "pixel"),
    [
        *[((28, 28), False, 1, (28, 28), 1), ((28, 28), True, 2, (14, 14), 0.5), ((56, 40), False, 1, (56, 40), 2)],
        *[((8, 8), True, 2, (8, 8), 8 / 28), ((56, 40), True, 2, (14, 10), 0.5)],
    ],
)
def test_lengths_are_scaled_to_the_images_that_the_network_receives(shape, deskew, shrink, seen, pixel):
    settings = {"shift": 3.0, "elastic": 1.5, "smoothness": 5.0, "rotation": 7.0, "shear": 0.1, "scale": 0.2}
    augment = PLAIN.replace(deskew=deskew, shrink=shrink, **settings).augmentation(shape)
    lengths = {name: settings[name] * pixel for name in ("shift", "elastic", "smoothness")}
    expected = Augmentation(*seen, rotation=7, shear=0.1, scale=0.2, **lengths)
    assert (augment.height, augment.width, augment.shift) == (*seen, pytest.approx(3 * pixel))
    assert (augment.rotation, augment.shear, augment.scale) == (expected.rotation, 0.1, 0.2)
    np.testing.assert_allclose(augment.basis, expected.basis, rtol=1e-6)


def test_augmentation_is_none_without_a_distortion():
    assert PLAIN.augmentation((28, 28)) is None
    assert PLAIN.replace(smoothness=3.0, deskew=True).augmentation((28, 28)) is None
    for name in ("rotation", "scale", "shear", "shift", "elastic"):
        assert PLAIN.replace(**{name: 0.1}).augmentation((28, 28)) is not None


def test_small_images_are_not_shifted():
    x, y = make_images(13, 20)
    assert isinstance(PLAIN.replace(tta=5, epochs=1).train(x, y, 3), Network)
    x, y = make_images(14, 20)
    assert isinstance(PLAIN.replace(tta=5, epochs=1).train(x, y, 3), TestTimeAugmentation)


# ---- Properties of single recipes ------------------------------------------------------------------------------------


def test_recipes_have_their_names():
    assert {name: recipe.name for name, recipe in RECIPES.items()} == {name: name for name in RECIPES}


def test_small_has_at_most_25_000_parameters_in_inference():
    recipe = RECIPES["small"]
    assert parameters(recipe.assemble([recipe.trainer().network], (28, 28))).size == 24_784 <= 25_000


def test_pure_does_not_use_the_image_structure():
    """Permuted pixels, and the columns of the first layer with them, give the same outputs except for rounding."""
    # SGD, because Adam takes full steps along rounding errors: the gradient of a bias before BatchNorm is only those.
    recipe = RECIPES["pure"].replace(hidden=(8, 8), epochs=2, batch_size=16, optimizer="sgd", lr=0.05)
    assert (recipe.deskew, recipe.augmentation((28, 28)), recipe.tta) == (False, None, 1)
    x, y = make_images(6, 6, count=64)
    order = np.random.default_rng(5).permutation(36)
    permuted = x.reshape(64, 36)[:, order].reshape(64, 6, 6)
    plain, other = recipe.trainer((6, 6), 3), recipe.trainer((6, 6), 3)
    other.network.layers[0].W[...] = plain.network.layers[0].W[:, order]
    plain.fit(x, y, epochs=2)
    other.fit(permuted, y, epochs=2)
    np.testing.assert_allclose(other.network.outputs(permuted), plain.network.outputs(x), rtol=1e-3, atol=1e-3)


# ---- Fine-tuning -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained_model():
    """A Preprocessed(TestTimeAugmentation(network)) with two hidden layers, dropout and deskewing."""
    recipe = PLAIN.replace(hidden=(8, 5), activation="relu,tanh", batch_norm=True, dropout=0.2, deskew=True, shrink=14)
    return recipe.train(*make_images(28, 28), 3, classes=["a", "b", "c"])


def starting_networks(recipe, model, n_out=3, **options):
    """(network when the training starts, θ at that time) of a fine-tuning of one epoch."""
    found = []
    recipe.train(
        *make_images(28, 28, n_out),
        n_out,
        start=model,
        on_trainer=lambda trainer, member: found.append((trainer.network, trainer.network.parameters.copy())),
        **options,
    )
    return found[0]


def test_fine_tuning_starts_from_the_weights_and_the_preprocessing_of_the_model(trained_model):
    x, y = make_images(28, 28)
    origin = unwrap(trained_model)
    before = origin.core.parameters.copy()
    recipe = RECIPES["second"].replace(epochs=1, label_smoothing=0.1, lr=1e-9)
    model = recipe.train(x, y, 3, start=trained_model, classes=["a", "b", "c"])
    np.testing.assert_allclose(parameters(model), before, atol=1e-6)  # the learning rate is tiny
    assert unwrap(model).preprocessing == origin.preprocessing == Deskew(28, 28, 14)
    assert model.classes == ("a", "b", "c")
    assert unwrap(model).core.loss.label_smoothing == 0.1
    np.testing.assert_array_equal(origin.core.parameters, before)  # training changes a copy
    trained = RECIPES["second"].replace(epochs=3).train(x, y, 3, start=trained_model)
    assert not np.allclose(parameters(trained), before, atol=1e-3)


def test_a_ladder_network_becomes_an_ordinary_network():
    recipe = PLAIN.replace(ladder=100.0, batch_norm=True, hidden=(8, 4))
    (layer,) = recipe.trainer(SHAPE, 3).network.layers
    assert (layer.sizes, layer.cost_factor) == ([30, 8, 4, 3], 100.0)
    network = recipe.train(X, Y, 3)
    assert [type(layer) for layer in network.layers] == [Dense, ReLU, Dense, ReLU, Dense]
    assert network.image_shape == SHAPE


def test_a_ladder_network_is_fine_tuned_without_its_decoder():
    start = Network([Ladder([30, 8, 4, 3], cost_factor=5.0)], loss="cross_entropy", rng=0)
    recipe = RECIPES["ladder"].starting_from(start)
    assert (recipe.hidden, recipe.ladder, recipe.batch_norm, recipe.activation) == ((8, 4), 0.0, False, "relu")
    trained = PLAIN.replace(epochs=1).train(X.reshape(len(X), -1) / 255, Y, 3, start=start)
    assert [type(layer) for layer in trained.layers] == [Dense, ReLU, Dense, ReLU, Dense]
    assert not np.array_equal(trained.parameters, fold_batchnorm(start).parameters)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("x", [X, X.reshape(len(X), -1) / 255], ids=["images", "rows"])
def test_a_network_with_hog_is_fine_tuned_with_its_hog(x, order):
    hog = [HOG(*SHAPE, 2), HOG(2, 2, 1, channels=8)][:order]
    start = Network([*hog, Dense(hog[-1].n_out, 3)], loss="cross_entropy", rng=0)
    assert (PLAIN.starting_from(start).hog, PLAIN.starting_from(start).hog_order) == (hog[-1].cells, order)
    network = PLAIN.replace(epochs=1).train(x, Y, 3, start=start)
    assert repr(network.layers) == repr(start.layers)
    assert not np.array_equal(network.parameters, start.parameters)


@pytest.mark.parametrize(
    ("n_out", "classes", "kept"),
    [(3, None, True), (3, ("a", "b", "c"), True), (3, ("a", "b", "d"), False), (4, None, False)],
)
def test_the_last_layer_is_new_for_other_classes(n_out, classes, kept, trained_model):
    origin = unwrap(trained_model).core
    network, theta = starting_networks(RECIPES["second"].replace(epochs=1), trained_model, n_out, classes=classes)
    first = origin.parameters.size - 5 * 3 - 3
    np.testing.assert_array_equal(theta[:first], origin.parameters[:first])
    assert np.array_equal(theta[first:], origin.parameters[first:]) == kept
    assert network.n_out == n_out
    assert network.classes == (classes or tuple(map(str, range(n_out))) if not kept else ("a", "b", "c"))


@pytest.mark.parametrize("freeze", [0, 1, 2])
def test_frozen_layers_do_not_change(freeze, trained_model):
    network, before = starting_networks(RECIPES["second"].replace(epochs=2), trained_model, freeze=freeze)
    sizes = np.cumsum([0, 4 * 8 + 8, 8 * 5 + 5, 5 * 3 + 3])
    for i, (first, last) in enumerate(itertools.pairwise(sizes)):
        assert np.array_equal(network.parameters[first:last], before[first:last]) == (i < freeze)


def test_fine_tuning_of_numbers_uses_their_mean_and_standard_deviation_in_the_model():
    x, y = blobs()
    first = POST.replace(epochs=1, validation=0).train(x, y, 3)
    second = RECIPES["quick"].replace(epochs=1).train(x + 5, y, 3, start=first)
    assert second.preprocessing == first.preprocessing == Standardize.fit(x)


def test_recipe_for_fine_tuning_describes_the_network_of_the_model(trained_model):
    recipe = RECIPES["ensemble"].replace(members=1).starting_from(trained_model)
    assert (recipe.hidden, recipe.activation, recipe.loss) == ((8, 5), "relu,tanh", "cross_entropy")
    assert (recipe.batch_norm, recipe.dropout, recipe.deskew, recipe.shrink) == (False, 0.2, True, 14)
    assert recipe.preprocessing((28, 28)) == unwrap(trained_model).preprocessing
    assert (recipe.epochs, recipe.rotation) == (RECIPES["ensemble"].epochs, RECIPES["ensemble"].rotation)
    assert RECIPES["quick"].starting_from(Network([4, 3], rng=0)).deskew is False


def test_fine_tuning_augments_images_of_the_size_that_the_preprocessing_of_the_model_gives():
    for preprocessing, shrink in ((Deskew(40, 40, 2), 2), (Deskew(57, 57), 1), (Deskew(56, 56), 1)):
        network = Network([preprocessing.n_out, 4, 3], loss="cross_entropy", rng=0)
        network.image_shape = preprocessing.image_shape_out
        start = Preprocessed(network, preprocessing)
        recipe = PLAIN.replace(epochs=1, rotation=5.0)
        assert recipe.starting_from(start).shrink == shrink
        model = recipe.train(*make_images(*preprocessing.image_shape_in), 3, start=start)
        assert unwrap(model).preprocessing == preprocessing


def test_models_that_fine_tuning_cannot_start_from_are_rejected(trained_model, rejects):
    recipe, (x, y) = RECIPES["second"], make_images(28, 28)
    with rejects("start from is a Ensemble: expected a single network"):
        recipe.train(x, y, 3, start=Ensemble([trained_model, trained_model]))
    with rejects("a regression with SquaredError"):
        recipe.train(x, y, 3, start=Network([784, 3], loss=SquaredError("identity")))
    with rejects("an example of the data is 6x5: the model to start from expects 28x28"):
        recipe.train(X, Y, 3, start=trained_model)
    with rejects("an example of the data is 28x28: the model to start from expects 4 numbers"):
        recipe.train(x, y, 3, start=Network([4, 3], loss="cross_entropy"))
    with rejects("freeze 3: the network has 3 Dense layers, of which at most 2 can be frozen"):
        recipe.train(x, y, 3, start=trained_model, freeze=3)
    with rejects("freeze must be an integer >= 0"):
        recipe.train(x, y, 3, start=trained_model, freeze=-1)
    with rejects("the data have 1 class"):
        recipe.train(x, np.zeros_like(y), 1, start=trained_model)


def test_imported_network_of_flat_images_is_fine_tuned_on_images():
    network = Network([784, 5, 3], loss="cross_entropy", activation="relu", rng=0)
    model = RECIPES["second"].replace(epochs=1).train(*make_images(28, 28), 3, start=network)
    assert (model.image_shape, unwrap(model).preprocessing) == ((28, 28), None)


# ---- Numbers ---------------------------------------------------------------------------------------------------------


def blobs() -> tuple[np.ndarray, np.ndarray]:
    """300 examples of 3 classes with 4 features of very different size."""
    rng = np.random.default_rng(2)
    y = np.arange(300) % 3
    return rng.normal(size=(300, 4)) * [1, 1e4, 1, 1] + y[:, None] * [4, 0, 0, 0] + [0, 1e6, 0, 0], y


def test_numbers_are_standardized_by_the_training_examples() -> None:
    x, y = blobs()
    recipe = POST.replace(epochs=5, validation=60)
    model = recipe.train(x, y, 3)
    assert isinstance(model, Preprocessed)
    assert model.preprocessing == Standardize.fit(x[:240])
    assert model.image_shape is None
    assert model.evaluate(x[240:], y[240:]).accuracy > 0.9


def test_numbers_with_an_ensemble_and_a_teacher() -> None:
    x, y = blobs()
    recipe = RECIPES["pure"].replace(epochs=2, hidden=(5,), members=2, validation=60, teacher="post")
    model = recipe.train(x, y, 3)
    assert isinstance(unwrap(model).core, Ensemble)
    assert model.preprocessing == Standardize.fit(x[:240])


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if name not in ("post", "pure", "ladder")])
def test_recipes_of_images_reject_numbers(name, rejects) -> None:
    with rejects(f"the recipe {name} needs images \\(deskew.* is 4 numbers: choose the recipe post, pure or ladder"):
        RECIPES[name].train(*blobs(), 3)


def test_for_examples_limits_the_validation_set_to_a_sixth() -> None:
    assert [POST.for_examples(count).validation for count in (60, 6_000, 60_000, 100_000)] == [10, 1000, 10_000, 10_000]
    assert PLAIN.replace(validation=0).for_examples(60).validation == 0


def test_a_single_class_is_rejected(rejects):
    with rejects("the data have 1 class: expected at least 2"):
        RECIPES["post"].for_examples(20).train(np.zeros((20, 4)), np.zeros(20, int), 1)
