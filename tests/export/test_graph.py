"""Inference graphs: the output activation of each loss, and models that cannot be exported."""

import numpy as np
import pytest

from handgrad import BatchNorm, BinaryCrossEntropy, Dense, Deskew, Ensemble, Layer, Network, Preprocessed, SquaredError
from handgrad.export.graph import OUTPUT_ACTIVATIONS, inference_graph
from handgrad.losses import LOSSES
from handgrad.wrappers import Preprocessing, TestTimeAugmentation


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


def network(**options):
    return Network([4, 5, 3], rng=1, **options)


def network_with_nan():
    nan = network()
    nan.parameters[3] = np.nan
    return nan


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ensemble([network(), network()]), "an ensemble cannot be exported: the model has 2 members"),
        (lambda: Preprocessed(Ensemble([network()]), Deskew(2, 2)), "an ensemble cannot be exported"),
        (lambda: Network([Dense(4, 3), Doubled()]), "layer 1 is Doubled"),
        (lambda: network(loss=CustomLoss()), "the loss is CustomLoss"),
        (lambda: Preprocessed(network(), CustomPreprocessing()), r"custom preprocessing .* CustomPreprocessing\(\)"),
        (network_with_nan, "not finite"),
        (lambda: Network([4, 1], loss="cross_entropy", rng=0), "softmax of a single output is always 1"),
    ],
)
def test_models_that_cannot_be_exported_raise_an_error(make, message, refused):
    with refused(message):
        inference_graph(make(), supports_preprocessing=True)


def test_every_loss_has_an_output_activation():
    assert set(OUTPUT_ACTIVATIONS) == set(LOSSES.values())
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


def test_preprocessing_that_the_target_does_not_support_raises_an_error_unless_it_is_left_out(refused):
    inner = network()
    inner.image_shape = (2, 2)
    model = Preprocessed(TestTimeAugmentation(inner, 5), Deskew(4, 4, shrink=2))
    with refused(r"Deskew\(height=4, width=4, shrink=2\) and test-time augmentation over 5 shifts: only --to python"):
        inference_graph(model)
    graph = inference_graph(model, without_preprocessing=True)
    assert (graph.deskew, graph.shifts, graph.image_shape) == (None, 1, (2, 2))
    assert "preprocessed by handgrad's Deskew(height=4, width=4, shrink=2)" in " ".join(graph.notes)
    graph = inference_graph(model, supports_preprocessing=True)
    assert (graph.deskew, graph.shifts, graph.image_shape) == (Deskew(4, 4, shrink=2), 5, (4, 4))


def test_the_steps_have_folded_batch_norm_and_the_network_does_not():
    graph = inference_graph(network(batch_norm=True))
    assert [step.kind for step in graph.steps] == ["dense", "sigmoid", "dense"]
    assert any(isinstance(layer, BatchNorm) for layer in graph.network.layers)


def test_batch_norm_is_folded_before_the_weights_are_rounded_to_float32():
    model = Network([Dense(3, 2), BatchNorm(2)], rng=0, dtype=np.float64)
    model.layers[1].running_mean[...] = model.layers[0].b[...] = 1e6
    (step,) = inference_graph(model).steps
    W, b = step.arrays.values()
    x = np.random.default_rng(0).random((5, 3))
    np.testing.assert_allclose(x @ W.T + b, model.outputs(x), atol=1e-6)
