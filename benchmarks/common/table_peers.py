"""What scikit-learn predicts from a table, set up by hand by someone who knows its columns.

Texts are categories; dates are days, days of the year, of the week, and hours. Boosted trees know
gaps and categories; the network gets means with a mark, one input a name, standardised numbers, and
a standardised target. All else is scikit-learn's default.
"""

from __future__ import annotations

from typing import Any

MOST_CATEGORIES = 255  # more the trees do not take


def _is_text(column: Any) -> bool:
    import pandas as pd

    return not pd.api.types.is_numeric_dtype(column) or column.dtype == bool


def _dates_in_parts(frame: Any) -> Any:
    frame = frame.copy()
    for name in frame.select_dtypes("datetime").columns:
        days = frame.pop(name)
        frame[f"{name} days"] = days.astype("int64") / 86400e9
        frame[f"{name} of year"] = days.dt.dayofyear
        frame[f"{name} of week"] = days.dt.dayofweek
        frame[f"{name} of day"] = days.dt.hour
    return frame


def of_boosting(X: Any, y: Any, X_test: Any, classes: bool, seed: int) -> Any:
    """What HistGradientBoosting predicts for `X_test`."""
    from sklearn import ensemble

    X, X_test = _dates_in_parts(X), _dates_in_parts(X_test)
    for name in X.columns:
        if _is_text(X[name]):
            known = X[name].astype(str).where(X[name].notna()).astype("category").cat.categories
            few = len(known) <= MOST_CATEGORIES
            for part in (X, X_test):
                texts = part[name].astype(str).where(part[name].notna())
                cells = texts.astype("category").cat.set_categories(known)
                part[name] = cells if few else cells.cat.codes
    kind = "Classifier" if classes else "Regressor"
    made = getattr(ensemble, f"HistGradientBoosting{kind}")(
        random_state=seed, categorical_features="from_dtype"
    )
    return made.fit(X, y).predict(X_test)


def of_network(X: Any, y: Any, X_test: Any, classes: bool, seed: int) -> Any:
    """What MLPClassifier or MLPRegressor predicts for `X_test`."""
    from sklearn import compose, impute, neural_network, pipeline, preprocessing

    X, X_test = _dates_in_parts(X), _dates_in_parts(X_test)
    texts = [name for name in X.columns if _is_text(X[name])]
    for part in (X, X_test):
        for name in texts:
            part[name] = part[name].astype(str).where(part[name].notna(), "missing").astype(object)
    scale = preprocessing.StandardScaler()
    numbers = pipeline.make_pipeline(impute.SimpleImputer(add_indicator=True), scale)
    names = preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    rest = [name for name in X.columns if name not in texts]
    inputs = compose.ColumnTransformer([("numbers", numbers, rest), ("names", names, texts)])
    if classes:
        network: Any = neural_network.MLPClassifier(random_state=seed)
    else:
        network = compose.TransformedTargetRegressor(
            neural_network.MLPRegressor(random_state=seed),
            transformer=preprocessing.StandardScaler(),
        )
    return pipeline.make_pipeline(inputs, network).fit(X, y).predict(X_test)


PEERS = {"boosting": of_boosting, "network": of_network}
