"""PyTorch's own database of modules and inputs, each as a pair of modules with equal state.

Comes in: `torch.testing._internal.common_modules.module_db` of PyTorch 2.13. Goes out: for each
module that gpubp has, its inputs with the module of either library; and for the others why not.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.testing._internal.common_modules import ModuleInfo, module_db

from gpubp import nn

# Arguments of torch that say where and how, not what.
_PASSED_OVER = ("device", "dtype", "inplace", "size_average", "reduce")

_NOT_DENSE = "convolution, pooling, padding and images are not part of gpubp"
REASONS = {
    **dict.fromkeys(("Conv", "Pool", "Pad", "Lazy", "2d", "3d", "InstanceNorm"), _NOT_DENSE),
    **dict.fromkeys(("RNN", "GRU", "LSTM"), "recurrent layers are not part of gpubp yet"),
    **dict.fromkeys(("Transformer", "Attention"), "attention is not part of gpubp yet"),
    "LocalResponseNorm": _NOT_DENSE,
    "GroupNorm": "not part of gpubp yet",
    "CTCLoss": "a loss of sequences, not part of gpubp",
    "MultiLabelMarginLoss": "not part of gpubp yet",
    "LinearCrossEntropyLoss": "Linear and CrossEntropyLoss in one: gpubp fuses the two by itself",
}


@dataclass
class Sample:
    """One input of the database.

    Attributes:
        label: torch's description.
        mine, theirs: the modules, with equal state, in the same mode.
        args: the arguments of `forward`, as torch gives them.
        dtype: float32 or float64.
        state_names: (mine, theirs), the names and shapes of the state as they were made.
    """

    label: str
    mine: nn.Module
    theirs: Any
    args: list[Any]
    dtype: str
    state_names: tuple[Any, ...]


def name_of(info: ModuleInfo) -> str:
    """`Linear`, without the path."""
    return str(info.module_cls.__name__)


def supported() -> list[ModuleInfo]:
    """The modules that gpubp has."""
    return [info for info in module_db if hasattr(nn, name_of(info))]


def unsupported() -> dict[str, str]:
    """Every other module and the reason; a KeyError where none is known."""
    names = [name_of(info) for info in module_db if not hasattr(nn, name_of(info))]
    return {name: next(REASONS[key] for key in REASONS if key in name) for name in names}


def modes(info: ModuleInfo) -> list[bool]:
    """Whether to train: both where that makes a difference."""
    return [True, False] if info.train_and_eval_differ else [True]


def samples(info: ModuleInfo, dtype: str, training: bool) -> Iterator[Sample]:
    """All inputs of a module; the same numbers at each call."""
    torch.manual_seed(0)
    kind = getattr(torch, dtype)
    inputs = info.module_inputs_func(
        info, device="cpu", dtype=kind, requires_grad=True, training=training
    )
    for i, given in enumerate(inputs):
        made = given.constructor_input
        theirs = info.module_cls(*made.args, **made.kwargs).to(kind).train(training)
        mine = _twin(info.module_cls, made.args, made.kwargs, dtype).train(training)
        layouts = _layouts(mine, theirs)
        label = f"{name_of(info)} {i} {given.desc} {'train' if training else 'eval'} {dtype}"
        mine.load_state_dict(numbers(theirs))
        args = _in_order(info.module_cls, given.forward_input)
        yield Sample(label, mine, theirs, args, dtype, layouts)


def _layouts(*modules: Any) -> tuple[Any, ...]:
    """Names and shapes of each module's state."""
    return tuple([(k, tuple(v.shape)) for k, v in m.state_dict().items()] for m in modules)


def _in_order(cls: Any, given: Any) -> list[Any]:
    """All arguments by position: their names differ from gpubp's."""
    bound = inspect.signature(cls.forward).bind(None, *given.args, **given.kwargs)
    return list(bound.args[1:])


def numbers(module: Any) -> dict[str, Any]:
    """A torch module's state as NumPy arrays."""
    return {k: v.detach().numpy().copy() for k, v in module.state_dict().items()}


def _twin(cls: Any, args: Any, kwargs: Any, dtype: str) -> nn.Module:
    given = inspect.signature(cls.__init__).bind(None, *args, **kwargs).arguments
    given = {k: v for k, v in given.items() if k != "self" and k not in _PASSED_OVER}
    options = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in given.items()}
    mine = getattr(nn, cls.__name__)
    if "dtype" in inspect.signature(mine.__init__).parameters:
        options["dtype"] = dtype
    return mine(**options)


def as_array(value: Any) -> Any:
    """A tensor's numbers."""
    return np.array(value.detach().numpy())


def extra(dtype: str) -> Iterator[Sample]:
    """Options and values that the database leaves out."""
    rng = np.random.default_rng(3)
    kind = getattr(torch, dtype)
    x, z = (torch.from_numpy(rng.standard_normal((6, 4))).to(kind) for _ in range(2))
    p, q = x.softmax(1), z.softmax(1)
    hot = torch.eye(4, dtype=kind)[torch.from_numpy(rng.integers(0, 4, 6))]
    labels, sign = hot.argmax(1), 1 - 2 * (z > 0).to(kind)
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=kind)
    both = {"weight": weight, "label_smoothing": 0.2}
    cases: list[tuple[str, dict[str, Any], list[Any]]] = [
        *[("KLDivLoss", {"reduction": r}, [p.log(), q]) for r in ("batchmean", "sum", "none")],
        ("KLDivLoss", {"log_target": True}, [p.log(), q.log()]),
        ("KLDivLoss", {"reduction": "batchmean"}, [p.log(), hot]),
        ("HuberLoss", {"delta": 0.3}, [x, z]),
        *[("SmoothL1Loss", {"beta": b}, [x, z]) for b in (0.3, 0.0)],
        ("GaussianNLLLoss", {"full": True, "eps": 0.2}, [x, z, p]),
        ("GaussianNLLLoss", {"reduction": "none"}, [x, z, p[:, 0]]),
        ("BCELoss", {"weight": weight}, [p, q]),
        ("BCEWithLogitsLoss", {"pos_weight": weight, "weight": weight}, [30 * x, q]),
        ("CrossEntropyLoss", {**both, "ignore_index": 2}, [x, labels]),
        ("CrossEntropyLoss", {**both, "ignore_index": 2, "reduction": "none"}, [x, labels]),
        ("CrossEntropyLoss", {**both, "reduction": "sum"}, [x, labels]),
        ("CrossEntropyLoss", both, [x, q]),
        ("NLLLoss", {}, [p[0].log(), labels[0]]),
        *[("MultiMarginLoss", {"p": n, "margin": 0.3}, [x, labels]) for n in (1, 2)],
        ("MultiMarginLoss", {"weight": weight}, [x[0], labels[0]]),
        ("CosineEmbeddingLoss", {"margin": 0.2}, [x[0], z[0], sign[0, 0]]),
        ("MarginRankingLoss", {"margin": 0.4}, [x, z, sign]),
        ("SoftMarginLoss", {"reduction": "sum"}, [x, sign]),
        ("MultiLabelSoftMarginLoss", {}, [30 * x, q]),
        ("BatchNorm1d", {"num_features": 4, "momentum": 1.0}, [x]),
        ("LayerNorm", {"normalized_shape": [6, 4]}, [x]),
        ("RMSNorm", {"normalized_shape": 4}, [x]),
        ("Embedding", {"num_embeddings": 4, "embedding_dim": 3, "padding_idx": 1}, [labels]),
        ("Softmin", {"dim": 0}, [x]),
        ("Softplus", {"beta": 3.0, "threshold": 1.0}, [x]),
    ]
    for name, options, args in cases:
        theirs = getattr(torch.nn, name)(**options).to(kind)
        mine = _twin(getattr(torch.nn, name), (), options, dtype)
        layouts = _layouts(mine, theirs)
        mine.load_state_dict(numbers(theirs))
        given = [a.detach() for a in args]
        if given[0].is_floating_point():
            given[0].requires_grad_()
        yield Sample(f"{name} {options}", mine, theirs, given, dtype, layouts)
