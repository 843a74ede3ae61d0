"""A plain scikit-learn program: a pipeline with scaling, a grid search, early stopping.

It knows nothing of gpubp. Run it as it is, and then with gpubp's engine; the scores are the same:

    python docs/examples/sklearn_pipeline.py
    python -m gpubp.accel --report docs/examples/sklearn_pipeline.py
"""

import sys
import time
import warnings

from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

warnings.simplefilter("ignore", ConvergenceWarning)
X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)

model = make_pipeline(
    StandardScaler(),
    MLPClassifier(hidden_layer_sizes=(50,), early_stopping=True, max_iter=60, random_state=0),
)
grid = {
    "mlpclassifier__alpha": [1e-4, 1e-2],
    "mlpclassifier__learning_rate_init": [1e-3, 1e-2],
}
start = time.perf_counter()
search = GridSearchCV(model, grid, cv=3).fit(X_train, y_train)
seconds = time.perf_counter() - start

print("best parameters:", search.best_params_)
print("mean scores:", search.cv_results_["mean_test_score"].round(6).tolist())
accuracy = (search.predict(X_test) == y_test).mean()
print(f"held-out accuracy: {accuracy:.6f}")
assert accuracy > 0.95
print(f"({seconds:.2f} s)", file=sys.stderr)
