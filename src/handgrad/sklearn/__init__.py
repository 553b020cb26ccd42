"""scikit-learn estimators: MLPClassifier and MLPRegressor, trained by handgrad.

    from handgrad.sklearn import MLPClassifier

    MLPClassifier((100, 100), random_state=0).fit(X, y).predict(X)

The estimators have every parameter, method and attribute of scikit-learn's estimators, with the same defaults and
meaning. The same random_state gives the same initial weights and batches, so that both end with the same weights up to
rounding. Everything that handgrad adds is a keyword whose default leaves the results unchanged.
"""

from ..errors import optional

optional("sklearn", "sklearn")

from .classifier import MLPClassifier  # noqa: E402 (the line above names the extra if scikit-learn is missing)
from .persistence import load, save  # noqa: E402
from .regressor import MLPRegressor  # noqa: E402

__all__ = ["MLPClassifier", "MLPRegressor", "load", "save"]
