"""scikit-learn's own tests of its multi-layer perceptrons, with the estimators of handgrad.

The module is that of the installed scikit-learn. Its tests run unchanged, except that the import is replaced.
"""

import importlib.util
import re
from pathlib import Path

import pytest

from handgrad.sklearn import MLPClassifier, MLPRegressor

# Tests that do not apply to another implementation, each with the reason.
EXCLUDED = {
    "test_fit": "sets private attributes (_coef_velocity, ...) of an estimator that was not fitted",
    "test_gradient": "calls the private method _loss_grad_lbfgs; tests/test_gradcheck.py checks the gradients",
    "test_learning_rate_warmstart": "reads the private attribute _optimizer.learning_rate",
    "test_adaptive_learning_rate": "reads the private attribute _optimizer.learning_rate",
}

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("default")]


@pytest.fixture
def global_random_seed():
    """The seed that scikit-learn's own conftest.py uses by default."""
    return 42


def load_tests():
    """The tests of the installed scikit-learn by name. A wheel without tests has none."""
    spec = importlib.util.find_spec("sklearn.neural_network")
    path = Path(spec.origin).parent / "tests" / "test_mlp.py"
    if not path.exists():
        return {}
    replaced = "from sklearn.neural_network import MLPClassifier, MLPRegressor"
    source, count = re.subn(f"^{re.escape(replaced)}$", "", path.read_text(), flags=re.MULTILINE)
    assert count == 1, f"{path} does not contain the line {replaced!r}"
    names = {"__name__": "test_mlp", "MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}
    exec(compile(source, path, "exec"), names)
    return {name: value for name, value in names.items() if name.startswith("test_")}


TESTS = load_tests()
globals().update({name: test for name, test in TESTS.items() if name not in EXCLUDED})


def test_excluded_tests_exist():
    if not TESTS:
        pytest.skip("the installed scikit-learn has no tests")
    assert set(EXCLUDED) <= set(TESTS)
    assert len(TESTS) > 40
