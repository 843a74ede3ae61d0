"""L-BFGS (Liu & Nocedal, Mathematical Programming 45, 1989), as torch.optim.LBFGS.

A step evaluates loss and gradient several times, at weights that depend on what came before. So it
is no program: the program of a compiled step finds loss and gradient, and the search around it runs
on the host, over all parameters as one flat vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import reading
from gpubp.core import Array
from gpubp.errors import DataError
from gpubp.nn.parameter import Parameter
from gpubp.optim.base import Optimizer, Update
from gpubp.optim.curvature import Memory
from gpubp.optim.group import ParamGroup, Params
from gpubp.optim.line_search import StrongWolfe, Trial
from gpubp.optim.options import Counted, NotNegative, Range
from gpubp.optim.state import Cohort


def _is_search(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value == "strong_wolfe")


LineSearch = Annotated[str | None, Range("None or 'strong_wolfe'", _is_search, words=True)]
MostEvaluations = Annotated[
    int | None, Range("None or an integer of at least 1", lambda n: n >= 1 and n == int(n))
]
# The loss and a gradient for each parameter, at the weights as they stand.
Evaluate = Callable[[], tuple[float, Sequence[NDArray[Any]]]]


class LBFGS(Optimizer):
    """Newton's method with a Hessian estimated from the last gradients, as torch.optim.LBFGS.

    One step is up to max_iter iterations on one batch. Give it to the step:
    `step = gp.compile_step(fn, optim.LBFGS(params))`; then `step(x, y)` is torch's
    `optimizer.step(closure)`, and returns the loss before the first iteration. Meant for whole data
    sets as batches. All trained parameters are one vector; if some are frozen or thawed, what was
    learned of the Hessian is forgotten.

    Args:
        params: parameters; there is one group only.
        lr: the step that is tried first, in units of the direction; at least 0.
        max_iter: iterations a step.
        max_eval: evaluations of the loss a step; default is max_iter * 1.25.
        tolerance_grad: a step ends where no element of the gradient is larger.
        tolerance_change: a step ends where loss or weights change by less.
        history_size: pairs of gradient and weight changes that are kept.
        line_search_fn: None for steps of lr, or "strong_wolfe".

    Raises:
        DataError: an option out of its range, or a second group.
    """

    saves_step = False

    def __init__(
        self,
        params: Params,
        lr: NotNegative = 1.0,
        max_iter: Counted = 20,
        max_eval: MostEvaluations = None,
        tolerance_grad: NotNegative = 1e-7,
        tolerance_change: NotNegative = 1e-9,
        history_size: Counted = 100,
        line_search_fn: LineSearch = None,
    ) -> None:
        if max_eval is None and isinstance(max_iter, int):
            max_eval = max(1, max_iter * 5 // 4)
        super().__init__(params, locals())
        self._memory = Memory()

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Set the one group. Raises DataError if there is one already."""
        if self.param_groups:
            raise DataError("LBFGS has one parameter group: all parameters share its options.")
        super().add_param_group(group)

    def counts_steps(self) -> bool:
        """No: programs do not see its steps."""
        return False

    def emit(self, grads: Mapping[int, Array]) -> Update:
        """Nothing: the program only finds the gradients."""
        return []

    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], cohort: Cohort
    ) -> Update:
        """Nothing; see `emit`."""
        return []

    def search(self, evaluate: Evaluate) -> None:
        """One step: change the parameters for the better, and remember.

        If it raises, parameters and memory are as before.

        Args:
            evaluate: the loss and the gradients of `parameters()`, at the weights as they stand.
        """
        point = _Point(self.parameters(), evaluate)
        memory = self._memory.copied(len(point.x))
        start = point.x
        try:
            _minimize(self.param_groups[0], point, memory)
        except BaseException:
            point.put(start)
            raise
        vars(self._memory).update(vars(memory))

    def _saved_state(self, group: ParamGroup, param: Parameter) -> dict[str, Any]:
        first = param is self.param_groups[0].params[0]
        return self._memory.state_dict() if first and self._memory.func_evals else {}

    @reading("the state of an optimizer")
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over state and options, as of `Optimizer.load_state_dict`.

        Raises:
            DataError: other groups, or what is no state of an LBFGS.
            ShapeError: vectors of another number of weights.
        """
        state = dict(state_dict.get("state", {}))
        size = sum(p.size for p in self.parameters())
        dtype = np.result_type(*[p.dtype for p in self.parameters()])
        memory = Memory.read(state.get(0, {}), size, dtype)
        super().load_state_dict(
            {**state_dict, "state": {}} if "state" in state_dict else state_dict
        )
        vars(self._memory).update(vars(memory))


class _Point:
    """The weights as one vector, and what the loss is there.

    Attributes:
        x: the vector.
    """

    def __init__(self, params: Sequence[Parameter], evaluate: Evaluate) -> None:
        self._params, self._evaluate = params, evaluate
        self._ends = np.cumsum([p.size for p in params])[:-1]
        self.x = np.concatenate([p.value.ravel() for p in params])

    def here(self) -> tuple[float, NDArray[Any]]:
        loss, grads = self._evaluate()
        return float(loss), np.concatenate([g.ravel() for g in grads])

    def put(self, x: NDArray[Any]) -> None:
        for param, part in zip(self._params, np.split(x, self._ends), strict=True):
            param.value = part.reshape(param.shape)

    def along(self, t: float, direction: NDArray[Any]) -> tuple[float, NDArray[Any]]:
        self.put(self.x + t * direction)
        return self.here()

    def move(self, t: float, direction: NDArray[Any]) -> None:
        self.x = self.x + t * direction
        self.put(self.x)


def _largest(x: NDArray[Any]) -> float:
    return float(np.abs(x).max())


def _minimize(options: ParamGroup, point: _Point, memory: Memory) -> None:
    """Up to max_iter iterations; `memory` is written into."""
    loss, grad = point.here()
    memory.func_evals += 1
    first, tolerance = memory.func_evals, options["tolerance_change"]
    if _largest(grad) <= options["tolerance_grad"]:
        return
    for left in reversed(range(options["max_iter"])):
        memory.n_iter += 1
        direction = memory.direction(grad, options["history_size"])
        memory.prev_flat_grad, memory.prev_loss, memory.d = grad, loss, direction
        scale = min(1.0, 1.0 / float(np.abs(grad).sum())) if memory.n_iter == 1 else 1.0
        memory.t = scale * options["lr"]
        slope = float(grad.dot(direction))
        if slope > -tolerance:
            return
        spent = memory.func_evals - first + 1
        now = Trial(0.0, loss, grad, slope)
        loss, grad = _moved(options, point, memory, now, options["max_eval"] - spent, left > 0)
        ended = memory.func_evals - first + 1 >= options["max_eval"]
        small = _largest(grad) <= options["tolerance_grad"]
        still = _largest(direction * memory.t) <= tolerance or abs(loss - now.loss) < tolerance
        if ended or small or still:
            return


def _moved(
    options: ParamGroup, point: _Point, memory: Memory, now: Trial, most: int, again: bool
) -> tuple[float, NDArray[Any]]:
    """Follow the direction; returns the loss and the gradient there, if they are still needed."""
    direction = memory.d
    assert direction is not None
    if options["line_search_fn"] is None:
        point.move(memory.t, direction)
        if not again:
            return now.loss, now.grad
        memory.func_evals += 1
        return point.here()
    search = StrongWolfe(lambda t: point.along(t, direction), direction, now, most)
    found = search.run(memory.t)
    memory.func_evals += search.evaluations
    memory.t = found.t
    point.move(found.t, direction)
    return found.loss, found.grad
