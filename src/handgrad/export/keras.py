"""A Keras script, for any backend that Keras has: the same chain, the model file's weights; or the same training."""

from __future__ import annotations

from ..layers import BatchNorm, Dense, Layer
from ..network import Network
from .graph import InferenceGraph
from .numpy_file import told
from .templates import called, render, paragraphs, quoted
from .training import Training, beside

TEMPLATE = '''
"""«title»

    python «name» «file»     answers to what is in the file: one example, or several

«head»
"""

import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers
from safetensors.numpy import load_file

«?is_classification»«classes»
«?is_classification»
network = keras.Sequential([
    keras.Input((«n_in»,)),
    «layers»
])
weights = load_file(Path(__file__).with_name(«weights»))
for i, layer in enumerate(network.layers):
    if isinstance(layer, layers.Dense):
        layer.set_weights([weights[f"{i}.weight"].T, weights[f"{i}.bias"]])  # W is (n_out, n_in) there
«?norms»    if isinstance(layer, layers.BatchNormalization):
«?norms»        names = ("weight", "bias", "running_mean", "running_var")
«?norms»        layer.set_weights([weights[f"{i}.{name}"] for name in names])


«?is_classification»def predict(x):
«?is_classification»    """x (count, «n_in») -> the label of each: (count,) integers."""
«?is_classification»    return «label»
«?is_classification»
«?is_classification»
def «reader»(x):
    """x (count, «n_in») -> (count, «n_out»)."""
    return keras.ops.convert_to_numpy(«read»)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    x = np.load(sys.argv[1]).reshape(-1, «n_in»)
    x = (x / 255 if x.dtype == np.uint8 else x).astype("float32")
    «told»
'''

LAYERS = {
    "Dense": "layers.Dense({n_out})",
    "BatchNorm": "layers.BatchNormalization(momentum={kept!r}, epsilon={epsilon!r})",
    "Dropout": "layers.Dropout({rate!r})",
    "Identity": "layers.Identity()",
    "Sigmoid": 'layers.Activation("sigmoid")',
    "Tanh": 'layers.Activation("tanh")',
    "Relu": 'layers.Activation("relu")',
    "LeakyRelu": "layers.LeakyReLU(negative_slope={slope!r})",
    "Softplus": 'layers.Activation("softplus")',
    "Gelu": "layers.Activation(lambda z: keras.activations.gelu(z, approximate=True))",
}
READ = {"identity": "{}"} | {word: f"keras.ops.{word}({{}})" for word in ("softmax", "sigmoid", "exp")}
BACKEND = "It runs on the backend that KERAS_BACKEND names: torch, jax or tensorflow."


def write(plain: InferenceGraph, name: str) -> bytes:
    """The script's text; `name` is the file's own."""
    title, *head = plain.head(", in Keras")
    values = {
        "title": title,
        "name": name,
        "head": paragraphs([*head, BACKEND]),
        "classes": called("CLASSES", map(quoted, plain.network.classes), "(", ")"),
        "layers": [f"{module(layer)}," for layer in plain.network.layers],
        "norms": normed(plain.network),
        "weights": quoted(plain.weights),
        "label": label(plain),
        "read": READ[plain.reading].format("network(x)"),
        "told": told(plain),
    }
    return render(TEMPLATE, plain.values | values).encode()


def label(plain: InferenceGraph) -> str:
    """The labels of what the network makes of x."""
    if plain.threshold is None:
        return "keras.ops.convert_to_numpy(network(x)).argmax(axis=1)"
    return f"(keras.ops.convert_to_numpy(network(x))[:, 0] > {plain.threshold:g}).astype(int)"


def module(layer: Layer) -> str:
    """The Keras layer that is this one."""
    config = layer.config()
    if isinstance(layer, BatchNorm):  # Keras's momentum is the share that is kept
        config["kept"] = round(1 - layer.momentum, 12)
    return LAYERS[type(layer).__name__].format(**config)


def normed(network: Network) -> bool:
    """Whether a BatchNorm is in the chain."""
    return any(isinstance(layer, BatchNorm) for layer in network.layers)


# ---- The training ----------------------------------------------------------------------------------------------------

TRAINING = '''
«head»

«?moves»import math
import sys

import keras
import numpy as np
from keras import layers

«?deskew»from handgrad import Deskew
from handgrad.data import load

keras.utils.set_random_seed(«seed»)
shuffling = np.random.default_rng(«seed»)


«born»
network = keras.Sequential([  #: network = Network([
    keras.Input((«n_in»,)),
    «layers»
])  #: ], loss=«loss_told»)

optimizer = keras.optimizers.«optimizer»  #: optimizer = «optimizer_told»
«?decay»optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])  #: network.weights
network.compile(optimizer, «loss»)
«schedule»


def train(x, t, epochs=«epochs», batch_size=«batch_size»):  #: trainer.fit(x, y, epochs=«epochs»)
    """x (count, «n_in») pixels in [0, 1], t (count, «n_out») targets, one row an example."""
    batches = -(-len(x) // batch_size)  #: batches = -(-len(x) // batch_size)
    for epoch in range(epochs):  #: while epoch < epochs:
        loss_sum = 0.0  #:     loss_sum = 0.0
        order = shuffling.permutation(len(x))  #:     order = shuffling.permutation(len(x))
        for batch in range(batches):  #:     for batch in range(batches):
            rows = order[batch * batch_size :][:batch_size]  #:         rows = order[first : first + batch_size]
«?moves»            lr = «lr»  #:         lr = «lr»
«?moves»            optimizer.learning_rate = lr
            loss = network.train_on_batch(x[rows], t[rows])  #:         z = network.forward(x[rows])
  #:         dz = loss.backward(z, t[rows], 1 / len(rows))
  #:         network.backward(dz)
«?decay»  #:         for W, _ in network.weights: W *= 1 - lr * weight_decay
  #:         optimizer.step(network, lr)
            loss_sum += float(loss) * len(rows)  #:         loss_sum += loss.value(z, t[rows]) * len(rows)
        print(f"epoch {epoch + 1}/{epochs}  loss {loss_sum / len(x):.4f}")


def pixels(pictures):
    """(count, height, width) bytes -> (count, «n_in») floats in [0, 1]."""
«?deskew»    pictures = «deskew»(pictures)  #: x = network.preprocess(x)
    return pictures.reshape(len(pictures), -1).astype("float32") / 255  #: as_floats(x)


def targets(labels):
    """(count,) labels -> (count, «n_out») rows."""
    t = np.eye(«n_out», dtype="float32")[labels]  #: t = one_hot(y, n_out)
    return «smoothed»


def tell(name, pictures, labels):
    """How many of these it reads right."""
    z = keras.ops.convert_to_numpy(network(pixels(pictures)))  #: z = network.outputs(x)
    right = (z.argmax(axis=1) == labels).sum()
    print(f"{name}: {right} / {len(labels)} ({right / len(labels):.2%}) right")


«program»
    network.save("«trained».keras")
'''

OPTIMIZERS = {
    "sgd": "SGD({lr}{decay})",
    "momentum": "SGD({lr}, momentum={momentum}{decay})",
    "nesterov": "SGD({lr}, momentum={momentum}, nesterov=True{decay})",
    "adam": "Adam({lr}, epsilon=1e-8{decay})",
}
LOSSES = {
    "softmax": "keras.losses.CategoricalCrossentropy(from_logits=True)",
    "sigmoid": "lambda t, z: keras.ops.sum(keras.ops.softplus(z) - t * z, axis=1)",
    "identity": "lambda t, a: keras.ops.sum((a - t) ** 2, axis=1) / 2",
}
# Keras's own glorot_normal, he_normal and lecun_normal draw from a normal distribution that is cut off at both ends.
_SCALED = 'keras.initializers.VarianceScaling({}, "{}", "{}")'
BORN = {
    "normal": "keras.initializers.RandomNormal(stddev=1.0)",
    "lecun": _SCALED.format(1.0, "fan_in", "untruncated_normal"),
    "xavier_normal": _SCALED.format(1.0, "fan_avg", "untruncated_normal"),
    "xavier_uniform": _SCALED.format(1.0, "fan_avg", "uniform"),
    "kaiming_normal": _SCALED.format(2.0, "fan_in", "untruncated_normal"),
    "kaiming_uniform": _SCALED.format(2.0, "fan_in", "uniform"),
    "zeros": '"zeros"',
}


def write_training(training: Training, name: str) -> bytes:
    """The script's text; `name` is the file's own."""
    network, decay = training.network, training.optimizer.weight_decay
    word, options = training.made
    notes = [BACKEND]
    if word in ("momentum", "nesterov") and training.moves:
        notes.append("The velocity of Keras holds the learning rate, handgrad's does not: here they differ a little.")
    if normed(network):
        notes.append("The running variance of Keras is over the batch, handgrad's and PyTorch's over the batch less 1.")
    values = {
        "layers": [f"{born_as(layer)},  #:     {layer!r}," for layer in network.layers],
        "born": born(network),
        "optimizer": OPTIMIZERS[word].format(**options, decay=f", weight_decay={decay!r}" if decay else ""),
        "loss": LOSSES[training.plain.reading],
    }
    return beside(render(TRAINING, training.values("Keras", name, notes) | values)).encode()


def born_as(layer: Layer) -> str:
    """The call that makes this layer: of a Dense one, that of the function of its initializer."""
    return f"{layer.init}({layer.n_out})" if isinstance(layer, Dense) else module(layer)


def born(network: Network) -> list[str]:
    """A function for each way in which a Dense layer of the network is born: an initializer of Keras's draws once."""
    lines: list[str] = []
    for init in dict.fromkeys(layer.init for layer in network.layers if isinstance(layer, Dense)):
        lines += [f"def {init}(n_out):  #: initializers.{init}(W, b, rng)", f"    kernel = {BORN[init]}"]
        if init == "normal":
            lines += [
                f"    bias = {BORN[init]}",
                "    return layers.Dense(n_out, kernel_initializer=kernel, bias_initializer=bias)",
            ]
        else:
            lines += ["    return layers.Dense(n_out, kernel_initializer=kernel)"]
        lines += ["", ""]
    return lines
