"""What RNN, LSTM and GRU share: layers, directions, and how they are called."""

from __future__ import annotations

import math
from typing import Any

from gpubp import ops
from gpubp.arguments import checked
from gpubp.core import describe
from gpubp.errors import ArgumentError, DataError, ShapeError
from gpubp.nn.arrays import as_array
from gpubp.nn.init import uniform
from gpubp.nn.module import Module
from gpubp.nn.parameter import Parameter
from gpubp.nn.recurrent_steps import States, Steps, Weights, over_time, zeros
from gpubp.nn.utils.rnn import PackedSequence, checked_lengths, valid_mask


class RNNBase(Module):
    """The base of the recurrent layers over whole sequences."""

    proj_size = 0

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
    ) -> None:
        super().__init__()
        if min(input_size, hidden_size, num_layers) < 1:
            raise ShapeError(
                f"{type(self).__name__} needs sizes of at least 1, got input_size={input_size}, "
                f"hidden_size={hidden_size}, num_layers={num_layers}."
            )
        if not 0.0 <= dropout <= 1.0:
            raise DataError(f"{type(self).__name__}: dropout {dropout} is not between 0 and 1.")
        self.input_size, self.hidden_size = input_size, hidden_size
        self.num_layers, self.bias, self.batch_first = num_layers, bias, batch_first
        self.dropout, self.bidirectional = dropout, bidirectional

    def _kind(self) -> Steps:
        """What a round of it is."""
        raise NotImplementedError

    def _suffixes(self, layer: int) -> list[str]:
        """Of the names of a layer's parameters, for each direction."""
        return [f"_l{layer}", f"_l{layer}_reverse"][: 2 if self.bidirectional else 1]

    def _make_parameters(self, dtype: Any) -> None:
        """All uniform in +-1/sqrt(hidden_size), as in torch."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        rows = self._kind().gates * self.hidden_size
        size = self.proj_size or self.hidden_size
        for layer in range(self.num_layers):
            for suffix in self._suffixes(layer):
                given = size * (1 + self.bidirectional) if layer else self.input_size
                shapes: list[tuple[int, ...]] = [(rows, given), (rows, size)]
                shapes += [(rows,), (rows,)] if self.bias else []
                if self.proj_size:
                    shapes.append((self.proj_size, self.hidden_size))
                for name, shape in zip(self._held(), shapes, strict=True):
                    setattr(self, name + suffix, Parameter(uniform(shape, bound, dtype)))

    def _held(self) -> list[str]:
        """The names of one layer's parameters in one direction."""
        biases = ["bias_ih", "bias_hh"] if self.bias else []
        return ["weight_ih", "weight_hh", *biases, *["weight_hr"] * (self.proj_size > 0)]

    def _weights(self, suffix: str) -> Weights:
        found = {
            name.removeprefix("weight_"): getattr(self, name + suffix) for name in self._held()
        }
        return Weights(**found)

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters of each layer and direction."""
        suffixes = [s for layer in range(self.num_layers) for s in self._suffixes(layer)]
        return [[w for w in self._weights(s) if w is not None] for s in suffixes]

    def flatten_parameters(self) -> None:
        """Nothing: torch has it for its kernels on GPUs."""

    @checked
    def forward(self, x: Any, hx: Any = None, lengths: Any = None) -> tuple[Any, Any]:
        """Run over sequences.

        Args:
            x: (T, N, input_size); (N, T, input_size) with batch_first; (T, input_size) for one
                sequence; or a PackedSequence.
            hx: the state before, (layers * directions, N, size) (without N for one sequence); of an
                LSTM a pair, h and c. None: 0.
            lengths: integers (N,), of sequences that end before T; an array like any other of a
                batch. Behind a sequence's end outputs are 0, states stay what they were there, and
                the reverse direction begins at it. None: all have T elements.

        Returns:
            (outputs, state): h of the last layer at each time, of both directions side by side,
            in the order of axes of x; and the states at the end, as `hx`.

        Raises:
            ShapeError, DTypeError, DataError: x, hx or lengths do not fit.
        """
        packed = isinstance(x, PackedSequence)
        if packed:
            if lengths is not None:
                raise ArgumentError(
                    f"{type(self).__name__}: a PackedSequence has its own lengths; pass no others."
                )
            x, lengths = x
        x = as_array(self, x)
        single = not packed and len(x.shape) == 2
        x = self._time_first(x, packed, single)
        valid = None
        if lengths is not None:
            time, batch = int(x.shape[0]), int(x.shape[1])
            lengths = checked_lengths(lengths, batch, time, 0, type(self).__name__)
            valid = valid_mask(lengths, time)
        out, last = self._through(x, self._start(x, hx, single), valid)
        if single:
            out, last = ops.squeeze(out, 1), tuple(ops.squeeze(s, 1) for s in last)
        elif self.batch_first and not packed:
            out = ops.swapaxes(out, 0, 1)
        state = last if len(last) > 1 else last[0]
        return (PackedSequence(out, lengths) if packed else out), state

    def _time_first(self, x: Any, packed: bool, single: bool) -> Any:
        if len(x.shape) not in (2, 3) or x.shape[-1] != self.input_size or (packed and single):
            order = "N, T" if self.batch_first else "T, N"
            raise ShapeError(
                f"{type(self).__name__}: got x {describe(x)}, expected ({order}, "
                f"{self.input_size}), or (T, {self.input_size}) for one sequence."
            )
        if single:
            return ops.expand_dims(x, 1)
        return ops.swapaxes(x, 0, 1) if self.batch_first and not packed else x

    def _start(self, x: Any, hx: Any, single: bool) -> list[Any]:
        """The states before, (layers * directions, N, size) each; those of `hx`, or 0."""
        count = self.num_layers * (1 + self.bidirectional)
        sizes = (self.proj_size or self.hidden_size, self.hidden_size)[: self._kind().states]
        if hx is None:
            return [zeros((count, int(x.shape[1]), size), x) for size in sizes]
        given = list(hx) if isinstance(hx, (tuple, list)) and len(sizes) == 2 else [hx]
        if len(given) != len(sizes):
            raise ArgumentError(f"{type(self).__name__}: expected hx to be a pair, h and c.")
        found = []
        for size, state in zip(sizes, given, strict=True):
            state = as_array(self, state)
            wanted = (count, size) if single else (count, int(x.shape[1]), size)
            if tuple(state.shape) != wanted:
                raise ShapeError(
                    f"{type(self).__name__}: got a state {describe(state)}, expected {wanted}."
                )
            found.append(ops.expand_dims(state, 1) if single else state)
        return found

    def _through(self, x: Any, states: list[Any], valid: Any) -> tuple[Any, States]:
        """All layers and directions, time first."""
        kind = self._kind()
        ends: list[States] = []
        for layer in range(self.num_layers):
            outputs = []
            for suffix in self._suffixes(layer):
                start = tuple(ops.getitem(s, len(ends)) for s in states)
                reverse = suffix.endswith("reverse")
                out, last = over_time(kind, x, start, self._weights(suffix), valid, reverse)
                outputs.append(out)
                ends.append(last)
            x = outputs[0] if len(outputs) == 1 else ops.concat(outputs, 2)
            if self.dropout and self.training and layer < self.num_layers - 1:
                x = ops.dropout(x, self.dropout)
        return x, tuple(ops.stack(s, 0) for s in zip(*ends, strict=True))

    def extra_repr(self) -> str:
        """The arguments, as torch shows them."""
        shown = [f"{self.input_size}, {self.hidden_size}"]
        for name, usual in _USUAL.items():
            value = getattr(self, name)
            if value != usual:
                shown.append(f"{name}={value}")
        return ", ".join(shown)


_USUAL = {
    "proj_size": 0,
    "num_layers": 1,
    "bias": True,
    "batch_first": False,
    "dropout": 0,
    "bidirectional": False,
}
