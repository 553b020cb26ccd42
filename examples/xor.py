"""Learn exclusive or, the smallest function that a single layer cannot represent.

python examples/xor.py
"""

import numpy as np

from handgrad import SGD, Network, Trainer

x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
y = np.array([0, 1, 1, 0])

network = Network([2, 8, 2], activation="tanh", loss="cross_entropy", rng=0)
Trainer(network, SGD(lr=0.5), batch_size=4, rng=0).fit(x, y, epochs=500)

for inputs, label, probabilities in zip(x, network.predict(x), network.predict_proba(x), strict=True):
    print(f"{inputs[0]:.0f} xor {inputs[1]:.0f} = {label}, probability {probabilities[label]:.1%}")
