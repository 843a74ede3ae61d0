"""A function of torch modules as one of gpubp's arrays: exported once for each types of arrays.

Comes in: the modules, the function, and at each call arrays, traced or not. Goes out: what the
function returns. Parameters and buffers are slots that share the tensors' memory.

Holds in between: a program is traced again when the modules' modes or plain attributes have
changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from gpubp.core import active_graph
from gpubp.core.store import Slot
from gpubp.errors import TraceError
from gpubp.nn.parameter import Buffer
from gpubp.torch.cells import Fresh, Held
from gpubp.torch.dtypes import as_array, torch_dtype
from gpubp.torch.exporting import export, require_source
from gpubp.torch.interpreter import Interpreter, leaves
from gpubp.torch.sharing import Links
from gpubp.torch.state import ModelState, tensors_among

MAX_KEPT = 16  # exported graphs of one function


class Translated:
    """A function of torch modules, on gpubp's arrays.

    Args:
        modules: all that the function uses.
        fn: computes with torch.

    Attributes:
        links: what is shared.
        slots: by torch.export's names.
    """

    def __init__(self, modules: Sequence[Any], fn: Callable[..., Any]) -> None:
        require_source(modules)
        self._modules, self._fn = list(modules), fn
        self._state = ModelState(self._modules)
        self.links = Links()
        self.slots = self._all_slots()
        self._kept: dict[Any, Any] = {}
        self._seen = self._state.look()

    def _all_slots(self) -> dict[str, Buffer]:
        return {
            name: self.links.slot(tensor, name.split(".", 2)[2], trained)
            for name, tensor, trained in tensors_among(self._modules)
        }

    def __call__(self, *args: Any) -> Any:
        """What the function returns, of arrays; inside of a trace, of traced ones."""
        given, structure = pytree.tree_flatten(args)
        given = [v if hasattr(v, "node") or isinstance(v, Slot) else as_array(v) for v in given]
        graph = active_graph()
        if self._seen != self._state.look():
            self._seen, self.slots = self._state.number, self._all_slots()
        if graph is not None:
            graph.facts.watch(self._state.fact())
        program = self._exported(given, structure)
        remaining = iter(given)
        specs = program.graph_signature.input_specs
        inputs = [self._input(spec, program, remaining) for spec in specs]
        returned = Interpreter(program.graph_module).run(inputs)
        results = list(leaves(self._results(program, returned)))
        return pytree.tree_unflatten(results, program.call_spec.out_spec)

    def _exported(self, given: Sequence[Any], structure: Any) -> Any:
        types = tuple((tuple(v.shape), v.dtype) for v in given)
        key = types, str(structure), self._state.number
        if key not in self._kept:
            if len(self._kept) >= MAX_KEPT:
                del self._kept[next(iter(self._kept))]
            like = [torch.zeros(shape, dtype=torch_dtype(dtype)) for shape, dtype in types]
            args = pytree.tree_unflatten(like, structure)
            self._kept[key] = export(self._modules, self._fn, args)
        return self._kept[key]

    def _input(self, spec: Any, program: Any, given: Iterator[Any]) -> Any:
        kind = spec.kind.name
        if kind == "USER_INPUT":
            return Fresh(next(given))
        if kind in ("PARAMETER", "BUFFER"):
            return Held(self.slots[spec.target])
        if kind == "CONSTANT_TENSOR":
            own = self._attribute(spec.target)
            if own is None:
                return Fresh(as_array(program.constants[spec.target], spec.target).copy())
            return Held(self.links.slot(own, spec.target.split(".", 2)[2], False))
        raise TraceError(f"torch.export made an input of the kind {kind}, which is not known here.")

    def _attribute(self, target: str) -> Any:
        """A tensor that a module holds as a plain attribute; None if there is no such."""
        found: Any = None
        for i, name in enumerate(target.split(".")[1:]):
            found = self._modules[int(name)] if i == 0 else getattr(found, name, None)
        return found if isinstance(found, torch.Tensor) else None

    def _results(self, program: Any, returned: Sequence[Any]) -> list[Any]:
        """What the function returns; new values of buffers that it has set go to their slots."""
        results = []
        for spec, value in zip(program.graph_signature.output_specs, returned, strict=True):
            if spec.kind.name == "USER_OUTPUT":
                results.append(value)
            elif spec.kind.name == "BUFFER_MUTATION":
                Held(self.slots[spec.target]).write(value.read())
            else:
                raise TraceError(
                    f"the program changes {spec.target or 'one of its inputs'}, which a compiled "
                    "step cannot do. Return the new value."
                )
        return results
