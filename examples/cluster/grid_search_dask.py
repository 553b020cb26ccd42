"""A grid search of scikit-learn with handgrad's estimator, on the workers of a Dask cluster.

Install: pip install "handgrad[dask,sklearn]"
Two processes on this machine: python grid_search_dask.py
The workers of a scheduler: python grid_search_dask.py tcp://10.0.0.1:8786
"""

import sys
import warnings

from dask.distributed import Client, LocalCluster
from joblib import parallel_config
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from handgrad.sklearn import MLPClassifier


def main() -> None:
    """Search, and print the best parameters."""
    warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is fixed
    cluster = sys.argv[1] if sys.argv[1:] else LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    x, y = load_digits(return_X_y=True)
    grid = {"learning_rate_init": [0.003, 0.01], "alpha": [1e-4, 1e-2]}
    search = GridSearchCV(MLPClassifier((32,), max_iter=10, random_state=0), grid, cv=3)
    # `scatter` sends x and y to the workers once. Without it, they would be sent with every training.
    with Client(cluster), parallel_config("dask", scatter=[x, y]):
        search.fit(x / 16, y)
    print(f"best parameters: {search.best_params_}, accuracy {search.best_score_:.1%}")


if __name__ == "__main__":
    main()
