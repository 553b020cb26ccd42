"""Export to Keras scripts for any backend: one that loads the weights of a model file, one that trains the network."""

from __future__ import annotations

from ..interop.keras import KERAS_INITIALIZERS, layer_code, loss_code, optimizer_code
from ..layers import BatchNorm, Dense, Layer
from ..network import Network
from .graph import InferenceGraph
from .numpy_file import classification, print_code
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

network = keras.Sequential([
    keras.Input((«n_in»,)),
    «layers»
])
weights = load_file(Path(__file__).with_name(«weights»))
for i, layer in enumerate(network.layers):
    if isinstance(layer, layers.Dense):
        layer.set_weights([weights[f"{i}.weight"].T, weights[f"{i}.bias"]])  # the file has W (n_out, n_in)
    «batch_norm»


«predict»
def «function»(x):
    """Return the «predictions» (count, «n_out») for floats x (count, «n_in»)."""
    return keras.ops.convert_to_numpy(«prediction»)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    x = np.load(sys.argv[1]).reshape(-1, «n_in»)
    x = «floats»
    «print»
'''

PREDICT = '''
def predict(x):
    """Return the label of each example (count,) for floats x (count, «n_in»)."""
    return «label»
'''

BATCH_NORM = """
if isinstance(layer, layers.BatchNormalization):
    names = ("weight", "bias", "running_mean", "running_var")
    layer.set_weights([weights[f"{i}.{name}"] for name in names])"""

OUTPUT_ACTIVATIONS = {"identity": "network(x)"}
OUTPUT_ACTIVATIONS |= {name: f"keras.ops.{name}(network(x))" for name in ("softmax", "sigmoid", "exp")}
BACKEND = "The environment variable KERAS_BACKEND selects the backend: torch, jax or tensorflow."


def write(graph: InferenceGraph, name: str) -> bytes:
    """Return the content of the script `name` that loads its weights."""
    title, *head = graph.head("Keras")
    z = "keras.ops.convert_to_numpy(network(x))"
    values = graph.values | {
        "title": title,
        "name": name,
        "head": paragraphs([*head, BACKEND]),
        "layers": "\n".join(f"{layer_code(layer)}," for layer in graph.network.layers),
        "batch_norm": BATCH_NORM.strip("\n") if _has_batch_norm(graph.network) else "",
        "weights": python_string(graph.weights),
        "function": "predict_proba" if graph.is_classification else "predict",
        "predictions": "probabilities" if graph.is_classification else "predictions",
        "prediction": OUTPUT_ACTIVATIONS[graph.output_activation],
        "label": f"({z}[:, 0] > 0).astype(int)" if graph.is_binary else f"{z}.argmax(axis=1)",
        "floats": ("x" if graph.image_shape is None else '(x / 255 if x.dtype.kind in "iu" else x)')
        + '.astype("float32")',
        "print": print_code(graph),
    }
    values |= classification(graph, render(PREDICT, values) + "\n")
    return render(TEMPLATE, values).encode()


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
        "layers": "\n".join(f"{_layer_code(layer)},  #     {layer!r}," for layer in network.layers),
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


def _layer_code(layer: Layer) -> str:
    """Code that creates a layer. A Dense layer is created by the function of its initializer."""
    return f"{layer.init}({layer.n_out})" if isinstance(layer, Dense) else layer_code(layer)


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
