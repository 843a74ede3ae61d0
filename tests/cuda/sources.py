"""The CUDA sources that the backend generates for a selection of programs, with a name for each.

The selection has every kernel header, every op, every tile and layout of a product, every plan of a
reduction, convolutions of every tile, and whole training steps. A device that only collects stands
in for the GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any
from unittest.mock import patch

import numpy as np
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from conv_rows import OPS, geometry
from numpy.typing import NDArray
from products import FORWARD, Weights, operands
from specs import ROWS, Case, cases

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.cuda import PRECISIONS, CupyBackend, execution, tuning_record
from gpubp.backends.cuda.codegen import staged
from gpubp.backends.cuda.drivers.base import Dim
from gpubp.backends.cuda.kept import keep
from gpubp.backends.cuda.products import Addresses, Plan, Problem, Products
from gpubp.core import bind
from gpubp.ops.spec import SPECS

OPTIONS = gp.Options(verify=False)
STAYING = "staying"  # what names of kernels of whole steps begin with
LOW = tuple(p for p in PRECISIONS if p != "float32")  # on tensor cores, from sm_80 on


class _Piece:
    def __init__(self, address: int, nbytes: int) -> None:
        self.address, self.nbytes = address, nbytes


class CollectingDriver:
    """A `Driver` that keeps sources and does nothing else.

    Attributes:
        sources: in the order in which they were compiled.
    """

    name, architecture = "nothing", "sm_80"

    def __init__(self, processors: int = 132, products: Products | None = None) -> None:
        self.processors, self.products = processors, products
        self.sources: list[str] = []
        self._next = 1 << 20

    def allocate(self, nbytes: int) -> _Piece:
        self._next += -(-max(nbytes, 1) // 256) * 256
        return _Piece(self._next, nbytes)

    def free_bytes(self) -> int:
        return 1 << 40

    def upload(self, target: int, array: NDArray[Any]) -> None:
        pass

    def download(self, source: int, array: NDArray[Any]) -> None:
        array[...] = 0

    def compile(self, source: str) -> CollectingDriver:
        self.sources.append(source)
        return self

    def get(self, name: str) -> str:
        return name

    def launch(self, kernel: str, grid: Dim, block: Dim, shared: int, params: bytes) -> None:
        pass

    def allow_shared(self, kernel: str, nbytes: int) -> None:
        pass

    def blocks_together(self, kernel: str, threads: int, shared: int) -> int:
        return self.processors

    def launch_together(
        self, kernel: str, grid: Dim, block: Dim, shared: int, params: bytes
    ) -> None:
        pass

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        return lambda: None

    def mark(self) -> CollectingDriver:
        return self

    def wait(self) -> None:
        pass

    def synchronize(self) -> None:
        pass


class WinningProducts:
    """A library that can do everything, and is faster than what was measured before."""

    version, workspace = "nothing", 256

    def __init__(self) -> None:
        self._seconds = 1.0

    def plans(self, problem: Problem, most: int) -> list[Plan]:
        return [Plan(b"plan", 0)]

    def restored(self, problem: Problem, algorithm: bytes) -> Plan | None:
        return None

    def bound(
        self, problem: Problem, plan: Plan, at: Addresses, workspace: int
    ) -> Callable[[], None]:
        return lambda: None

    def seconds(self, work: Callable[[], None]) -> float:
        self._seconds /= 2
        return self._seconds


Work = Callable[[CupyBackend], Any]


def _op(case: Case) -> Work:
    op = partial(bind, case.row.spec, **case.attrs)
    return lambda backend: gp.compile(op, backend=backend, options=OPTIONS)(*case.args())


def _ops() -> dict[str, Work]:
    """Each op on its largest shapes with every attribute; more shapes where operands differ."""
    found = {}
    for name, row in ROWS.items():
        shapes = max(row.shapes, key=lambda s: sum(int(np.prod(one)) for one in s))
        for dtype in row.dtypes if name in ("add", "where", "sum", "max") else row.dtypes[-2:]:
            for i, attrs in enumerate(row.attrs(shapes)[:3]):
                found[f"op {name} {dtype} {i}"] = _op(Case(row, shapes, dtype, attrs))
    for i, case in enumerate(cases(ROWS["add"])):
        if case.dtype == "float32":
            found[f"broadcast {i}"] = _op(case)
    return found


def _reduction(name: str, shape: tuple[int, ...], axis: int | None) -> Work:
    def work(backend: CupyBackend) -> None:
        gp.compile(lambda x: getattr(ops, name)(x, axis) * 2, backend=backend, options=OPTIONS)(
            np.zeros(shape, np.float32)
        )

    return work


def _product(layout: str, dtype: str, precision: str, size: int, before: float = math.inf) -> Work:
    """`before`: what must be saved so that factors are rounded before; infinite: they never are."""

    def product(a: Any, b: Any) -> Any:
        return (a.T if layout[0] == "t" else a) @ (b.T if layout[1] == "t" else b)

    def work(backend: CupyBackend) -> None:
        backend.precision = precision
        a = np.zeros((size, size), dtype)
        with patch.object(staged, "LEAST_SAVED", before):
            gp.compile(product, backend=backend, options=OPTIONS)(a, a)

    return work


def _epilogue(name: str, size: int) -> Work:
    args = operands(size, size, size)
    return lambda backend: gp.compile(FORWARD[name], backend=backend, options=OPTIONS)(*args)


def _training(optimizer: str, activation: Any = nn.ReLU, precision: str = "float32") -> Work:
    def work(backend: CupyBackend) -> None:
        backend.precision = precision
        step = classifier_step(OPTIMIZERS[optimizer], mlp(activation), backend=backend)
        x, y = digits(samples=320)
        step.run(x, y, batch_size=32)

    return work


def _staged_training() -> Work:
    """What follows products of the largest tile: activations, their gradients, an update."""

    def work(backend: CupyBackend) -> None:
        backend.precision = "bf16"
        model = nn.Sequential(nn.Linear(2048, 2048), nn.GELU(), nn.Linear(2048, 2048), nn.Tanh())
        optimizer = optim.Adam(model.parameters(), weight_decay=0.1)
        step = gp.compile_step(
            lambda x: ops.mean(model(x) ** 2), optimizer, backend=backend, options=OPTIONS
        )
        step(np.zeros((2048, 2048), np.float32))

    return work


def _attention(dtype: str, mask: str) -> Work:
    """The result and all gradients of heads in groups, which share their passes."""
    q, k = np.zeros((1, 4, 9, 8), dtype), np.zeros((1, 2, 9, 8), dtype)
    seen = np.zeros((9, 9), "bool" if mask == "booleans" else dtype) if mask else None

    def both(*x: Any) -> Any:
        attend = partial(ops.scaled_dot_product_attention, attn_mask=seen, enable_gqa=True)
        return attend(*x), gp.grad(lambda *x: ops.sum(attend(*x)), argnums=(0, 1, 2))(*x)

    return lambda backend: gp.compile(both, backend=backend, options=OPTIONS)(q, k, k)


def _loop(kind: str, dtype: str = "float32") -> Work:
    """A recurrent layer with lengths, forwards and backwards."""

    def work(backend: CupyBackend) -> None:
        layer = getattr(nn, kind)(4, 8, dtype=dtype)
        fn = gp.value_and_grad(lambda x, n: ops.sum(layer(x, None, n)[0]))
        x, lengths = np.zeros((5, 3, 4), dtype), np.array([5, 1, 2])
        gp.compile(fn, backend=backend, options=OPTIONS)(x, lengths)

    return work


def _launched(backend: CupyBackend) -> None:
    """A loop whose body is launched round by round."""
    gp.compile(
        lambda x: gp.while_loop(lambda c: ops.sum(c) > 1.0, lambda c: c * 0.5, x),
        backend=backend,
        options=OPTIONS,
    )(np.zeros(9, np.float32))


def _loops() -> dict[str, Work]:
    found = {f"loop {kind}": _loop(kind) for kind in ("RNN", "LSTM", "GRU")}
    return found | {"loop LSTM float64": _loop("LSTM", "float64"), "loop launched": _launched}


def _programs() -> dict[str, Work]:
    found = {f"training {name}": _training(name) for name in OPTIMIZERS}
    for activation in (nn.Tanh, nn.GELU):
        found[f"training {activation.__name__}"] = _training("adam", activation)
    for name in ("sum", "max", "argmin"):
        for shape, axis in (((9000,), None), ((300, 70), 0), ((300, 70), 1), ((4, 9), 0)):
            found[f"reduce {name} {shape} {axis}"] = _reduction(name, shape, axis)
    # On 132 processors these sizes take each of the tiles, and the first one pieces of k.
    for size in (300, 600, 1000, 2000):
        for layout in ("nn", "nt", "tn"):
            found[f"product {layout} {size}"] = _product(layout, "float32", "float32", size)
        found[f"product float64 {size}"] = _product("nn", "float64", "float32", size)
    for precision in LOW:
        for layout in ("nn", "nt", "tn"):
            for size in (300, 2000):
                work = _product(layout, "float32", precision, size)
                found[f"tensor {precision} {layout} {size}"] = work
                work = _product(layout, "float32", precision, size // 8 * 8, -math.inf)
                found[f"staged {precision} {layout} {size}"] = work
        found[f"tensor {precision} training"] = _training("adam", precision=precision)
    found["staged training"] = _staged_training()
    found |= {f"epilogue {name}": _epilogue(name, 300) for name in FORWARD}
    for mask in ("", "booleans", "floats"):
        for dtype in ("float32", "float64"):
            found[f"attention {mask or 'whole'} {dtype}"] = _attention(dtype, mask)
    return found


def _staying() -> dict[str, Work]:
    """Kernels of whole steps: of few rows a block and of many, of short sums and of long ones."""

    def work(
        backend: CupyBackend, name: str, hidden: tuple[int, ...], dtype: str, rows: int
    ) -> None:
        backend._executions.mode = "persistent"
        model = mlp(dtype=dtype, hidden=hidden)
        step = classifier_step(OPTIMIZERS[name], model, backend=backend, options=OPTIONS)
        step.run(*digits(dtype, 2 * rows, hidden[0]), batch_size=rows)

    def copying(backend: CupyBackend) -> None:
        """Blocks keep what others read, too."""
        with patch.object(execution, "keep", lambda *a: keep(*a[:3], copies=True)):
            work(backend, "adam", (64, 100), "float32", 200)

    sizes = {"short": ((4, 16), 32), "64-100-10": ((64, 100), 200), "many rows": ((64, 100), 9000)}
    return {
        f"{STAYING} {size} {name} {dtype}": partial(
            work, name=name, hidden=hidden, dtype=dtype, rows=rows
        )
        for size, (hidden, rows) in sizes.items()
        for name, dtype in (("adam", "float32"), ("sgd", "float64"))
    } | {f"{STAYING} copies adam float32": copying}


_SIDES = {1: 1089, 2: 33, 3: 11}  # so that eight images have a largest tile a processor


def _convolution(
    op: str, axes: int, channels: int, groups: int = 1, dtype: str = "float32", **options: Any
) -> Work:
    """Many channels of large images, or few of small ones; then an activation, where it may be."""
    images, side = (8, _SIDES[axes]) if channels > 64 else (2, 5)
    kernel = options.pop("kernel", 3)
    shape = geometry(
        *((images, *(side,) * axes, channels), (channels, channels // groups, *(kernel,) * axes)),
        *(1 + (op == "conv_input" and kernel > 1), kernel // 2),
        groups=groups,
    )
    shapes, attrs = shape.arguments(op)

    def work(backend: CupyBackend) -> None:
        backend.precision = options.get("precision", "float32")
        given = [np.zeros(shape, dtype) for shape in shapes]
        fn = partial(bind, SPECS[op], **attrs)
        with patch.object(staged, "LEAST_SAVED", options.get("before", math.inf)):
            gp.compile(lambda *a: ops.tanh(fn(*a)), backend=backend, options=OPTIONS)(*given)

    return work


def _convolutions() -> dict[str, Work]:
    """The largest and the smallest tile, every type, and channels one by one."""
    found = {}
    for op in OPS:
        for axes in (1, 2, 3):
            found[f"{op} {axes}"] = _convolution(op, axes, 256)
            found[f"{op} small {axes}"] = _convolution(op, axes, 16)
            found[f"{op} depthwise {axes}"] = _convolution(op, axes, 64, 64)
        found[f"{op} pointwise"] = _convolution(op, 2, 256, kernel=1)
        found[f"{op} float64"] = _convolution(op, 2, 256, dtype="float64")
        for precision in LOW:
            found[f"tensor {precision} {op}"] = _convolution(op, 3, 256, precision=precision)
            for axes in (2, 3):
                found[f"staged {precision} {op} {axes}"] = _convolution(
                    op, axes, 256, precision=precision, before=-math.inf
                )
    return found


def _updated(make: Callable[[Any], Any]) -> Work:
    """A step of weights that are large enough for the library."""

    def work(backend: CupyBackend) -> None:
        weights = Weights([(300, 300)], 300, "float32")
        weights.step(make, backend=backend, options=OPTIONS)[0](*weights.batch)

    return work


def _library() -> dict[str, Work]:
    """Around the library's products: copies of every form, and what follows a product."""
    found = {f"library {p}": _product("nn", "float32", p, 300) for p in PRECISIONS}
    found["library float64"] = _product("nn", "float64", "float32", 300)
    found |= {f"library {name}": _epilogue(name, 300) for name in FORWARD}
    makes = {"sgd": partial(optim.SGD, lr=0.1), "adam": optim.Adam}
    return found | {f"library {name}": _updated(make) for name, make in makes.items()}


@cache
def all_sources() -> dict[str, str]:
    """Name -> text; no text twice."""
    named: dict[str, str] = {}
    seen: set[str] = set()
    everything = _programs() | _staying() | _convolutions() | _ops() | _library() | _loops()
    # One thread compiles, so that sources come in one order.
    with np.errstate(all="ignore"), patch("os.cpu_count", return_value=1):
        for name, work in everything.items():
            by_library = name.startswith("library")
            driver = CollectingDriver(products=WinningProducts() if by_library else None)
            with patch.multiple(tuning_record, read=lambda key: None, write=lambda key, plan: None):
                work(CupyBackend(driver=driver, execution="graph"))
            new = [s for s in driver.sources if s not in seen]
            if name.startswith(STAYING):  # what else is compiled for it has names above
                new = [source for source in new if "run_steps" in source]
            seen.update(new)
            named |= {f"{name} {i}" if i else name: source for i, source in enumerate(new)}
    return named


def sources_for(architecture: str) -> dict[str, str]:
    """Those that an architecture can run: tensor cores of these types came with sm_80."""
    found = all_sources()
    if architecture != "sm_75":
        return found
    return {n: text for n, text in found.items() if not n.startswith(("tensor", "staged"))}
