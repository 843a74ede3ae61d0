"""Accelerated programs whose work is done in fresh processes, and what those import first."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'gpubp[sklearn]'")

import gpubp.sklearn

ROOT = Path(__file__).resolve().parent.parent.parent
WAYS = ("module", "variable")


@pytest.fixture(scope="module")
def hook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose sitecustomize is the line that an installed gpubp runs at Python's start."""
    lines = ast.parse((ROOT / "setup.py").read_text()).body
    found = [n.value for n in lines if isinstance(n, ast.Assign) and n.targets[0].id == "LINE"]
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(ast.literal_eval(found[0]))
    return folder


def _run(
    hook: Path, arguments: list[str], way: str = "variable"
) -> subprocess.CompletedProcess[str]:
    """Python, as where gpubp is installed, accelerated in one of the ways, or "not"."""
    paths = [str(hook), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "GPUBP_VERIFY": "0"}
    environment.pop("GPUBP_ACCEL", None)
    if way == "variable":
        environment["GPUBP_ACCEL"] = "1"
    module = ["-m", "gpubp.accel"] if way == "module" else []
    return subprocess.run(
        [sys.executable, "-W", "ignore", *module, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )


GRID = """
from sklearn.datasets import load_iris
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
if __name__ == "__main__":
    X, y = load_iris(return_X_y=True)
    model = MLPClassifier((6,), max_iter=40, learning_rate_init=0.02, random_state=0)
    search = GridSearchCV(model, {"alpha": [1e-4, 1e-2]}, cv=3, n_jobs=2).fit(X, y)
    print(search.cv_results_["mean_test_score"].tolist())
    chain = make_pipeline(StandardScaler(), model)
    print(cross_val_score(chain, X, y, cv=3, n_jobs=2).tolist())
    bag = BaggingClassifier(model, n_estimators=3, n_jobs=2, random_state=0).fit(X, y)
    print(bag.score(X, y))
    kinds = {type(m).__module__ for m in [search.best_estimator_, *bag.estimators_]}
    import sys
    print(kinds, file=sys.stderr)
"""


@pytest.fixture(scope="module")
def plain(hook, tmp_path_factory):
    path = tmp_path_factory.mktemp("plain") / "grid.py"
    path.write_text(GRID)
    found = _run(hook, [str(path)], "not")
    assert found.returncode == 0, found.stderr
    return path, found.stdout


@pytest.mark.parametrize("way", WAYS)
def test_searches_pipelines_and_bags_in_two_processes(hook, plain, way):
    path, expected = plain
    found = _run(hook, [str(path)], way)
    assert found.returncode == 0, found.stderr
    assert found.stdout == expected
    assert found.stderr.splitlines()[-1] == "{'gpubp.sklearn'}"


WORKERS = """
import multiprocessing
import sys
from gpubp.sklearn import log

def work(model):
    from sklearn.datasets import load_iris
    model.fit(*load_iris(return_X_y=True))
    return type(model).__module__, [kind.where.split()[0] for kind in log.counts()]

if __name__ == "__main__":
    from sklearn.neural_network import MLPClassifier
    model = MLPClassifier((3,), max_iter=3, random_state=0)
    with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
        print(pool.map(work, [model]))
"""


@pytest.mark.parametrize("start", ["spawn", "forkserver", "fork"])
@pytest.mark.parametrize("way", WAYS)
def test_processes_of_multiprocessing_unpickle_first(hook, tmp_path, start, way):
    path = tmp_path / "workers.py"
    path.write_text(WORKERS)
    found = _run(hook, [str(path), start], way)
    assert found.returncode == 0, found.stderr
    assert found.stdout == "[('gpubp.sklearn', ['gpubp'])]\n"


@pytest.mark.parametrize(
    "first",
    [
        "from gpubp.sklearn import MLPClassifier",
        "import gpubp.sklearn.estimators",
        "from gpubp.sklearn import stochastic, rules, lbfgs",
        "import sklearn.neural_network._multilayer_perceptron",
        "from sklearn import neural_network; neural_network.MLPRegressor",
        "from sklearn.neural_network import BernoulliRBM",
        "from sklearn.neural_network import *",
        "import importlib, sklearn.neural_network as n; importlib.reload(importlib.reload(n))",
        "import pickle; pickle.loads(bytes.fromhex(PICKLE))",
        "import io, joblib; joblib.load(io.BytesIO(bytes.fromhex(PICKLE)))",
        "from sklearn.utils import all_estimators; names = dict(all_estimators()); "
        "assert names['MLPClassifier'].__module__ == 'gpubp.sklearn', names['MLPClassifier']",
    ],
)
def test_whatever_is_imported_first(hook, first):
    data = pickle.dumps(gpubp.sklearn.MLPClassifier(max_iter=7)).hex()
    code = f"""
PICKLE = {data!r}
{first}
import inspect, pickle
import sklearn.neural_network
from sklearn.neural_network import MLPClassifier, MLPRegressor
import gpubp.sklearn
assert MLPClassifier is gpubp.sklearn.MLPClassifier is sklearn.neural_network.MLPClassifier
assert MLPRegressor is gpubp.sklearn.MLPRegressor is sklearn.neural_network.MLPRegressor
assert {{"MLPClassifier", "MLPRegressor", "BernoulliRBM"}} <= set(dir(sklearn.neural_network))
assert "Models based on neural" in inspect.getsource(sklearn.neural_network)
assert pickle.loads(bytes.fromhex(PICKLE)).max_iter == 7
try:
    sklearn.neural_network.MLPClasifier
except AttributeError as error:
    assert str(error).startswith("module 'sklearn.neural_network' has no attribute"), error
gpubp.sklearn.unpatch_sklearn()
from sklearn.neural_network import MLPClassifier
assert MLPClassifier.__module__ == "sklearn.neural_network._multilayer_perceptron"
"""
    found = _run(hook, ["-c", code])
    assert found.returncode == 0, found.stderr


def test_switched_off_before_a_name_was_asked_for(hook):
    code = """
import sklearn.neural_network
import gpubp.sklearn
gpubp.sklearn.unpatch_sklearn()
assert "gpubp.sklearn.estimators" not in __import__("sys").modules
from sklearn.neural_network import MLPClassifier
assert MLPClassifier.__module__ == "sklearn.neural_network._multilayer_perceptron"
gpubp.sklearn.patch_sklearn()
from sklearn.neural_network import MLPClassifier
assert MLPClassifier.__module__ == "gpubp.sklearn"
"""
    found = _run(hook, ["-c", code])
    assert found.returncode == 0, found.stderr


def test_threads_that_import_at_once(hook):
    code = """
import importlib, sys, threading
sys.setswitchinterval(1e-6)
wrong = []
def ask(module):
    try:
        found = importlib.import_module(module).MLPClassifier.__module__
        wrong.extend([] if found == "gpubp.sklearn" else [found])
    except BaseException as error:
        wrong.append(repr(error))
names = ["sklearn.neural_network", "gpubp.sklearn", "gpubp.sklearn.estimators"] * 4
threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in names]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(120)
assert not wrong, wrong
assert not any(thread.is_alive() for thread in threads)
"""
    for _ in range(2):
        found = _run(hook, ["-c", code])
        assert found.returncode == 0, found.stderr


def test_pickles_go_to_plain_processes_and_back(hook, tmp_path):
    make = """
import sys, joblib
from sklearn.datasets import load_iris
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
X, y = load_iris(return_X_y=True)
model = make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=20, random_state=0)).fit(X, y)
joblib.dump(model, sys.argv[1])
print(type(model[-1]).__module__, model.score(X, y))
"""
    use = """
import sys, joblib
model = joblib.load(sys.argv[1])
from sklearn.base import clone
from sklearn.datasets import load_iris
X, y = load_iris(return_X_y=True)
print(type(model[-1]).__module__, model.score(X, y))
assert type(clone(model)[-1]) is type(model[-1])
clone(model).fit(X, y)
model[-1].partial_fit(model[:-1].transform(X), y)
joblib.dump(model, sys.argv[1])
"""
    for way, module in (
        ("variable", "gpubp.sklearn"),
        ("not", "sklearn.neural_network._multilayer_perceptron"),
    ):
        path = str(tmp_path / way)
        made = _run(hook, ["-c", make, path], way)
        assert made.returncode == 0, made.stderr
        assert made.stdout.split()[0] == module
        for other in ("not", "variable", "not"):
            found = _run(hook, ["-c", use, path], other)
            assert found.returncode == 0, found.stderr
            assert found.stdout.split()[0] == module
            assert float(found.stdout.split()[1]) >= float(made.stdout.split()[1])


def test_a_machine_without_scikit_learn_is_told_so_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\n\nsys.modules['sklearn'] = None\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    found = subprocess.run(
        [sys.executable, "-m", "gpubp.accel", "script.py"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 5
    assert 'pip install "gpubp[sklearn]"' in found.stderr and "Traceback" not in found.stderr
