"""What PyTorch has and gpubp has not, and the lines to write instead: errors that show them.

Comes in: a name that somebody looked for. Goes out: an AttributeError whose message has the program
that does the same here. `docs/migration.md` is the long form; tests hold both to the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpubp.errors import DataError, DTypeError, UnknownAttributeError

PAGE = "docs/migration.md"
_STEP = """There is no backward pass to call: a step is one compiled program. Write

    step = gp.compile_step(lambda x, y: loss_fn(model(x), y), optimizer)
    loss = step(x, y)                                # forward, backward and update
    losses = step.run(X, Y, batch_size=32, epochs=10)  # whole epochs

in place of zero_grad(), loss.backward() and optimizer.step()"""
_GRADIENT = """Gradients are kept by no parameter. Write

    step = gp.compile_step(loss, optimizer, keep_grads=True)
    step(x, y); step.grads                           # those of the last update
    gp.grad(f)(x), gp.value_and_grad(f)(x)           # of any function of arrays

for gradients"""
_DEVICE = """Weights are kept on the host, and what is compiled chooses where it runs. Write

    step = gp.compile_step(loss, optimizer, device="cuda")
    predict = gp.compile(model, device="cuda")
    trainer = gp.Trainer(model, loss_fn, optimizer, device="cuda")"""
_HOOK = """Modules have no hooks: what is traced is what `forward` does. Write

    def forward(self, x):
        hidden = self.first(x)
        return self.second(hidden), hidden           # a result more

and let the step return it beside the loss"""
_HALF = """Weights are of float32 or float64. Where a GPU is to multiply in half precision, set

    GPUBP_PRECISION=float16                          # or bfloat16, tf32

and gradients are scaled by themselves (gp.LossScale)"""
_IN_PLACE = """Arrays of a traced function are never changed in place. Write

    x = gp.ops.{plain}(x, ...)                       # or x = x + 1 for x.add_(1)
    parameter.value[...] = 0.0                       # outside of a trace
    gp.ops.assign(buffer, value)                     # inside: of a module's buffer"""
_NO_GRAD = """Only compiled steps and gp.grad differentiate; leave `no_grad` out. Write

    model.eval()
    predict = gp.compile(model)
    predict(x)                                       # or model(x), at once

and gp.ops.stop_gradient(x) for a part that is to be constant"""
_NUMBERS = """NumPy's arrays, torch's tensors and lists are taken as they are. Write

    x = np.asarray([[1.0, 2.0]], np.float32)
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    x = gp.ops.zeros((8, 4))                         # ones, full, arange, eye, normal, ..."""
_FILES = """Models are kept in safetensors files, not in pickles. Write

    gp.train.save_model("model.safetensors", model)
    model = gp.train.load_model("model.safetensors").model
    model.load_state_dict(torch.load("weights.pt"))  # PyTorch's own files"""
_LOADER = """Whole arrays go in, and batches are made by the step. Write

    trainer.fit(X, y, epochs=10, batch_size=32, shuffle=True)
    losses = step.run(X, y, epochs=10, batch_size=32)
    trainer.fit(loader, epochs=10)                   # torch's own DataLoader, or any iterable"""
_NEEDS_NUMBERS = """A traced array has no numbers until its program runs. Write

    predict = gp.compile(f)
    predict(x).item()                                # results are NumPy's arrays"""


def _each(names: str, text: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), text)


_OF_ALL = {
    **_each("backward register_hook retain_grad autograd", _STEP),
    **_each("grad grad_fn is_leaf", _GRADIENT),
    **_each("cuda cpu device is_cuda pin_memory", _DEVICE),
    **_each("half bfloat16", _HALF),
}
ARRAY: Mapping[str, str] = {
    **_OF_ALL,
    **_each("item numpy tolist", _NEEDS_NUMBERS),
    **_each("requires_grad requires_grad_", _GRADIENT),
    "data": "Write gp.ops.stop_gradient(x) for the same numbers as a constant.",
    "std": "NumPy divides by n, torch by n - 1. Write gp.ops.std(x, axis), which is torch's, or "
    "gp.ops.std(x, axis, correction=0), NumPy's.",
    "var": "NumPy divides by n, torch by n - 1. Write gp.ops.var(x, axis), which is torch's, or "
    "gp.ops.var(x, axis, correction=0), NumPy's.",
    "repeat": "NumPy repeats elements, torch the array. Write gp.ops.tile(x, (2, 1)), which is "
    "torch's, or gp.ops.repeat_interleave(x, 2), NumPy's.",
    "sort": "NumPy sorts in place, torch returns two arrays. Write values, indices = "
    "gp.ops.sort(x, dim=-1).",
    "split": "Write gp.ops.split(x, size, dim=0), a list of parts of that size.",
    "nonzero": "Write gp.ops.nonzero(x), on arrays: how many there are is no shape of a program.",
    "values": "x.max(axis) gives the values alone, as NumPy's does. Leave .values out.",
    "indices": "x.max(axis) gives the values alone, as NumPy's does. Write x.argmax(axis).",
    "type": "Write x.astype('float32').",
}
PARAMETER: Mapping[str, str] = {**ARRAY, **_each("register_hook", _HOOK)}
MODULE: Mapping[str, str] = {
    **_each("zero_grad backward", _STEP),
    **_each("cuda xpu to_empty", _DEVICE),
    **_each("half bfloat16", _HALF),
    **_each(
        "register_forward_hook register_forward_pre_hook register_full_backward_hook "
        "register_full_backward_pre_hook register_backward_hook",
        _HOOK,
    ),
    "compile": "Write predict = gp.compile(model).",
    "share_memory": "Ranks share a step's batches: gp.compile_step(..., communicator=...).",
}
OPTIMIZER: Mapping[str, str] = {
    **_each("zero_grad step", _STEP),
    "register_step_post_hook": _HOOK,
    "register_step_pre_hook": _HOOK,
}
PACKAGE: Mapping[str, str] = {
    **_each("no_grad enable_grad inference_mode set_grad_enabled", _NO_GRAD),
    **_each("tensor Tensor FloatTensor LongTensor as_tensor from_numpy", _NUMBERS),
    **_each("rand randn randint randperm empty", _NUMBERS),
    **_each("save load", _FILES),
    **_each("device cuda set_default_device", _DEVICE),
    **_each("autograd", _GRADIENT),
    **_each("utils DataLoader", _LOADER),
    **_each("float16 half bfloat16 amp autocast", _HALF),
    **_each("float32 float64 int32 int64 long bool", "Write np.float32, or its name as a text."),
    "functional": "Write import gpubp.nn.functional as F.",
}
OPS: Mapping[str, str] = {
    **PACKAGE,
    "take_along_axis": "Write gp.ops.gather_along(x, axis, indices), which is torch's gather.",
    "take": "Write gp.ops.gather(x, indices, axis).",
    "scan": "Write gp.scan.",
}
DATA: Mapping[str, str] = _each(
    "DataLoader Dataset TensorDataset IterableDataset Subset random_split default_collate", _LOADER
)


def asked_of_to(*args: Any, **kwargs: Any) -> Any:
    """The dtype, not checked, that the arguments of torch's `to` ask for; None if they
    name the CPU alone.

    Args:
        *args, **kwargs: a dtype of NumPy's or torch's, its name, an array of that dtype, a device.

    Raises:
        DataError: a device that is not the CPU. DTypeError: a dtype that gpubp has not.
    """
    options = ("non_blocking", "copy", "memory_format")
    given = [*args, *(v for k, v in kwargs.items() if k not in options)]
    found = None
    for value in [v for v in given if v is not None and not isinstance(v, bool)]:
        kind = getattr(value, "dtype", None) if hasattr(value, "shape") else None
        text = str(value if kind is None else kind).removeprefix("torch.")
        if text.partition(":")[0] in ("cuda", "xpu", "mps", "meta"):
            raise DataError(f"to({text!r}): {_DEVICE}\n(see {PAGE}).")
        if text in ("float16", "half", "bfloat16"):
            raise DTypeError(f"to({text}): {_HALF}\n(see {PAGE}).")
        if text.partition(":")[0] != "cpu":
            found = value if isinstance(value, type) else text
    return found


def missing(owner: object, what: str, name: str, hints: Mapping[str, str]) -> UnknownAttributeError:
    """The error for a name that is not there, with the lines to write instead if they are known.

    Args:
        owner: what was asked; Python names its nearest attribute.
        what: the owner in words.
        name: what was looked for.
        hints: name -> lines to write.
    """
    text = f"{what} has no attribute {name!r}."
    found = hints.get(name)
    if found is None and name.endswith("_") and not name.startswith("_") and hints is not MODULE:
        found = _IN_PLACE.replace("{plain}", name.rstrip("_"))
    if found is not None:
        text += f" {found}" + (f"\n(see {PAGE})." if "\n" in found else "")
    return UnknownAttributeError(text, name=name, obj=owner)


class Stepless:
    """An optimiser: its steps are taken by compiled programs, so it has no `step` of its own."""

    def __getattr__(self, name: str) -> Any:
        raise missing(self, type(self).__name__, name, OPTIMIZER)
