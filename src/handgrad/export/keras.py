"""Export to Keras scripts for any backend: one that loads the weights of a model file, one that trains the network."""

from __future__ import annotations

from ..images.hog import EPSILON as HOG_EPSILON
from ..images.hog import HOG
from ..interop.keras import KERAS_INITIALIZERS, layer_code, loss_code, optimizer_code
from ..layers import BatchNorm, Dense, Layer
from ..network import Network
from .graph import Forward, InferenceGraph
from .python_code import (
    EPSILON,
    TINY,
    PythonCode,
    classification,
    common_values,
    head,
    hog_code,
    hog_module,
    label,
    network_names,
)
from .templates import align_comments, paragraphs, python_string, render
from .training import Training

TEMPLATE = '''
"""«title»

    python «name» «examples»     prints the predictions for the examples in a file

«head»
"""

import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers
from safetensors.numpy import load_file

«classes»
«constants»

«hog»
«networks»
weights = load_file(Path(__file__).with_name(«weights»))
«load»


«predict»
def «function»(x):
    """Return the «predictions» (count, «n_out») for x (count, «n_in»)«or_images»."""
    return keras.ops.convert_to_numpy(«prediction»)


«functions»


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    x = np.load(sys.argv[1]).reshape(-1, «n_in»)
    «print»
'''

PREDICT = '''
def predict(x):
    """Return the label of each example (count,) for x (count, «n_in»)«or_images»."""
    return «label»
'''

HOG_MODULE = '''
@keras.saving.register_keras_serializable()
class HOG(layers.Layer):
    """Histograms of oriented gradients: how much edge there is in each of 8 directions, for each cell of a grid."""

    def __init__(self, height, width, cells, channels=1, **options):
        super().__init__(**options)
        self.n_out = channels * 8 * cells**2
        self.ky, self.kx = gaussians(height, cells), gaussians(width, cells)  # the weights of the cells

    def call(self, x):
        ops = keras.ops
        p = ops.pad(ops.reshape(x, (-1, self.ky.shape[1], self.kx.shape[1])), ((0, 0), (1, 1), (1, 1)))
        gx, gy = p[:, 1:-1, 2:] - p[:, 1:-1, :-2], p[:, 2:, 1:-1] - p[:, :-2, 1:-1]
        size_x, size_y = ops.abs(gx), ops.abs(gy)
        components = (
            *(gx - size_y, -gx - size_y, gy - size_x, -gy - size_x),  # east, west, south, north
            *(ops.minimum(gx, gy), ops.minimum(-gx, gy)),  # southeast, southwest
            *(ops.minimum(gx, -gy), ops.minimum(-gx, -gy)),  # northeast, northwest
        )
        sums = [ops.matmul(self.ky, ops.matmul(ops.relu(h), self.kx.T)) for h in components]
        return ops.reshape(ops.sqrt(ops.stack(sums, axis=1) + «epsilon»), (-1, self.n_out))
'''.replace("«epsilon»", repr(HOG_EPSILON))

NETWORK = """
«network» = keras.Sequential([
    keras.Input((«n_in»,)),
    «layers»
])
"""

LOAD = """
for i, layer in enumerate(network.layers):
    if isinstance(layer, layers.Dense):
        # The file has W (n_out, n_in).
        layer.set_weights([weights[f"«prefix»{i}.weight"].T, weights[f"«prefix»{i}.bias"]])
    «batch_norm»
"""

LOAD_ALL = """
for network, prefix in («pairs»):
    «load»
"""

BATCH_NORM = """
if isinstance(layer, layers.BatchNormalization):
    names = ("weight", "bias", "running_mean", "running_var")
    layer.set_weights([weights[f"«prefix»{i}.{name}"] for name in names])
"""

OUTPUT_ACTIVATIONS = {"identity": "{}"} | {name: f"keras.ops.{name}({{}})" for name in ("softmax", "sigmoid", "exp")}

# Predictions p with the temperature T, by the output activation.
_CLIPPED = f"keras.ops.clip({{p}}, {EPSILON}, 1 - {EPSILON})"
TEMPERED = {
    "softmax": f"keras.ops.softmax(keras.ops.log(keras.ops.maximum({{p}}, {TINY})) / {{T}})",
    "sigmoid": f"keras.ops.sigmoid((keras.ops.log({_CLIPPED}) - keras.ops.log1p(-{_CLIPPED})) / {{T}})",
}
BACKEND = "The environment variable KERAS_BACKEND selects the backend: torch, jax or tensorflow."


def write(graph: InferenceGraph, name: str) -> bytes:
    """Return the content of the script `name` that loads its weights."""
    names = network_names(graph, "network")

    def outputs(forward: Forward, x: str) -> str:
        z = f"{names[forward]}({x})"
        return z if forward.temperature == 1 else f"({z} / {forward.temperature!r})"

    def predictions(forward: Forward, x: str) -> str:
        return OUTPUT_ACTIVATIONS[graph.output_activation].format(outputs(forward, x))

    code = PythonCode(graph, predictions, TEMPERED)
    title, others = head(graph, "Keras", [BACKEND])
    networks = [
        render(
            NETWORK,
            {
                "network": names[forward],
                "n_in": forward.network.n_in,
                "layers": "\n".join(f"{_layer_code(layer)}," for layer in forward.network.layers),
            },
        )
        for forward in graph.networks
    ]
    z = f"keras.ops.convert_to_numpy({outputs(graph.networks[0], code.prepared)})"
    values = common_values(graph, code, name) | {
        "title": title,
        "head": paragraphs(others),
        "hog": hog_module((forward.network for forward in graph.networks), HOG_MODULE),
        "networks": "".join(networks).removesuffix("\n"),
        "load": _load_code(graph, names),
        "weights": python_string(graph.weights),
        "prediction": code.prediction,
        "label": label(graph, z, "astype(int)", "axis"),
    }
    values |= classification(graph, render(PREDICT, values) + "\n")
    return render(TEMPLATE, values).encode()


def _layer_code(layer: Layer) -> str:
    """Code that creates a layer."""
    return hog_code(layer) if isinstance(layer, HOG) else layer_code(layer)


def _load_code(graph: InferenceGraph, names: dict[Forward, str]) -> str:
    """The lines that set the weights of all networks."""
    alone = len(names) == 1 and not graph.networks[0].prefix
    prefix = {"prefix": "" if alone else "{prefix}"}
    has_batch_norm = any(_has_batch_norm(forward.network) for forward in graph.networks)
    batch_norm = render(BATCH_NORM, prefix).rstrip() if has_batch_norm else ""
    load = render(LOAD, prefix | {"batch_norm": batch_norm}).rstrip()
    pairs = "".join(f"\n    ({name}, {python_string(forward.prefix)})," for forward, name in names.items()) + "\n"
    return load if alone else render(LOAD_ALL, {"pairs": pairs, "load": load}).rstrip()


def _has_batch_norm(network: Network) -> bool:
    return any(isinstance(layer, BatchNorm) for layer in network.layers)


# ---- Training --------------------------------------------------------------------------------------------------------

TRAINING = '''
«head»

«import_math»
import sys

import keras
import numpy as np
from keras import layers

«import_deskew»
from handgrad.data import load

keras.utils.set_random_seed(«seed»)
shuffling = np.random.default_rng(«seed»)

«hog»

«dense_functions»
network = keras.Sequential([  # network = Network([
    keras.Input((«n_in_network»,)),
    «layers»
])  # ], loss=«handgrad_loss»)

optimizer = «optimizer»  # «handgrad_optimizer»
«exclude»
network.compile(optimizer, «loss»)
«schedule»


def train(x, t, epochs=«epochs», batch_size=«batch_size»):  # trainer.fit(x, y, epochs=«epochs»)
    """Train on x (count, «n_in_network»), pixels in [0, 1], and targets t (count, «n_out»)."""
    batches = -(-len(x) // batch_size)  # batches = -(-len(x) // batch_size)
    for epoch in range(epochs):  # while epoch < epochs:
        loss_sum = 0.0  #     loss_sum = 0.0
        order = shuffling.permutation(len(x))  #     order = shuffling.permutation(len(x))
        for batch in range(batches):  #     for batch in range(batches):
            rows = order[batch * batch_size :][:batch_size]  #         rows = order[first : first + batch_size]
            «set_lr»
            loss = network.train_on_batch(x[rows], t[rows])  #         z = network.forward(x[rows])
  #         dz = loss.backward(z, t[rows], 1 / len(rows))
  #         network.backward(dz)
«decay»
  #         optimizer.step(network, lr)
            loss_sum += float(loss) * len(rows)  #         loss_sum += loss.value(z, t[rows]) * len(rows)
        print(f"epoch {epoch + 1}/{epochs}  loss {loss_sum / len(x):.4f}")


def to_floats(images):
    """Convert images (count, height, width), bytes, to floats (count, «n_in_network») in [0, 1]."""
    «deskew»
    return images.reshape(len(images), -1).astype("float32") / 255  # as_floats(x)


def to_targets(labels):
    """Convert labels (count,) to targets (count, «n_out»)."""
    t = np.eye(«n_out», dtype="float32")[labels]  # t = one_hot(y, n_out)
    return «smooth»


def evaluate(name, images, labels):
    """Print the number of correct predictions."""
    z = keras.ops.convert_to_numpy(network(to_floats(images)))  # z = network.outputs(x)
    correct = (z.argmax(axis=1) == labels).sum()
    print(f"{name}: {correct} / {len(labels)} correct ({correct / len(labels):.2%})")


«main»
    network.save("«trained».keras")
'''


def write_training(training: Training, name: str) -> bytes:
    """Return the content of the script `name` that trains the network."""
    network, optimizer = training.network, training.optimizer
    notes = [BACKEND]
    if hasattr(optimizer, "momentum") and training.has_schedule:
        notes.append("The velocity of Keras includes the learning rate, so that the results differ slightly.")
    if _has_batch_norm(network):
        notes.append("The running variance has the divisor n in Keras, and n - 1 in handgrad and PyTorch.")
    values = training.values("Keras", name, notes) | {
        "layers": "\n".join(f"{_new_layer_code(layer)},  #     {layer!r}," for layer in network.layers),
        "hog": hog_module([network], HOG_MODULE).removesuffix("\n"),
        "dense_functions": "\n\n\n".join(_dense_functions(network)) + "\n\n",
        "optimizer": optimizer_code(optimizer),
        "loss": loss_code(training.loss),
        "n_in_network": network.n_in,
        "exclude": "",
        "set_lr": "",
        "decay": "",
    }
    if training.has_schedule:
        values["set_lr"] = f"lr = {values['lr']}  #         lr = {values['lr']}\noptimizer.learning_rate = lr"
    if optimizer.weight_decay:
        values["exclude"] = (
            'optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])  # network.weights'
        )
        values["decay"] = "  #         for W, _ in network.weights: W *= 1 - lr * weight_decay"
    return align_comments(render(TRAINING, values)).encode()


def _new_layer_code(layer: Layer) -> str:
    """Code that creates a layer. A Dense layer is created by the function of its initializer."""
    return f"{layer.init}({layer.n_out})" if isinstance(layer, Dense) else _layer_code(layer)


def _dense_functions(network: Network) -> list[str]:
    """A function for each initializer. Each call creates a new initializer, because Keras's draw the same values."""
    functions = []
    for init in dict.fromkeys(layer.init for layer in network.layers if isinstance(layer, Dense)):
        arguments = "kernel_initializer=kernel" + ", bias_initializer=bias" * (init == "normal")
        functions.append(
            f"def {init}(n_out):  # initializers.{init}(W, b, rng)\n"
            f"    kernel = {KERAS_INITIALIZERS[init]}\n"
            + f"    bias = {KERAS_INITIALIZERS[init]}\n" * (init == "normal")
            + f"    return layers.Dense(n_out, {arguments})"
        )
    return functions
