"""Presets: pairs of runs that differ in one setting, and networks in the plane, with what to look at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from .settings import Settings


class Preset(NamedTuple):
    """An experiment with a title and a sentence that says what to look at."""

    name: str
    title: str
    text: str
    runs: tuple[Settings, ...]


def _pair(settings: Settings, **other: Any) -> tuple[Settings, Settings]:
    """Two runs that differ in one setting, which has another value in the second run."""
    return settings, replace(settings, **other)


def all_presets(digits: str = "mnist") -> list[Preset]:
    """Return the presets. `digits` is the data set of images: "mnist" or "synthetic"."""
    post = Settings(data=digits, n_train=10_000)
    deep = replace(post, hidden=(100, 100, 100, 100), loss="cross_entropy", initializer="xavier_normal", lr=0.1)
    plane = Settings(data="spirals", n_train=500, loss="cross_entropy", activation="tanh", optimizer="adam", lr=0.01)
    return [
        Preset(
            "quadratic",
            "Squared error and cross-entropy",
            "The outputs start saturated: look at how small the gradients of the squared error are, and how long it "
            "stays there.",
            _pair(replace(post, loss="squared_error"), loss="binary_cross_entropy"),
        ),
        Preset(
            "initialization",
            "N(0, 1) and Xavier",
            "Look at the saturated hidden units: most of those that start from N(0, 1), almost none of those that "
            "start from Xavier's initialization.",
            _pair(replace(post, hidden=(100,), initializer="normal"), initializer="xavier_normal"),
        ),
        Preset(
            "deep",
            "Sigmoid and ReLU in a deep network",
            "Look at the gradient of the first layer: with sigmoids it is many times smaller than that of the last "
            "layer, with ReLU it is not, and only the ReLU network learns from the start.",
            _pair(replace(deep, activation="sigmoid"), activation="relu"),
        ),
        Preset(
            "small-rate",
            "A learning rate that is too small",
            "Look at the losses: with a rate of 0.001 the curve falls in the same way, but hundreds of times more "
            "slowly.",
            _pair(replace(post, initializer="xavier_normal", lr=0.001), lr=0.5),
        ),
        Preset(
            "large-rate",
            "A learning rate that is too large",
            "Look at the loss with the rate 20: it jumps, and the hidden units saturate within the first epoch.",
            _pair(replace(post, initializer="xavier_normal", lr=20.0), lr=0.5),
        ),
        Preset(
            "xor",
            "XOR",
            "Look at the boundary: no straight line separates the classes, and four hidden units bend it.",
            (replace(plane, data="xor", hidden=(4,), epochs=200),),
        ),
        Preset(
            "moons",
            "Two moons",
            "Look at the boundary: it starts as a straight line, and follows the moons after a few epochs.",
            (replace(plane, data="moons", hidden=(8,), epochs=200),),
        ),
        Preset(
            "spirals",
            "Two spirals",
            "Look at the boundary: it winds itself into the spirals from the outside to the inside.",
            (replace(plane, hidden=(32, 32), epochs=500),),
        ),
    ]


def presets(digits: str) -> list[dict[str, Any]]:
    """Return the presets as values of JSON."""
    return [
        {"name": one.name, "title": one.title, "text": one.text, "runs": [run.to_json() for run in one.runs]}
        for one in all_presets(digits)
    ]
