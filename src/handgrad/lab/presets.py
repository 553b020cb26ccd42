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
    spirals = replace(plane, activation="relu", hidden=(16, 16), lr=0.003, epochs=300)
    return [
        Preset(
            "quadratic",
            "Squared error and cross-entropy",
            "Outputs that start near the wrong end learn slowly with the squared error: look at the gradients, which "
            "are several times smaller. After one epoch its accuracy is about half of that with cross-entropy.",
            _pair(replace(post, loss="squared_error"), loss="binary_cross_entropy"),
        ),
        Preset(
            "initialization",
            "N(0, 1) and Xavier",
            "Look at the saturation of the hidden layer at the start: more than half with weights from N(0, 1), none "
            "with Xavier's. The run with Xavier's is ahead from the first epoch on.",
            _pair(replace(post, hidden=(100,), initializer="normal"), initializer="xavier_normal"),
        ),
        Preset(
            "deep",
            "Sigmoid and ReLU in a deep network",
            "Look at the gradients at the start: with sigmoids that of the first layer is a hundred times smaller than "
            "that of the last, and the loss hardly moves for some epochs; with ReLU all have a similar size.",
            _pair(replace(deep, activation="sigmoid"), activation="relu"),
        ),
        Preset(
            "small-rate",
            "A learning rate that is too small",
            "Look at the accuracy: 30 epochs with the rate 0.001 do not reach what one epoch with 0.5 does.",
            _pair(replace(post, initializer="xavier_normal", lr=0.001), lr=0.5),
        ),
        Preset(
            "large-rate",
            "A learning rate that is too large",
            "With the rate 20, the first steps saturate the hidden units: the gradient of the first layer vanishes, "
            "and the accuracy stays at that of guessing.",
            _pair(replace(post, initializer="xavier_normal", lr=20.0), lr=0.5),
        ),
        Preset(
            "xor",
            "XOR",
            "Look at the boundary: no straight line separates these classes, but four hidden units bend it.",
            (replace(plane, data="xor", hidden=(4,), epochs=200),),
        ),
        Preset(
            "moons",
            "Two moons",
            "Look at the boundary: it is almost straight after one epoch, and bends between the moons later.",
            (replace(plane, data="moons", hidden=(8,), epochs=200),),
        ),
        Preset(
            "spirals",
            "Two spirals",
            "Look at the boundary: it winds along the spirals until it separates them, after a few dozen epochs.",
            (spirals,),
        ),
    ]


def presets(digits: str) -> list[dict[str, Any]]:
    """Return the presets as values of JSON."""
    return [
        {"name": one.name, "title": one.title, "text": one.text, "runs": [run.to_json() for run in one.runs]}
        for one in all_presets(digits)
    ]
