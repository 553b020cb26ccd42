"""A custom layer with a gradient check: Swish, a = z σ(βz), with a trainable β.

    python examples/custom_layer.py

A layer needs `forward` and `backward`. `parameter_shapes` declares its parameters. The network then sets self.beta and
self.dbeta, which are views of its parameter vector and of its gradient vector.

Reference: Ramachandran, Zoph and Le (2017), Searching for activation functions.
"""

import numpy as np

from handgrad import Adam, Dense, HandgradError, Layer, Network, Trainer, check_gradient


class Swish(Layer):
    """a = z σ(βz), with one β for all units."""

    def __init__(self):
        self.parameter_shapes = {"beta": (1,)}

    def initialize(self, rngs):
        self.beta[...] = 1

    def forward(self, z):
        self.z = z
        self.s = 1 / (1 + np.exp(-self.beta * z))
        return z * self.s

    def backward(self, da):
        slope = self.z * self.s * (1 - self.s)  # z dσ/d(βz)
        self.dbeta[...] = np.sum(da * slope * self.z)  # da/dβ = z · z σ (1 - σ)
        return da * (self.s + self.beta * slope)  # da/dz = σ + β z σ (1 - σ)


class WrongSwish(Swish):
    """Swish with an error in its derivative: the factor β is missing."""

    def backward(self, da):
        super().backward(da)
        return da * (self.s + self.z * self.s * (1 - self.s))


rng = np.random.default_rng(0)
for check in check_gradient(Swish(), rng.standard_normal((5, 7))):
    print(f"{check.name}: relative error {check.error:.0e}")
try:
    check_gradient(WrongSwish(), rng.standard_normal((5, 7)))
except HandgradError as error:
    print(error)

x = rng.standard_normal((1000, 2)).astype(np.float32)
y = (np.hypot(*x.T) > 1.2).astype(int)  # inside or outside of a circle
swish = Swish()
network = Network([Dense(2, 16), swish, Dense(16, 2)], loss="cross_entropy", rng=0)
Trainer(network, Adam(lr=0.02), batch_size=50, rng=0).fit(x, y, epochs=30)
print(f"accuracy {network.evaluate(x, y).accuracy:.0%}, β = {swish.beta[0]:.2f}")
