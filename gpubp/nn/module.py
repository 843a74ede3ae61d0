"""The base of all modules: a tree of parameters, buffers and sub-modules with torch's names.

Comes in: attribute assignments in a subclass's `__init__`. Goes out: parameters in the order of
registration, state dicts, train and eval mode. A module is called on NumPy arrays (computed at
once) or inside a traced function.

Holds in between: an array that is registered twice is listed once, under its first name; a failed
`load_state_dict` has changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from numpy.typing import ArrayLike, NDArray

from gpubp import habits
from gpubp.arguments import checked
from gpubp.core import active_graph, at_once, checked_dtype
from gpubp.core.interop import on_device
from gpubp.errors import ArgumentError, DTypeError, unknown_name
from gpubp.nn.attributes import Attributes
from gpubp.nn.parameter import Buffer, Parameter
from gpubp.nn.state_dict import LoadResult, load_slots

ModuleT = TypeVar("ModuleT", bound="Module")


class Module(Attributes):
    """Base class: assign parameters and sub-modules as attributes, and write `forward`.

    A module starts in train mode.
    """

    def __init__(self) -> None:
        super().__init__()
        self.__dict__["_training"] = True

    @property
    def training(self) -> bool:
        """True in train mode; a program that was traced in the other mode is traced again."""
        return bool(self._training)

    @training.setter
    def training(self, mode: bool) -> None:
        if self.__dict__["_training"] is not bool(mode):
            self._training = bool(mode)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; every subclass writes its own."""
        raise NotImplementedError(f"{type(self).__name__} has no forward().")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`forward`; on arrays on a device, as one program (with options: op by op)."""
        if active_graph() is None and not kwargs and any(map(on_device, args)):
            options = any(a is None or isinstance(a, bool) for a in args)
            if not options:
                return at_once.call(self, args)
        return self.forward(*args, **kwargs)

    @checked
    def register_buffer(self, name: str, value: ArrayLike) -> Buffer:
        """Add state that is saved with the module but not trained.

        Args:
            name: the attribute's name.
            value: the initial value; copied.

        Returns:
            The buffer, also found as the attribute `name`.
        """
        buffer = Buffer(value, name)
        setattr(self, name, buffer)
        return buffer

    @checked
    def register_parameter(self, name: str, parameter: Parameter | None) -> None:
        """Add a parameter, also found as the attribute `name`; None keeps the name for later."""
        if parameter is not None and not isinstance(parameter, Parameter):
            raise ArgumentError(
                f"{name}: got {type(parameter).__name__}, expected a Parameter or None."
            )
        self._parameters.setdefault(name, None)
        setattr(self, name, parameter)

    @checked
    def add_module(self, name: str, module: Module | None) -> None:
        """Add a sub-module, also found as the attribute `name`.

        Raises:
            ArgumentError: it is not a Module; or the name is empty or has a dot, which separates
                names in state dicts.
        """
        if module is not None and not isinstance(module, Module):
            raise ArgumentError(f"{name}: got {type(module).__name__}, expected a Module or None.")
        if not name or "." in name:
            raise ArgumentError(f"a module cannot be named {name!r}: expected a name without dots.")
        self._modules.setdefault(name, None)
        setattr(self, name, module)

    register_module = add_module

    def children(self) -> Iterator[Module]:
        """The direct sub-modules."""
        return (module for _, module in self.named_children())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, module) for the direct sub-modules."""
        return ((name, module) for name, module in self._modules.items() if module is not None)

    @checked
    def get_submodule(self, target: str) -> Module:
        """The module of a dotted name, as `named_modules` gives them; "" is this one.

        Raises:
            UnknownNameError: there is none.
        """
        known = dict(self.named_modules())
        if target not in known:
            raise unknown_name("module", target, known)
        return known[target]

    @checked
    def apply(self: ModuleT, fn: Callable[[Module], Any]) -> ModuleT:
        """Call `fn` on every sub-module, inner ones first, and on this one; returns self."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(dotted name, module) for this module and all below it, each once."""
        seen: set[int] = set()
        for name, module in self._walk(prefix):
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def _walk(self, prefix: str) -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module._walk(f"{prefix}.{name}" if prefix else name)

    def _named_slots(self, *tables: str) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for table in tables:
                for name, slot in getattr(module, table).items():
                    if slot is not None and id(slot) not in seen:
                        seen.add(id(slot))
                        yield f"{prefix}.{name}" if prefix else name, slot

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(dotted name, parameter), each once, in the order of registration."""
        return self._named_slots("_parameters")

    def parameters(self) -> Iterator[Parameter]:
        """All parameters of this module and those below it."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """(dotted name, buffer), each once."""
        return self._named_slots("_buffers")

    def buffers(self) -> Iterator[Buffer]:
        """All buffers of this module and those below it."""
        return (buffer for _, buffer in self.named_buffers())

    def train(self: ModuleT, mode: bool = True) -> ModuleT:
        """Set train mode (or eval mode) here and below; returns self.

        Each sub-module's own `train` is called: one that overrides it may stay as it is.
        """
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self: ModuleT) -> ModuleT:
        """Set eval mode here and below; returns self."""
        return self.train(False)

    def requires_grad_(self: ModuleT, requires_grad: bool = True) -> ModuleT:
        """Freeze (False) or train (True) all parameters here and below; returns self."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def to(self: ModuleT, *args: Any, **kwargs: Any) -> ModuleT:
        """Convert all parameters and buffers of floats; returns self.

        Args:
            *args, **kwargs: a dtype of NumPy's or torch's, its name, or an array of it. A device
                may be the CPU's alone, where weights are kept: programs choose where they run.

        Raises:
            DataError: another device. DTypeError: a dtype that is not of floats or not supported,
                or a compiled program uses the weights already; says what to do.
        """
        dtype = habits.asked_of_to(*args, **kwargs)
        if dtype is None:
            return self
        wanted = checked_dtype(dtype)
        if wanted.kind != "f":
            raise DTypeError(f"to({wanted}): a module's weights are floats: float32 or float64.")
        slots = [s for s in self._slots_by_name().values() if s.dtype.kind == "f"]
        for slot in slots:
            slot.convert(wanted)
        return self

    def float(self: ModuleT) -> ModuleT:
        """See `to`: float32."""
        return self.to("float32")

    def double(self: ModuleT) -> ModuleT:
        """See `to`: float64."""
        return self.to("float64")

    def cpu(self: ModuleT) -> ModuleT:
        """Nothing: weights are kept on the host."""
        return self

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copies of all parameters and buffers, by dotted name."""
        return {name: slot.numpy() for name, slot in self._slots_by_name().items()}

    @checked
    def load_state_dict(self, state: Mapping[str, ArrayLike], strict: bool = True) -> LoadResult:
        """Copy values into parameters and buffers; on an error nothing is changed.

        Args:
            state: arrays by dotted name, as `state_dict` gives them; cast to each slot's dtype.
            strict: False passes over names that only one side has.

        Returns:
            The names passed over.

        Raises:
            UnknownNameError: `strict`, and the names differ.
            ShapeError: an array's shape differs from the slot's.
            DTypeError, DataError: numbers that a slot cannot hold; see `interop.host_array`.
        """
        return load_slots(type(self).__name__, self._slots_by_name(), state, strict)

    def _slots_by_name(self) -> dict[str, Buffer]:
        """Every slot under each of its names: a shared one is saved twice, as in torch."""
        found: dict[str, Buffer] = {}
        for prefix, module in self._walk(""):
            for slots in (module._parameters, module._buffers):
                for name, slot in slots.items():
                    if slot is not None:
                        found[f"{prefix}.{name}" if prefix else name] = slot
        return found

    def extra_repr(self) -> str:
        """The arguments to show between the parentheses of `repr`."""
        return ""

    def __repr__(self) -> str:
        lines = [
            f"  ({name}): " + repr(module).replace("\n", "\n  ")
            for name, module in self._modules.items()
        ]
        extra = self.extra_repr()
        if not lines:
            return f"{type(self).__name__}({extra})"
        lines = [f"  {extra}", *lines] if extra else lines
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])
