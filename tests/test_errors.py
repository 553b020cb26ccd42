"""Errors: suggestions for unknown names, in handgrad's words for what users of PyTorch and Keras type."""

import itertools
import math
import sys

import numpy as np
import pytest

import handgrad
from handgrad import (
    Adam,
    Adversarial,
    Augmentation,
    Checkpoint,
    CrossEntropy,
    Dense,
    Dropout,
    EarlyStopping,
    Ensemble,
    HandgradError,
    Huber,
    Network,
    ReLU,
    SquaredError,
    Standardize,
    TestTimeAugmentation,
    Trainer,
    VirtualAdversarial,
    check_gradient,
    fold_batchnorm,
    load,
)
from handgrad.data import Dataset
from handgrad.errors import MissingExtraError, closest, optional, unknown
from handgrad.wrappers import Calibrated


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Softmax", "the loss CrossEntropy includes the softmax"),
        ("Linear", "use Dense"),
        ("Sequential", r"use Network\(\["),
        ("MSELoss", "use SquaredError"),
        ("NLLLoss", "use CrossEntropy"),
        ("BCEWithLogitsLoss", "use BinaryCrossEntropy"),
        ("Relu", r"did you mean ReLU\?"),
        ("relu", r"did you mean ReLU\?"),
        ("CrossEntropyLoss", r"did you mean CrossEntropy\?"),
        ("BatchNorm1d", r"did you mean BatchNorm\?"),
        ("earlystopping", r"did you mean EarlyStopping\?"),
    ],
)
def test_a_name_of_another_library_leads_to_handgrads(name, hint):
    with pytest.raises(AttributeError, match=f"module 'handgrad' has no attribute '{name}': {hint}"):
        getattr(handgrad, name)


def test_an_unknown_attribute_without_a_similar_name_has_no_suggestion():
    for name in ("qqqq", "_private"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'$"):
            getattr(handgrad, name)


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        ({"loss": "CrossEntropy"}, "cross_entropy"),
        ({"loss": "cross-entropy"}, "cross_entropy"),
        ({"loss": "CrossEntropyLoss"}, "cross_entropy"),
        ({"loss": "BinaryCrossEntropy"}, "binary_cross_entropy"),
        ({"loss": "HuberLoss"}, "huber"),
        ({"activation": "ReLU"}, "relu"),
        ({"activation": "LeakyReLU"}, "leaky_relu"),
        ({"activation": "leaky-relu"}, "leaky_relu"),
        ({"activation": ["GELU"]}, "gelu"),
        ({"activation": "Sigmoid"}, "sigmoid"),
        ({"init": "KaimingNormal"}, "kaiming_normal"),
        ({"init": "kaimin_normal"}, "kaiming_normal"),
    ],
)
def test_an_unknown_name_is_rejected_with_the_closest_one(arguments, suggestion, rejects):
    (name,) = arguments.values()
    with rejects(f"'{name if isinstance(name, str) else name[0]}': did you mean '{suggestion}'"):
        Network([3, 4, 2], **arguments)


def test_the_error_for_an_unknown_name_lists_all_names():
    assert str(unknown("loss", "qqqq", ["b", "a"])) == "unknown loss 'qqqq': the losses are a, b"
    assert str(unknown("flag", "aaa", ["aab"])) == "unknown flag 'aaa': did you mean 'aab'? The flags are aab"


@pytest.mark.parametrize("activation", ["relu", 0.1, None])
def test_squared_error_names_its_two_activations(activation, rejects):
    with rejects("activation must be 'identity' or 'sigmoid'"):
        SquaredError(activation)


@pytest.mark.parametrize(("name", "known"), [("ADAM_W", "AdamW"), ("adamw", "AdamW"), ("xyz", None), ("", None)])
def test_closest_ignores_case_and_underscores(name, known):
    assert closest(name, ["AdamW", "SGD"]) == known


def test_a_missing_extra_names_the_package_and_the_command(rejects):
    with rejects(r"'no_such_package' is not installed: run pip install 'handgrad\[onnx\]'") as caught:
        optional("no_such_package.part", "onnx")
    assert isinstance(caught.value, MissingExtraError)
    assert isinstance(caught.value, ImportError)
    assert optional("json") is sys.modules["json"]


@pytest.mark.parametrize(
    ("part", "name", "hint"),
    [
        (Dropout(), "p", "the dropout rate is layer.rate"),
        (Dense(2, 1), "frozen", "layer.trainable = False"),
        (Network([2, 1]), "training", "inference mode"),
        (Trainer(Network([2, 1]), "adam"), "epochs", "pass it to fit"),
        (Huber(), "detla", "did you mean 'delta'"),
        (CrossEntropy(), "temprature", "did you mean 'temperature'"),
        (Calibrated(Network([2, 1]), 1.0), "temprature", "did you mean 'temperature'"),
        (Ensemble([Network([2, 1])]), "member", "did you mean 'members'"),
        (EarlyStopping(), "patiance", "did you mean 'patience'"),
        (Adversarial(1.0), "eps", "did you mean 'epsilon'"),
        (Augmentation(8, 8), "rotations", "did you mean 'rotation'"),
        (Standardize([0], [1]), "std", "has no attribute 'std'"),
    ],
)
def test_setting_an_attribute_that_an_object_does_not_have_is_an_error(part, name, hint, rejects):
    with rejects(hint) as caught:
        setattr(part, name, 1)
    assert isinstance(caught.value, AttributeError)


@pytest.mark.parametrize(
    ("part", "name", "right"),
    [
        ("optimizer", "lrr", "lr"),
        ("layer", "trainabel", "trainable"),
        ("network", "clases", "classes"),
        ("trainer", "bath_size", "batch_size"),
    ],
)
def test_fit_rejects_attributes_that_do_not_exist_before_the_first_step(part, name, right, rejects):
    network = Network([2, 3, 2], rng=0)
    trainer = Trainer(network, Adam(), rng=0)
    owner = {"optimizer": trainer.optimizer, "layer": network.layers[0], "network": network, "trainer": trainer}[part]
    setattr(owner, name, 1)
    with rejects(f"'{name}': did you mean '{right}'"):
        trainer.fit([[0.0, 1.0], [1.0, 0.0]], [0, 1], epochs=1)
    assert trainer.epoch == 0


def test_classes_of_users_accept_their_own_attributes():
    class Loud(ReLU):
        def __init__(self):
            self.volume = 1

    class LoudLoss(CrossEntropy):
        pass

    layer, loss = Loud(), LoudLoss()
    layer.tag, loss.tag = "first", "second"
    network = Network([Dense(2, 3), layer, Dense(3, 2)], loss=loss, rng=0)
    network.fit([[0.0, 1.0], [1.0, 0.0]], [0, 1], epochs=1, validation=None)
    assert (network.layers[1].tag, network.loss.tag) == ("first", "second")


NETWORK = Network([4, 3, 2], rng=0)
# Constructors and functions, and the arguments that get a value of every wrong type
CALLS = [
    (Dense, {"n_in": 2, "n_out": 2}, ("n_in", "n_out", "init")),
    (Dropout, {}, ("rate",)),
    (Network, {"layers": [4, 2]}, ("layers", "activation", "loss", "init", "batch_norm", "dropout", "rng", "dtype")),
    (Trainer, {"network": NETWORK, "optimizer": "adam"}, ("network", "optimizer", "batch_size", "schedule", "rng")),
    (Trainer, {"network": NETWORK, "optimizer": "adam"}, ("callbacks", "augment", "teacher", "perturb")),
    (Adam, {}, ("lr", "beta_1", "epsilon", "l2", "clip_norm")),
    (Adversarial, {"epsilon": 1.0}, ("epsilon", "norm", "share")),
    (VirtualAdversarial, {"epsilon": 1.0}, ("epsilon", "norm", "share", "xi", "rng")),
    (Augmentation, {"height": 8, "width": 8}, ("height", "rotation", "scale", "shear", "elastic", "smoothness")),
    (EarlyStopping, {}, ("patience", "min_delta")),
    (Checkpoint, {}, ("path",)),
    (Ensemble, {}, ("members",)),
    (TestTimeAugmentation, {"model": NETWORK}, ("model", "shifts")),
    (Calibrated, {"model": NETWORK, "temperature": 1.0}, ("model", "temperature")),
    (check_gradient, {"x": np.eye(4), "y": [0, 1, 0, 1]}, ("subject",)),
    (fold_batchnorm, {}, ("network",)),
    (load, {}, ("path",)),
    (handgrad.data.load, {}, ("name",)),
    (Dataset.from_arrays, {"x": np.eye(4), "y": [0, 1, 0, 1]}, ("test",)),
]


@pytest.mark.parametrize(("call", "arguments", "names"), CALLS)
def test_an_argument_of_any_wrong_type_is_a_one_line_error(call, arguments, names, rejects):
    for name, wrong in itertools.product(names, ("abc", [1j], {"a": 1}, object(), 1j, math.nan, -1)):
        if name not in ("name", "path") or not isinstance(wrong, str):
            with rejects("."):
                call(**{**arguments, name: wrong})


def test_a_name_of_a_file_with_a_nul_character_is_a_one_line_error(rejects):
    for call in (load, handgrad.data.load, Checkpoint, lambda path: handgrad.save(NETWORK, path)):
        with rejects("not the name of a file: it contains a NUL character"):
            call("a\0b")


def test_handgrad_error_is_a_value_error():
    assert issubclass(HandgradError, ValueError)


def test_message_is_one_line_of_limited_length():
    error = HandgradError("unknown layer 'a\nb\x1b[31m\ud800'")
    assert str(error) == r"unknown layer 'a\nb\x1b[31m\ud800'"
    assert len(str(HandgradError("9" * 100_000))) <= 2000
    assert str(MissingExtraError("a\rb")) == r"a\rb"


def test_suggestion_for_a_very_long_name_takes_no_time():
    assert closest("relu" + "u" * 1_000_000, ["relu", "gelu"]) is None
