"""One round of a recurrent layer, with torch's parameters: RNNCell, LSTMCell, GRUCell."""

from __future__ import annotations

import math
from typing import Any

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import ArgumentError, ShapeError
from gpubp.nn.arrays import as_array
from gpubp.nn.init import uniform
from gpubp.nn.module import Module
from gpubp.nn.parameter import Parameter
from gpubp.nn.recurrent_steps import STEPS, States, Steps, Weights, once, rnn_steps, zeros


class RNNCellBase(Module):
    """What the cells share."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool) -> None:
        super().__init__()
        if min(input_size, hidden_size) < 1:
            raise ShapeError(
                f"{type(self).__name__} needs sizes of at least 1, got input_size={input_size}, "
                f"hidden_size={hidden_size}."
            )
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias

    def _kind(self) -> Steps:
        """What a round of it is."""
        raise NotImplementedError

    def _make_parameters(self, dtype: Any) -> None:
        bound = 1.0 / math.sqrt(self.hidden_size)
        rows = self._kind().gates * self.hidden_size
        self.weight_ih = Parameter(uniform((rows, self.input_size), bound, dtype))
        self.weight_hh = Parameter(uniform((rows, self.hidden_size), bound, dtype))
        self.bias_ih: Parameter | None = None
        self.bias_hh: Parameter | None = None
        self.register_parameter("bias_ih", None)
        self.register_parameter("bias_hh", None)
        if self.bias:
            self.bias_ih = Parameter(uniform((rows,), bound, dtype))
            self.bias_hh = Parameter(uniform((rows,), bound, dtype))

    def _next(self, x: Any, states: list[Any] | None) -> States:
        """The next states, from x (N, input_size) or (input_size,)."""
        x = as_array(self, x)
        if len(x.shape) not in (1, 2) or x.shape[-1] != self.input_size:
            raise ShapeError(
                f"{type(self).__name__}: got x {describe(x)}, expected (N, {self.input_size}) or "
                f"({self.input_size},)."
            )
        kind, wanted = self._kind(), (*map(int, x.shape[:-1]), self.hidden_size)
        given = [zeros(wanted, x)] * kind.states if states is None else states
        given = [as_array(self, s) for s in given]
        for state in given:
            if tuple(state.shape) != wanted:
                raise ShapeError(
                    f"{type(self).__name__}: got a state {describe(state)}, expected {wanted}."
                )
        single = len(wanted) == 1
        if single:
            x, *given = (ops.expand_dims(a, 0) for a in (x, *given))
        weights = Weights(self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        found = once(kind, x, tuple(given), weights)
        return tuple(ops.squeeze(s, 0) for s in found) if single else found

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(RNNCellBase):
    """h = tanh(x W_ih^T + b_ih + h W_hh^T + b_hh).

    Args:
        input_size: of x.
        hidden_size: of h.
        bias: whether biases are added.
        nonlinearity: "tanh" or "relu".
        dtype: float32 or float64.

    Attributes:
        weight_ih, weight_hh, bias_ih, bias_hh: (hidden_size, ...), first uniform in
            +-1/sqrt(hidden_size); biases may be None.

    Raises:
        ShapeError, UnknownNameError: arguments out of range.
    """

    @checked
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        dtype: Any = "float32",
    ) -> None:
        super().__init__(input_size, hidden_size, bias)
        self.nonlinearity = nonlinearity
        self._make_parameters(dtype)

    def _kind(self) -> Steps:
        return rnn_steps(self.nonlinearity)

    def forward(self, x: Any, hx: Any = None) -> Any:
        """The next h, (N, hidden_size), from x (N, input_size) and h (None: 0); or without N."""
        return self._next(x, None if hx is None else [hx])[0]

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        other = "" if self.nonlinearity == "tanh" else f", nonlinearity={self.nonlinearity}"
        return super().extra_repr() + other


class LSTMCell(RNNCellBase):
    """c = f c + i g, h = o tanh(c); see LSTM.

    Args:
        input_size: of x.
        hidden_size: of h and c.
        bias: whether biases are added.
        dtype: float32 or float64.

    Attributes:
        weight_ih, weight_hh, bias_ih, bias_hh: see RNNCell; (4 * hidden_size, ...).

    Raises:
        ShapeError: a size is below 1.
    """

    @checked
    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, dtype: Any = "float32"
    ) -> None:
        super().__init__(input_size, hidden_size, bias)
        self._make_parameters(dtype)

    def _kind(self) -> Steps:
        return STEPS["lstm"]

    def forward(self, x: Any, hx: Any = None) -> tuple[Any, Any]:
        """The next h and c, (N, hidden_size), from x and both (None: 0); or without N."""
        if hx is not None and (not isinstance(hx, (tuple, list)) or len(hx) != 2):
            raise ArgumentError("LSTMCell: expected hx to be a pair, h and c.")
        h, c = self._next(x, None if hx is None else list(hx))
        return h, c


class GRUCell(RNNCellBase):
    """h = (1 - z) n + z h; see GRU.

    Args:
        input_size: of x.
        hidden_size: of h.
        bias: whether biases are added.
        dtype: float32 or float64.
        reset_after: see GRU.

    Attributes:
        weight_ih, weight_hh, bias_ih, bias_hh: see RNNCell; (3 * hidden_size, ...).

    Raises:
        ShapeError: a size is below 1.
    """

    @checked
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        dtype: Any = "float32",
        *,
        reset_after: bool = True,
    ) -> None:
        super().__init__(input_size, hidden_size, bias)
        self.reset_after = reset_after
        self._make_parameters(dtype)

    def _kind(self) -> Steps:
        return STEPS["gru" if self.reset_after else "gru reset first"]

    def forward(self, x: Any, hx: Any = None) -> Any:
        """The next h, (N, hidden_size), from x (N, input_size) and h (None: 0); or without N."""
        return self._next(x, None if hx is None else [hx])[0]

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        return super().extra_repr() + ("" if self.reset_after else ", reset_after=False")
