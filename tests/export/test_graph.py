"""Inference graphs: the tree of a model, the output activation of each loss, and models that cannot be exported."""

import numpy as np
import pytest

from handgrad import (
    HOG,
    BatchNorm,
    BinaryCrossEntropy,
    Dense,
    Deskew,
    Ensemble,
    Ladder,
    Layer,
    Network,
    Preprocessed,
    SquaredError,
    Standardize,
)
from handgrad.export.graph import Deskewed, inference_graph
from handgrad.losses import LOSSES
from handgrad.preprocessing import Preprocessing
from handgrad.wrappers import TestTimeAugmentation


class Doubled(Layer):
    def forward(self, x):
        return 2 * x

    def backward(self, dy):
        return 2 * dy


class CustomLoss(BinaryCrossEntropy):
    pass


class CustomPreprocessing(Preprocessing):
    n_in = n_out = 4

    def __call__(self, x, out=None):
        return x

    def config(self):
        return {}


class CustomDeskew(Deskew):
    pass


def network(n_in=4, **options):
    return Network([n_in, 5, 3], rng=1, **options)


def image_network(n_in=4):
    model, side = network(n_in), round(n_in**0.5)
    model.image_shape = (side, side)
    return model


def names(model, **options):
    """The kinds of the nodes, from the outermost one; those of a Mean in brackets."""

    def describe(node):
        parts = getattr(node, "parts", None)
        if parts is not None:
            return f"Mean[{', '.join(map(describe, parts))}]"
        return type(node).__name__ + (f" {describe(node.part)}" if hasattr(node, "part") else "")

    return describe(inference_graph(model, **options).root)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Network([Dense(4, 3), Doubled()]), "layer 1 is Doubled"),
        (lambda: network(loss=CustomLoss()), "the loss is CustomLoss"),
        (lambda: Preprocessed(network(), CustomPreprocessing()), r"custom preprocessing .* CustomPreprocessing\(\)"),
        (lambda: Preprocessed(network(), CustomDeskew(2, 2)), "custom preprocessing"),
        (lambda: Ensemble([network(), Network([Dense(4, 3), Doubled()])]), "layer 1 is Doubled"),
        (lambda: Network([4, 1], loss="cross_entropy", rng=0), "softmax of a single output is always 1"),
    ],
)
def test_models_that_cannot_be_exported_raise_an_error(make, message, rejects):
    with rejects(message):
        inference_graph(make())


def test_a_ladder_network_is_exported_without_its_decoder():
    (network,) = inference_graph(Network([Ladder([4, 5, 3])], loss="cross_entropy", rng=0)).networks
    assert [(step.kind, step.n_in, step.n_out) for step in network.steps] == [
        ("dense", 4, 5),
        ("relu", 5, 5),
        ("dense", 5, 3),
    ]


def test_every_loss_has_an_output_activation():
    z = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    functions = {
        "softmax": lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True),
        "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
        "identity": lambda z: z,
        "exp": np.exp,
    }
    for loss in [*(loss() for loss in LOSSES.values()), SquaredError("sigmoid")]:
        activation = inference_graph(network(loss=loss)).output_activation
        np.testing.assert_allclose(functions[activation](z), loss.activation(z), rtol=1e-5)


def test_the_tree_has_the_order_of_the_wrappers_and_converts_after_deskewing():
    tta, deskew = TestTimeAugmentation(image_network(), 5), Deskew(4, 4, shrink=2)
    assert names(network()) == "Floats Forward"
    assert names(Preprocessed(tta, deskew)) == "Deskewed Floats Shifted Forward"
    assert names(TestTimeAugmentation(image_network(), 1)) == "Floats Forward"
    assert names(Preprocessed(network(), Standardize([0.0] * 4, [1.0] * 4))) == "Standardized Floats Forward"
    around = TestTimeAugmentation(Preprocessed(image_network(), deskew), 5)
    assert names(around) == "Floats Shifted Deskewed Forward"
    assert not any(node.rounds for node in inference_graph(around).nodes if isinstance(node, Deskewed))


def test_what_all_members_do_first_is_done_once():
    deskew = Deskew(4, 4, shrink=2)
    member = Preprocessed(TestTimeAugmentation(image_network(), 5), deskew)
    alone, other = Preprocessed(image_network(), deskew), Preprocessed(image_network(16), Deskew(4, 4))
    assert names(Ensemble([member, member])) == "Deskewed Floats Shifted Mean[Forward, Forward]"
    assert names(Ensemble([member, alone])) == "Deskewed Floats Mean[Shifted Forward, Forward]"
    assert names(Ensemble([alone, other])) == "Mean[Deskewed Floats Forward, Deskewed Floats Forward]"
    assert names(Ensemble([alone, image_network(16)])) == "Mean[Deskewed Floats Forward, Floats Forward]"
    standardized = [Preprocessed(network(), Standardize([0.0] * 4, [scale] * 4)) for scale in (1.0, 2.0)]
    assert names(Ensemble([*standardized, network()])) == (
        "Mean[Standardized Floats Forward, Standardized Floats Forward, Floats Forward]"
    )
    assert names(Ensemble([alone])) == "Deskewed Floats Forward"


def test_preprocessing_can_be_left_out():
    model = Preprocessed(TestTimeAugmentation(image_network(), 5), Deskew(4, 4, shrink=2))
    graph = inference_graph(model)
    assert (graph.n_in, graph.image_shape, graph.takes_bytes) == (16, (4, 4), True)
    assert "as by handgrad's Deskew(height=4, width=4, shrink=2)" in " ".join(graph.notes)
    assert names(model, without_preprocessing=True) == "Floats Forward"
    graph = inference_graph(model, without_preprocessing=True)
    assert (graph.n_in, graph.image_shape, graph.takes_bytes) == (4, (2, 2), False)
    notes = " ".join(graph.notes)
    assert "must be preprocessed by handgrad's Deskew(height=4, width=4, shrink=2) first" in notes
    assert "5 shifts of the image. This file does not" in notes


def test_the_networks_have_the_prefixes_of_the_model_file():
    inner = Ensemble([network(), network()])
    graph = inference_graph(Ensemble([inner, network()]))
    assert [forward.prefix for forward in graph.networks] == ["0.0.", "0.1.", "1."]
    assert list(graph.arrays) == [f"{letter}{number}" for number in range(1, 7) for letter in "Wb"]


def test_the_steps_have_folded_batch_norm_and_the_network_does_not():
    graph = inference_graph(network(batch_norm=True))
    assert [step.kind for step in graph.steps] == ["dense", "sigmoid", "dense"]
    assert any(isinstance(layer, BatchNorm) for layer in graph.network.layers)


def test_hog_is_a_step_with_the_weights_of_its_cells():
    model = Network([HOG(5, 4, 2), Dense(32, 3)], rng=0)
    hog, dense = inference_graph(Ensemble([network(20), model])).networks[1].steps
    assert (hog.kind, hog.n_in, hog.n_out) == ("hog", 20, 32)
    assert {name: array.shape for name, array in hog.arrays.items()} == {"KY3": (2, 5), "KX3": (2, 4)}
    assert {array.dtype for array in hog.arrays.values()} == {np.dtype(np.float32)}
    assert list(dense.arrays) == ["W4", "b4"]


def test_batch_norm_is_folded_before_the_weights_are_rounded_to_float32():
    model = Network([Dense(3, 2), BatchNorm(2)], rng=0, dtype=np.float64)
    model.layers[1].running_mean[...] = model.layers[0].b[...] = 1e6
    (step,) = inference_graph(model).steps
    W, b = step.arrays.values()
    x = np.random.default_rng(0).random((5, 3))
    np.testing.assert_allclose(x @ W.T + b, model.outputs(x), atol=1e-6)
