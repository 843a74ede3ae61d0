"""The ways to switch the replacement on, and what it must not touch."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'gpubp[sklearn]'")

import sklearn.neural_network
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import cross_validate
from sklearn.neural_network import _multilayer_perceptron as stock

import gpubp.sklearn
from gpubp import accel
from gpubp.sklearn import log

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def _off_afterwards():
    yield
    accel.disable()
    gpubp.sklearn.reset_report()


def _python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments, *(["-c", code] if code else [])],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "GPUBP_VERIFY": "0", **environment},
    )


def test_patch_and_unpatch():
    assert not gpubp.sklearn.enabled()
    for _ in range(2):
        gpubp.sklearn.patch_sklearn()
    assert gpubp.sklearn.enabled()
    assert sklearn.neural_network.MLPClassifier is gpubp.sklearn.MLPClassifier
    assert sklearn.neural_network.MLPRegressor is gpubp.sklearn.MLPRegressor
    for _ in range(2):
        gpubp.sklearn.unpatch_sklearn()
    assert not gpubp.sklearn.enabled()
    assert sklearn.neural_network.MLPClassifier is stock.MLPClassifier
    assert sklearn.neural_network.MLPRegressor is stock.MLPRegressor


def test_switching_on_imports_nothing_of_scikit_learn():
    code = """
import sys
import gpubp.accel
gpubp.accel.enable()
assert not [m for m in sys.modules if m == "sklearn" or m.startswith("sklearn.")]
import sklearn.linear_model
assert "gpubp.sklearn.estimators" not in sys.modules
from sklearn.neural_network import MLPClassifier, MLPRegressor, BernoulliRBM
assert MLPClassifier.__module__ == MLPRegressor.__module__ == "gpubp.sklearn"
assert BernoulliRBM.__module__.startswith("sklearn.")
import inspect, sklearn.neural_network
assert "Models based on neural networks" in inspect.getsource(sklearn.neural_network)
gpubp.accel.disable()
from sklearn.neural_network import MLPClassifier
assert MLPClassifier.__module__.startswith("sklearn.")
"""
    run = _python(code)
    assert run.returncode == 0, run.stderr


def test_nothing_else_changes():
    code = """
import sys, types
import sklearn.ensemble, sklearn.linear_model, sklearn.model_selection, sklearn.neural_network
def names():
    return {
        (name, key): id(value)
        for name, module in sys.modules.items()
        if name.startswith("sklearn") and isinstance(module, types.ModuleType)
        for key, value in vars(module).items() if not key.startswith("__")
    }
import gpubp.sklearn.estimators
before = names()
gpubp.sklearn.patch_sklearn()
after = names()
changed = {key for key in before if before[key] != after.get(key)}
package = "sklearn.neural_network"
assert changed == {(package, "MLPClassifier"), (package, "MLPRegressor")}, changed
assert set(after) == set(before)
"""
    run = _python(code)
    assert run.returncode == 0, run.stderr


def test_pickles_restore_as_gpubps_class_in_a_process_that_knows_nothing():
    X, y = load_iris(return_X_y=True)
    gpubp.sklearn.patch_sklearn()
    model = sklearn.neural_network.MLPClassifier((5,), max_iter=300, tol=0.01, random_state=0)
    model.fit(X, y)
    data = pickle.dumps(model).hex()
    code = f"""
import pickle
model = pickle.loads(bytes.fromhex({data!r}))
assert type(model).__module__ == "gpubp.sklearn", type(model)
from sklearn.datasets import load_iris
X, y = load_iris(return_X_y=True)
print(model.score(X, y))
model.partial_fit(X, y)
"""
    run = _python(code)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) == model.score(X, y)
    again = pickle.loads(pickle.dumps(model))
    again.partial_fit(X, y)
    model.partial_fit(X, y)
    for a, b in zip(again.coefs_, model.coefs_):
        np.testing.assert_array_equal(a, b)


def test_pickles_of_scikit_learns_class_stay_its_own_while_patched():
    before = stock.MLPClassifier(max_iter=7)
    gpubp.sklearn.patch_sklearn()
    assert type(pickle.loads(pickle.dumps(before))) is stock.MLPClassifier


def where_it_ran(estimator, X, y):
    """A scorer that tells whether this process fitted on gpubp."""
    return float(any(k.where.startswith("gpubp") for k in log.counts()))


def test_worker_processes_run_gpubp():
    X, y = load_iris(return_X_y=True)
    gpubp.sklearn.patch_sklearn()
    model = sklearn.neural_network.MLPClassifier((5,), max_iter=300, tol=0.1, random_state=0)
    found = cross_validate(model, X, y, cv=3, n_jobs=2, scoring=where_it_ran)
    np.testing.assert_array_equal(found["test_score"], 1.0)
    own = cross_validate(model, X, y, cv=3, n_jobs=2)
    theirs = cross_validate(clone(model).to_sklearn(), X, y, cv=3)
    np.testing.assert_array_equal(own["test_score"], theirs["test_score"])


SCRIPT = """
import sys
from sklearn.datasets import load_iris
from sklearn.neural_network import MLPClassifier
X, y = load_iris(return_X_y=True)
model = MLPClassifier((6,), max_iter=400, tol=0.01, random_state=1).fit(X, y)
print(sys.argv[1:], __name__, model.score(X, y), model.n_iter_)
print(type(model).__module__.split(".")[0], file=sys.stderr)
"""


def test_command_line_runs_a_script_with_the_same_results(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(SCRIPT)
    plain = _python("", str(script), "a", "--report")
    ours = _python("", "-m", "gpubp.accel", "--report", str(script), "a", "--report")
    assert plain.returncode == ours.returncode == 0, ours.stderr
    assert ours.stdout == plain.stdout and "['a', '--report'] __main__" in plain.stdout
    assert plain.stderr.startswith("sklearn") and ours.stderr.startswith("gpubp")
    assert "MLPClassifier.fit: 1 x on gpubp (" in ours.stderr


def test_command_line_runs_a_module(tmp_path):
    (tmp_path / "program.py").write_text(SCRIPT)
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    ours = _python("", "-m", "gpubp.accel", "-m", "program", "b", PYTHONPATH=path)
    assert ours.returncode == 0, ours.stderr
    assert "['b'] __main__" in ours.stdout and ours.stderr.startswith("gpubp")


def test_command_line_without_a_target():
    run = _python("", "-m", "gpubp.accel")
    assert run.returncode == 2 and "name a script to run" in run.stderr


def test_a_script_beside_other_modules_finds_them(tmp_path):
    (tmp_path / "helper_of_script.py").write_text("VALUE = 3\n")
    (tmp_path / "program.py").write_text("import helper_of_script as h\nprint(h.VALUE)\n")
    run = _python("", "-m", "gpubp.accel", str(tmp_path / "program.py"))
    assert run.returncode == 0 and run.stdout == "3\n", run.stderr


def test_ipython_extension():
    accel.load_ipython_extension(None)
    assert gpubp.sklearn.enabled() and os.environ[accel.VARIABLE] == "1"
    accel.unload_ipython_extension(None)
    assert not gpubp.sklearn.enabled() and accel.VARIABLE not in os.environ


def test_environment_variable(monkeypatch):
    monkeypatch.setenv(accel.VARIABLE, "0")
    accel.from_environment()
    assert not accel.enabled()
    monkeypatch.setenv(accel.VARIABLE, "1")
    accel.from_environment()
    assert accel.enabled()


def test_without_scikit_learn_the_import_says_which_line_installs_it():
    code = """
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "sklearn" else real(name, *rest)
try:
    import gpubp.sklearn
except ImportError as error:
    print(error)
"""
    run = _python(code)
    assert 'pip install "gpubp[sklearn]"' in run.stdout, run.stderr


def test_report_says_what_ran_where_and_why():
    X, y = load_iris(return_X_y=True)
    assert "nothing has been fitted" in gpubp.sklearn.report()
    model = gpubp.sklearn.MLPClassifier((3,), max_iter=3, n_iter_no_change=9, random_state=0)
    with pytest.warns(sklearn.exceptions.ConvergenceWarning):
        model.fit(X, y)
    model.partial_fit(X.astype(np.float32), y)  # weights are float64: scikit-learn's business
    text = gpubp.sklearn.report()
    assert "MLPClassifier.fit: 1 x on gpubp (" in text
    assert "MLPClassifier.partial_fit: 1 x on scikit-learn" in text
    assert "the weights are float64, the data float32" in text
