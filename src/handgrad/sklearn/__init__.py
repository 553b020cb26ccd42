"""scikit-learn's MLPClassifier and MLPRegressor, trained by handgrad: the same interface, and what it will not add.

from handgrad.sklearn import MLPClassifier

MLPClassifier((100, 100), random_state=0).fit(X, y).predict(X)

Every parameter, method and attribute of scikit-learn's is there, with its default and its meaning. The same
random_state draws the same weights and batches: where scikit-learn's ends, this ends, to rounding. What is new has
a keyword of its own, and changes nothing where it is not given.
"""

from ..errors import optional

optional("sklearn", "sklearn")

from .classifier import MLPClassifier  # noqa: E402 (the line above says how to install what it needs)
from .persistence import load, save  # noqa: E402
from .regressor import MLPRegressor  # noqa: E402

__all__ = ["MLPClassifier", "MLPRegressor", "load", "save"]
