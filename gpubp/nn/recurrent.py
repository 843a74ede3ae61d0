"""Recurrent layers over whole sequences, with torch's parameters: RNN, LSTM, GRU."""

from __future__ import annotations

from typing import Any

from gpubp.arguments import checked
from gpubp.errors import ShapeError
from gpubp.nn.recurrent_base import RNNBase
from gpubp.nn.recurrent_steps import STEPS, Steps, rnn_steps


class RNN(RNNBase):
    """h = tanh(x W_ih^T + b_ih + h W_hh^T + b_hh), over time (Elman 1990).

    Args:
        input_size: of x at one time.
        hidden_size: of h.
        num_layers: layers, each run over the outputs of the one before.
        nonlinearity: "tanh" or "relu".
        bias: whether biases are added.
        batch_first: whether x and outputs are (N, T, size), not (T, N, size); states are not.
        dropout: outputs between layers are dropped with this probability, in training.
        bidirectional: whether each layer also runs backwards, with weights of its own.
        dtype: float32 or float64.

    Attributes:
        weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0: of layer 0, (hidden_size, ...), first
            uniform in +-1/sqrt(hidden_size); those of the reverse direction end in `_reverse`.

    Raises:
        ShapeError, DataError, UnknownNameError: arguments out of range.
    """

    @checked
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = "float32",
    ) -> None:
        options = bias, batch_first, dropout, bidirectional
        super().__init__(input_size, hidden_size, num_layers, *options)
        self.nonlinearity = nonlinearity
        self._make_parameters(dtype)

    def _kind(self) -> Steps:
        return rnn_steps(self.nonlinearity)


class LSTM(RNNBase):
    """c = f c + i g, h = o tanh(c), with gates from x and h (Hochreiter & Schmidhuber 1997).

    i, f, g, o are sigmoids (g: tanh) of x W_ih^T + b_ih + h W_hh^T + b_hh, in this order.

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype: see
            RNN.
        proj_size: h is multiplied by W_hr to this size; 0: it is not (Sak et al.,
            arXiv:1402.1128).

    Attributes:
        weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0: see RNN; (4 * hidden_size, ...).
        weight_hr_l0: (proj_size, hidden_size), with proj_size.

    Raises:
        ShapeError, DataError: arguments out of range.
    """

    @checked
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        dtype: Any = "float32",
    ) -> None:
        options = bias, batch_first, dropout, bidirectional
        super().__init__(input_size, hidden_size, num_layers, *options)
        if not 0 <= proj_size < hidden_size:
            raise ShapeError(f"LSTM: proj_size {proj_size} is not below hidden_size {hidden_size}.")
        self.proj_size = proj_size
        self._make_parameters(dtype)

    def _kind(self) -> Steps:
        return STEPS["lstm"]


class GRU(RNNBase):
    """h = (1 - z) n + z h, with gates r, z and a new state n from x and h (arXiv:1406.1078).

    r and z are sigmoids; n = tanh(x W_in^T + b_in + r (h W_hn^T + b_hn)).

    Args:
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype: see
            RNN.
        reset_after: whether r is behind the product, as in torch. False: n = tanh(x W_in^T + b_in +
            (r h) W_hn^T + b_hn), as in the paper, and as ONNX has it with linear_before_reset=0.

    Attributes:
        weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0: see RNN; (3 * hidden_size, ...), of r, z
            and n in turn.

    Raises:
        ShapeError, DataError: arguments out of range.
    """

    @checked
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = "float32",
        *,
        reset_after: bool = True,
    ) -> None:
        options = bias, batch_first, dropout, bidirectional
        super().__init__(input_size, hidden_size, num_layers, *options)
        self.reset_after = reset_after
        self._make_parameters(dtype)

    def _kind(self) -> Steps:
        return STEPS["gru" if self.reset_after else "gru reset first"]

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        return super().extra_repr() + ("" if self.reset_after else ", reset_after=False")
