"""scikit-learn's checks of the estimator interface: each passes or is skipped there too."""

from __future__ import annotations

import warnings

import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'gpubp[sklearn]'")

from sklearn.utils.estimator_checks import check_estimator

from gpubp.sklearn import MLPClassifier, MLPRegressor

# How many checks scikit-learn 1.9 has for them.
CASES = [(MLPClassifier, 67), (MLPRegressor, 60)]
# Those that skip themselves, for the stock estimators too: without pandas, without SCIPY_ARRAY_API,
# and for a method that the classifier does not have.
SKIPS = {
    "check_sample_weights_pandas_series",
    "check_classifier_data_not_an_array",
    "check_regressor_data_not_an_array",
    "check_array_api_input",
    "check_classifiers_multilabel_output_format_decision_function",
}


@pytest.mark.parametrize(("estimator", "count"), CASES)
def test_every_check_passes(estimator, count):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator(), on_fail=None, on_skip=None)
    failed = [(r["check_name"], repr(r["exception"])) for r in results if r["status"] == "failed"]
    assert not failed
    assert len(results) >= count
    assert {r["check_name"] for r in results if r["status"] != "passed"} <= SKIPS
