"""A PyTorch script: the same chain, the weights from the model file as they stand there; or the same training."""

from __future__ import annotations

from ..layers import Dense, Layer
from ..network import Network
from .graph import InferenceGraph
from .numpy_file import told
from .templates import called, render, paragraphs, quoted
from .training import Training, beside

# An estimator's file has its training beside the network: the script takes of it what the network has.
TEMPLATE = '''
"""«title»

    python «name» «file»     answers to what is in the file: one example, or several

«head»
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

«?is_classification»«classes»
«?is_classification»
network = nn.Sequential(
    «layers»
)
weights = load_file(Path(__file__).with_name(«weights»))
network.load_state_dict({name: weights[name] for name in network.state_dict()})
network.eval()


«?is_classification»@torch.no_grad()
«?is_classification»def predict(x):
«?is_classification»    """x (count, «n_in») -> the label of each: (count,) integers."""
«?is_classification»    return «label»
«?is_classification»
«?is_classification»
@torch.no_grad()
def «reader»(x):
    """x (count, «n_in») -> (count, «n_out»)."""
    return «read»


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    x = np.load(sys.argv[1]).reshape(-1, «n_in»)
    x = torch.tensor(x / 255 if x.dtype == np.uint8 else x, dtype=torch.float32)
    «told»
'''

MODULES = {
    "Dense": "nn.Linear({n_in}, {n_out})",
    "BatchNorm": "nn.BatchNorm1d({n}, eps={epsilon!r}, momentum={momentum!r})",
    "Dropout": "nn.Dropout({rate!r})",
    "Identity": "nn.Identity()",
    "Sigmoid": "nn.Sigmoid()",
    "Tanh": "nn.Tanh()",
    "Relu": "nn.ReLU()",
    "LeakyRelu": "nn.LeakyReLU({slope!r})",
    "Softplus": "nn.Softplus()",
    "Gelu": 'nn.GELU(approximate="tanh")',
}
READ = {"softmax": "{}.softmax(dim=1)", "sigmoid": "{}.sigmoid()", "identity": "{}", "exp": "{}.exp()"}


def write(plain: InferenceGraph, name: str) -> bytes:
    """The script's text; `name` is the file's own."""
    title, *head = plain.head(", in PyTorch")
    values = {
        "title": title,
        "name": name,
        "head": paragraphs(head),
        "classes": called("CLASSES", map(quoted, plain.network.classes), "(", ")"),
        "layers": [f"{module(layer)}," for layer in plain.network.layers],
        "weights": quoted(plain.weights),
        "label": label(plain),
        "read": READ[plain.reading].format("network(x)"),
        "told": told(plain),
    }
    return render(TEMPLATE, plain.values | values).encode()


def label(plain: InferenceGraph) -> str:
    """The labels of what the network makes of x."""
    if plain.threshold is None:
        return "network(x).argmax(dim=1)"
    return f"(network(x)[:, 0] > {plain.threshold:g}).long()"


def module(layer: Layer) -> str:
    """The module that is this layer."""
    return MODULES[type(layer).__name__].format(**layer.config())


# ---- The training ----------------------------------------------------------------------------------------------------

TRAINING = '''
«head»

«?moves»import math
import sys

import torch
from safetensors.torch import save_file
from torch import nn
«?functional»from torch.nn import functional

«?deskew»from handgrad import Deskew
from handgrad.data import load

torch.manual_seed(«seed»)

network = nn.Sequential(  #: network = Network([
    «layers»
)  #: ], loss=«loss_told»)
«born»

optimizer = torch.optim.«optimizer»  #: optimizer = «optimizer_told»
«?decay»weights = [W for W in network.parameters() if W.ndim > 1]  #: network.weights


def loss_of(z, t):  #: «loss_name».value(z, t)
    return «loss»
«schedule»


def train(x, t, epochs=«epochs», batch_size=«batch_size»):  #: trainer.fit(x, y, epochs=«epochs»)
    """x (count, «n_in») pixels in [0, 1], t (count, «n_out») targets, one row an example."""
    network.train()
    batches = -(-len(x) // batch_size)  #: batches = -(-len(x) // batch_size)
    for epoch in range(epochs):  #: while epoch < epochs:
        loss_sum = 0.0  #:     loss_sum = 0.0
        order = torch.randperm(len(x))  #:     order = shuffling.permutation(len(x))
        for batch in range(batches):  #:     for batch in range(batches):
            rows = order[batch * batch_size :][:batch_size]  #:         rows = order[first : first + batch_size]
«?lr_needed»            lr = «lr»  #:         lr = «lr»
«?moves»            for group in optimizer.param_groups:
«?moves»                group["lr"] = lr
            z = network(x[rows])  #:         z = network.forward(x[rows])
            loss = loss_of(z, t[rows])  #:         dz = loss.backward(z, t[rows], 1 / len(rows))
            optimizer.zero_grad()  #:         (backward writes dW and db, it adds to nothing)
            loss.backward()  #:         network.backward(dz)
«?decay»            for W in weights:  #:         for W, _ in network.weights:
«?decay»                W.data *= 1 - lr * «decay»  #:             W *= 1 - lr * weight_decay
            optimizer.step()  #:         optimizer.step(network, lr)
            loss_sum += loss.item() * len(rows)  #:         loss_sum += loss.value(z, t[rows]) * len(rows)
        print(f"epoch {epoch + 1}/{epochs}  loss {loss_sum / len(x):.4f}")
    network.eval()


def pixels(pictures):
    """(count, height, width) bytes -> (count, «n_in») floats in [0, 1]."""
«?deskew»    pictures = «deskew»(pictures)  #: x = network.preprocess(x)
    return torch.tensor(pictures).reshape(len(pictures), -1) / 255  #: as_floats(x)


def targets(labels):
    """(count,) labels -> (count, «n_out») rows."""
    t = torch.eye(«n_out»)[torch.tensor(labels).long()]  #: t = one_hot(y, n_out)
    return «smoothed»


def tell(name, pictures, labels):
    """How many of these it reads right."""
    z = network(pixels(pictures))  #: z = network.outputs(x)
    right = int((z.argmax(dim=1) == torch.tensor(labels)).sum())
    print(f"{name}: {right} / {len(labels)} ({right / len(labels):.2%}) right")


«program»
    save_file(network.state_dict(), "«trained».safetensors")
'''

OPTIMIZERS = {
    "sgd": "SGD(network.parameters(), lr={lr})",
    "momentum": "SGD(network.parameters(), lr={lr}, momentum={momentum})",
    "nesterov": "SGD(network.parameters(), lr={lr}, momentum={momentum}, nesterov=True)",
    "adam": "Adam(network.parameters(), lr={lr})",
}
LOSSES = {
    "softmax": "functional.cross_entropy(z, t)",
    "sigmoid": 'functional.binary_cross_entropy_with_logits(z, t, reduction="sum") / len(z)',
    "identity": "((z - t) ** 2).sum() / (2 * len(z))",
}
BORN = {  # a Dense layer's weight; its bias is 0 in all but the first
    "normal": "nn.init.normal_({})",
    "lecun": 'nn.init.kaiming_normal_({}, nonlinearity="linear")',
    "xavier_normal": "nn.init.xavier_normal_({})",
    "xavier_uniform": "nn.init.xavier_uniform_({})",
    "kaiming_normal": 'nn.init.kaiming_normal_({}, nonlinearity="relu")',
    "kaiming_uniform": 'nn.init.kaiming_uniform_({}, nonlinearity="relu")',
    "zeros": "nn.init.zeros_({})",
}


def write_training(training: Training, name: str) -> bytes:
    """The script's text; `name` is the file's own."""
    word, options = training.made
    values = {
        "layers": [f"{module(layer)},  #:     {layer!r}," for layer in training.network.layers],
        "born": born(training.network),
        "optimizer": OPTIMIZERS[word].format(**options),
        "loss": LOSSES[training.plain.reading],
        "lr_needed": training.moves or training.optimizer.weight_decay,
        "functional": "functional" in LOSSES[training.plain.reading],
    }
    return beside(render(TRAINING, training.values("PyTorch", name) | values)).encode()


def born(network: Network) -> list[str]:
    """The first weights and biases, drawn as handgrad draws them: in a loop where all are born alike."""
    inits = {i: layer.init for i, layer in enumerate(network.layers) if isinstance(layer, Dense)}
    if len(set(inits.values())) == 1:
        (init,) = set(inits.values())
        return [
            "for layer in network:",
            "    if isinstance(layer, nn.Linear):",
            f"        {BORN[init].format('layer.weight')}  #: initializers.{init}(W, b, rng)",
            f"        nn.init.{'normal' if init == 'normal' else 'zeros'}_(layer.bias)",
        ]
    lines = []
    for i, init in inits.items():
        lines += [
            f"{BORN[init].format(f'network[{i}].weight')}  #: initializers.{init}(W, b, rng)",
            f"nn.init.{'normal' if init == 'normal' else 'zeros'}_(network[{i}].bias)",
        ]
    return lines
