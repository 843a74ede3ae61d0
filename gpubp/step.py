"""`gp.compile_step`: forward, loss, backward and update of one training step as one program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp import ops
from gpubp.backends.base import Backend, Feed
from gpubp.compile import Options
from gpubp.core import Array, ArrayType, ConcreteArray, Graph, Node, describe, tracing
from gpubp.errors import DataError, GradientError, ShapeError
from gpubp.grad import gradients
from gpubp.program import Program
from gpubp.report import report
from gpubp.runner import Ready, Runner, as_input, check_indices
from gpubp.single import Singles, key_of
from gpubp.store import Slot, pack, siblings
from gpubp.trace import trace


class StepOptimizer(Protocol):
    """What a step needs of an optimiser; see `gpubp.optim.Optimizer`."""

    def parameters(self) -> Sequence[Slot]: ...

    def prepare(self) -> None: ...

    def emit(self, grads: dict[int, Array]) -> list[tuple[Slot, Array]]: ...


class Step:
    """A compiled training step; made by `gp.compile_step`.

    The parameters, the optimiser's state and the random-number counter live outside of it: several
    steps may update the same parameters.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        optimizer: StepOptimizer,
        backend: str | Backend | None = None,
        device: str | None = None,
        max_grad_norm: float | None = None,
        keep_grads: bool = False,
        seed: int = 0,
        options: Options | None = None,
    ) -> None:
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise DataError(f"max_grad_norm is {max_grad_norm}, expected a number above 0.")
        self._fn = fn
        self._optimizer = optimizer
        self._max_grad_norm = max_grad_norm
        self._keep_grads = keep_grads
        self._rng = np.random.default_rng(seed)
        self._grads: list[Slot] = []
        self._grad_of: dict[int, Slot] = {}
        self._runner = Runner(self._trace, backend, device, True, options)
        self._singles = Singles()
        if not optimizer.parameters():
            raise GradientError("the optimizer has no parameters to train.")
        self._floating = optimizer.parameters()[0].dtype

    @property
    def backend(self) -> Backend:
        return self._runner.backend

    @property
    def program(self) -> Program | None:
        """The program that ran last."""
        return None if self._runner.last is None else self._runner.last.program

    @property
    def grads(self) -> list[NDArray[Any]]:
        """With keep_grads: the last step's gradients, one for each parameter (before clipping)."""
        return [slot.value for slot in self._grads]

    def __call__(self, *batch: ArrayLike) -> Any:
        """Run one step on one batch.

        Args:
            *batch: arrays of equal first size, in the order of fn's arguments. Float arrays are
                converted to the parameters' dtype.

        Returns:
            The loss before the update, a NumPy scalar.
        """
        key = key_of(batch)
        with self._runner.lock:
            single = self._singles.find(key)
            if single is not None:
                self._runner.last = single.ready
                return single(batch)[0][0]
            data = self._data(batch)
            size = len(data[0])
            one = np.zeros((1, 2), np.int64)
            loss = self._execute(data, np.arange(size), one, [size], finite=False)[0]
            if self._runner.last is not None:
                self._singles.add(key, self._runner.last, self.backend, data)
            return loss

    def run(
        self,
        *data: ArrayLike,
        batch_size: int = 32,
        epochs: int = 1,
        shuffle: bool = True,
        seed: int | None = None,
        drop_last: bool = False,
        order: ArrayLike | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[Any]:
        """Run whole epochs on resident data, without Python between steps.

        Args:
            *data: arrays of equal first size, in the order of fn's arguments.
            batch_size: samples a step; the last batch of an epoch is shorter unless `drop_last`.
            epochs: passes over the data.
            shuffle: a new random order each epoch.
            seed: of the order; default continues the step's own stream.
            order: int array of sample indices to use for one epoch instead, or of one row of them
                for each epoch (then `epochs` is their number); overrides `shuffle`.
            progress: called after each epoch with (epochs done, epochs).

        Returns:
            The loss of every step, in order.

        Raises:
            DataError: empty data, NaN or infinity, indices out of range, labels out of range.
        """
        arrays = self._data(data)
        orders = self._orders(len(arrays[0]), epochs, shuffle, seed, order)
        size = len(orders[0])
        _require_count("batch_size", batch_size)
        if batch_size > size:
            raise DataError(f"batch_size is {batch_size}, but there are only {size} samples.")
        tail = 0 if drop_last else size % batch_size
        epoch = _epoch_schedule(size, batch_size, tail)
        sizes = [batch_size, tail] if tail else [batch_size]
        if progress is None:
            starts = [np.array([0, i * size]) for i in range(len(orders))]
            steps = np.concatenate([epoch + start for start in starts])
            return self._execute(arrays, np.concatenate(orders), steps, sizes)
        losses = []
        for i, indices in enumerate(orders):
            losses.append(self._execute(arrays, indices, epoch, sizes, checked=i > 0))
            progress(i + 1, len(orders))
        return np.concatenate(losses)

    def report(self, profile: bool = False) -> str:
        """Instructions, fusion, arithmetic, bytes moved fused and unfused, arena size.

        Args:
            profile: also run each part alone and show its time beside its roofline bound;
                parameters and state stay as they are. For backends that can.
        """
        return report(self._runner, profile)

    def prepare(self, *batch: Any) -> Program:
        """Trace and compile for a batch of these types without running; returns the program.

        Args:
            *batch: arrays, or anything with `shape` and `dtype`.
        """
        return self._ready([ArrayType(tuple(b.shape), np.dtype(b.dtype)) for b in batch]).program

    def _ready(self, types: Sequence[ArrayType]) -> Ready:
        return self._runner.get(tuple(types))

    def _execute(
        self,
        data: list[ConcreteArray],
        order: NDArray[np.int64],
        schedule: NDArray[np.int64],
        sizes: list[int],
        finite: bool = True,
        checked: bool = False,
    ) -> NDArray[Any]:
        """Run a schedule whose programs take batches of `sizes`; returns the losses.

        `finite`: refuse NaN and infinity. `checked`: the data were checked before.
        """
        with self._runner.lock:
            readies = [
                self._ready([ArrayType((size, *a.shape[1:]), a.dtype) for a in data])
                for size in sizes
            ]
            self._runner.last = readies[0]
            program = readies[0].program
            losses = np.empty(len(schedule), program.output_types[0][1])
            feed = Feed(
                data,
                np.ascontiguousarray(order, np.int64),
                [[losses]] * len(sizes),
                None if checked else lambda: _check(program, data, finite),
                finite,
            )
            self._runner.backend.run([r.loaded for r in readies], schedule, feed)
            return losses

    def _data(self, data: Sequence[ArrayLike]) -> list[ConcreteArray]:
        if not data:
            raise DataError("no data: pass the arrays that the step's function takes.")
        arrays = [as_input(a, f"argument {i}", self._floating) for i, a in enumerate(data)]
        for i, array in enumerate(arrays):
            if array.ndim == 0 or len(array) == 0:
                raise DataError(f"argument {i} is empty: {describe(array)}.")
            if len(array) != len(arrays[0]):
                raise ShapeError(
                    f"argument {i} has {len(array)} samples, argument 0 has {len(arrays[0])}."
                )
        return arrays

    def _orders(
        self, samples: int, epochs: int, shuffle: bool, seed: int | None, order: ArrayLike | None
    ) -> list[NDArray[np.int64]]:
        _require_count("epochs", epochs)
        if order is not None:
            indices = np.asarray(order)
            if indices.ndim not in (1, 2) or indices.size == 0 or indices.dtype.kind not in "iu":
                raise DataError(
                    "order must be a non-empty integer array: of one epoch, or a row for each."
                )
            if indices.min() < 0 or indices.max() >= samples:
                raise DataError(
                    f"order holds indices from {indices.min()} to {indices.max()}; expected 0 to "
                    f"{samples - 1}."
                )
            if indices.ndim == 2:
                return list(indices.astype(np.int64, copy=False))
            return [indices.astype(np.int64)] * epochs
        if not shuffle:
            return [np.arange(samples)] * epochs
        rng = self._rng if seed is None else np.random.default_rng(seed)
        return [rng.permutation(samples) for _ in range(epochs)]

    def _trace(self, types: tuple[ArrayType, ...]) -> tuple[Graph, Any]:
        graph, _ = trace(self._fn, list(types))
        if len(graph.outputs) != 1:
            raise GradientError(
                f"the step's function returned {len(graph.outputs)} arrays; expected the loss."
            )
        with tracing(graph):
            self._append_update(graph, graph.outputs[0])
        return graph, None

    def _append_update(self, graph: Graph, loss: Node) -> None:
        params = list(self._optimizer.parameters())
        pack("params", params)
        self._optimizer.prepare()
        found = gradients(graph, loss, [graph.slot(p) for p in params])
        lost = [p.name for p, g in zip(params, found) if g is None]
        if lost:
            raise GradientError(
                f"these parameters do not reach the loss: {', '.join(lost)}. Use them in the "
                "loss, or leave them out of the optimizer."
            )
        grads = [Array(graph, g) for g in found if g is not None]
        if self._keep_grads or self._max_grad_norm is not None:
            self._keep(graph, params, grads)
        if self._max_grad_norm is not None:
            grads = clip_by_global_norm(grads, self._max_grad_norm)
        for slot, value in self._optimizer.emit({id(p): g for p, g in zip(params, grads)}):
            graph.writes.append((slot, graph.lift(value)))

    def _keep(self, graph: Graph, params: Sequence[Slot], grads: Sequence[Array]) -> None:
        new = [p for p in params if id(p) not in self._grad_of]
        self._grad_of.update(zip(map(id, new), siblings("grads", new), strict=True))
        self._grads = [self._grad_of[id(p)] for p in params]
        graph.writes += [(slot, g.node) for slot, g in zip(self._grads, grads)]


def clip_by_global_norm(grads: Sequence[Array], max_norm: float) -> list[Array]:
    """Scale gradients so that their joint Euclidean norm is at most `max_norm`.

    The factor is min(1, max_norm / (norm + 1e-6)), as in torch.nn.utils.clip_grad_norm_ (Pascanu et
    al., "On the difficulty of training recurrent neural networks", 2013).
    """
    total = ops.sum(ops.square(grads[0]))
    for g in grads[1:]:
        total = total + ops.sum(ops.square(g)).astype(total.dtype)
    factor = ops.minimum(max_norm / (ops.sqrt(total) + 1e-6), 1.0)
    return [g * factor.astype(g.dtype) for g in grads]


def _epoch_schedule(size: int, batch_size: int, tail: int) -> NDArray[np.int64]:
    """Rows (which program, position in the order) of one epoch."""
    full = size // batch_size
    schedule = np.zeros((full + bool(tail), 2), np.int64)
    schedule[:, 1] = np.arange(len(schedule)) * batch_size
    if tail:
        schedule[-1, 0] = 1
    return schedule


def _require_count(name: str, value: object) -> None:
    if not isinstance(value, (int, np.integer)) or value < 1:
        raise DataError(f"{name} is {value!r}, expected an integer of at least 1.")


def _check(program: Program, data: Sequence[ConcreteArray], finite: bool) -> None:
    """Raise if the data of a run are not what they must be; says which, where and why."""
    check_indices(program, data)
    if finite:
        for i, array in enumerate(data):
            _check_finite(array, i)


def _check_finite(array: ConcreteArray, position: int) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise DataError(f"argument {position} holds {array[where]} at index {where}.")


def compile_step(
    fn: Callable[..., Any],
    optimizer: StepOptimizer,
    *,
    backend: str | Backend | None = None,
    device: str | None = None,
    max_grad_norm: float | None = None,
    keep_grads: bool = False,
    seed: int = 0,
    options: Options | None = None,
) -> Step:
    """Compile a training step.

    Args:
        fn: takes a batch (one array an argument, samples along the first axis) and returns a scalar
            loss; it is traced, so it may be any traceable Python.
        optimizer: an optimiser of `gpubp.optim`; every parameter in it must reach the loss.
        backend: "numba", "numpy" or an instance; default from GPUBP_BACKEND, else the best.
        device: "cpu"; default from GPUBP_DEVICE.
        max_grad_norm: clip the gradients' global norm. Gradients are kept in a buffer then.
        keep_grads: keep the gradients of the last step in `step.grads`.
        seed: of the order in which `run` shuffles.
        options: for tests: switch fusion or memory reuse off.

    Returns:
        The step: call it with one batch, or `run` whole epochs.
    """
    return Step(fn, optimizer, backend, device, max_grad_norm, keep_grads, seed, options)
