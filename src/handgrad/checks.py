"""The whole library, checked: what `handgrad check` runs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .arrays import Seed
from .gradcheck import Check, gradient_errors
from .layers import ACTIVATIONS, BatchNorm, Dense, Dropout, Layer
from .losses import LOSSES as CLASSIFYING
from .losses import SoftmaxCrossEntropy, softmax
from .network import Network
from .regression import LOSSES, REGRESSION


def check_all(rng: Seed = 0) -> Iterator[Check]:
    """Every layer, every loss, every activation with every loss, and whole networks: what `handgrad check` runs."""
    rng = np.random.default_rng(rng)
    layers: list[Layer] = [Dense(5, 3), Dropout(0.4), *(activation() for activation in ACTIVATIONS.values())]
    layers.append(BatchNorm(5, epsilon=0.1))  # an ε that is seen where it is wrong
    for batch in (1, 2, 7):
        for layer in layers:
            for check in gradient_errors(layer, rng.standard_normal((batch, 5)), rng=rng):
                yield check._replace(name=f"{check.name}, batch {batch}")

    for name, make_loss in CLASSIFYING.items():
        for batch in (1, 7):
            for smoothing in (0.0, 0.1):
                z, y = 3 * rng.standard_normal((batch, 4)), rng.integers(0, 4, batch)
                for check in gradient_errors(make_loss(smoothing), z, y, rng=rng):
                    yield check._replace(name=f"{name} dz, batch {batch}, label smoothing {smoothing:g}")

    for name, make_loss in REGRESSION.items():
        for batch in (1, 7):
            z, counts = rng.standard_normal((batch, 4)), rng.poisson(2, (batch, 4))
            for check in gradient_errors(make_loss(), z, counts, rng=rng):
                yield check._replace(name=f"{name} dz, batch {batch}")

    for temperature in (0.5, 4.0):
        z, rows = 3 * rng.standard_normal((7, 4)), softmax(rng.standard_normal((7, 4)))
        for check in gradient_errors(SoftmaxCrossEntropy(0.1, temperature), z, rows, rng=rng):
            yield check._replace(name=f"softmax_cross_entropy dz, soft rows, temperature {temperature:g}")

    for activation in ACTIVATIONS:
        for loss in LOSSES:
            network = Network([6, 5, 4], activation=activation, loss=loss, init="lecun", rng=rng, dtype=np.float64)
            yield from _whole(f"{activation} + {loss}", network, 3, rng)
    for activation, make in ACTIVATIONS.items():
        network = Network([Dense(6, 4), make()], loss="quadratic", rng=rng, dtype=np.float64)
        yield from _whole(f"output {activation} + quadratic", network, 3, rng)

    for loss in ("quadratic", "cross_entropy"):
        network = Network([6, 5, 1], activation="tanh", loss=loss, rng=rng, dtype=np.float64)
        yield from _whole(f"one output + {loss}", network, 5, rng)

    yield from _whole("the post's [784, 30, 10]", Network([784, 30, 10], rng=rng, dtype=np.float64), 10, rng)
    deep = Network(
        [7, 6, 5, 4, 3], activation=["tanh", "relu", "gelu"], loss="softmax_cross_entropy", rng=rng, dtype=np.float64
    )
    yield from _whole("deep [7, 6, 5, 4, 3], tanh, relu, gelu", deep, 1, rng)
    dropped = [Dropout(0.2), Dense(8, 6), ACTIVATIONS["leaky_relu"](), Dropout(0.5), Dense(6, 3)]
    yield from _whole("dropout on inputs and hidden", Network(dropped, rng=rng, dtype=np.float64), 5, rng)
    for batch in (2, 7):
        normed = [BatchNorm(n, epsilon=0.1) for n in (7, 6, 5, 3)]
        chain = [normed[0], Dense(7, 6), normed[1], ACTIVATIONS["gelu"](), Dense(6, 5), ACTIVATIONS["tanh"]()]
        chain += [normed[2], Dropout(0.3), Dense(5, 3), normed[3]]
        network = Network(chain, loss="softmax_cross_entropy", rng=rng, dtype=np.float64)
        yield from _whole(f"batch norm on inputs, hidden and outputs, batch {batch}", network, batch, rng)


def _whole(title: str, network: Network, batch: int, rng: np.random.Generator) -> Iterator[Check]:
    x = rng.standard_normal((batch, network.n_in))
    y = rng.integers(0, network.n_classes, batch) if network.loss.classifies else rng.poisson(2, (batch, network.n_out))
    for check in gradient_errors(network, x, y, rng=rng):
        yield check._replace(name=f"{title}: {check.name}")
