"""PyTorch's own database of modules and inputs, each as a pair of modules with equal state.

Comes in: `torch.testing._internal.common_modules.module_db` of PyTorch 2.13. Goes out: for each
module that gpubp has, its inputs with the module of either library; and for the others why not.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import attention_cases
import numpy as np
import torch
from torch.testing._internal.common_modules import ModuleInfo, module_db

from gpubp import nn

# Arguments of torch that say where and how, not what.
_PASSED_OVER = ("device", "dtype", "inplace", "size_average", "reduce", "options")

REASONS = {
    "CTCLoss": "torch's gradient by logarithms is not their derivative: see test_torch_ctc.py",
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
    return [info for info in module_db if _is_here(info)]


def _is_here(info: ModuleInfo) -> bool:
    return hasattr(nn, name_of(info)) and name_of(info) != "CTCLoss"


def unsupported() -> dict[str, str]:
    """Every other module and the reason; a KeyError where none is known."""
    names = [name_of(info) for info in module_db if not _is_here(info)]
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
        if made.kwargs.get("options") is not None:
            continue  # how torch cuts the work in pieces
        theirs = info.module_cls(*made.args, **made.kwargs).to(kind).train(training)
        mine = _twin(info.module_cls, made.args, made.kwargs, dtype).train(training)
        args = _in_order(info.module_cls, given.forward_input)
        if info.is_lazy:
            _call_once(mine, theirs, args)
        layouts = _layouts(mine, theirs)
        label = f"{name_of(info)} {i} {given.desc} {'train' if training else 'eval'} {dtype}"
        mine.load_state_dict(numbers(theirs))
        yield Sample(label, mine, theirs, args, dtype, layouts)


def _call_once(mine: nn.Module, theirs: Any, args: list[Any]) -> None:
    """Let lazy modules find their sizes; other state stays as it is."""
    with torch.no_grad():
        theirs(*args)
    mine(*with_arrays(args, arrays_of(args)))


def _layouts(*modules: Any) -> tuple[Any, ...]:
    """Names and shapes of each module's state."""
    return tuple([(k, tuple(v.shape)) for k, v in m.state_dict().items()] for m in modules)


def _in_order(cls: Any, given: Any) -> list[Any]:
    """All arguments by position: their names differ from gpubp's."""
    bound = inspect.signature(cls.forward).bind(None, *given.args, **given.kwargs)
    bound.apply_defaults()
    return list(bound.args[1:])


def doubled(sample: Sample) -> Sample:
    """The same input in float64, of torch's module alone."""
    given = [
        a.detach().double().requires_grad_(a.requires_grad) if a.is_floating_point() else a
        for a in tensors_of(sample.args)
    ]
    args = with_arrays(sample.args, given)
    return replace(sample, theirs=copy.deepcopy(sample.theirs).double(), args=args, dtype="float64")


def tensors_of(args: Iterable[Any]) -> list[Any]:
    """The tensors among the arguments, and in tuples among them."""
    found = [tensors_of(a) if isinstance(a, tuple) else [a] for a in args]
    return [a for part in found for a in part if isinstance(a, torch.Tensor)]


def arrays_of(args: list[Any]) -> list[Any]:
    """The numbers of the tensors among the arguments."""
    return [as_array(a) for a in tensors_of(args)]


def with_arrays(args: Iterable[Any], arrays: Iterable[Any]) -> list[Any]:
    """The arguments with other arrays in place of tensors; options stay."""
    remaining = iter(arrays)
    return [
        tuple(with_arrays(a, remaining))
        if isinstance(a, tuple)
        else next(remaining)
        if isinstance(a, torch.Tensor)
        else a
        for a in args
    ]


def looks(module: Any) -> str:
    """A torch module's `repr`, without what gpubp has not."""
    text = repr(module).replace("NonDynamicallyQuantizableLinear", "Linear")
    return text.replace(", inplace=False", "") if ", inplace" in text else text


def numbers(module: Any) -> dict[str, Any]:
    """A torch module's state as NumPy arrays."""
    return {k: v.detach().numpy().copy() for k, v in module.state_dict().items()}


def _twin(cls: Any, args: Any, kwargs: Any, dtype: str) -> nn.Module:
    given = inspect.signature(cls.__init__).bind(None, *args, **kwargs).arguments
    given.update(given.pop("kwargs", {}))
    given = {k: v for k, v in given.items() if k != "self" and k not in _PASSED_OVER}
    options = {k: _held(v, dtype) for k, v in given.items()}
    mine = getattr(nn, cls.__name__)
    if "dtype" in inspect.signature(mine.__init__).parameters:
        options["dtype"] = dtype
    return mine(**options)


def _held(value: Any, dtype: str) -> Any:
    """What a module keeps: of a tensor the numbers, gpubp's own functions and layers."""
    if isinstance(value, torch.nn.TransformerEncoderLayer):
        return _layer_twin(value, dtype)
    if isinstance(value, torch.nn.Module):
        return getattr(nn, type(value).__name__)()
    if callable(value):
        return getattr(nn.functional, value.__name__)
    if not isinstance(value, torch.Tensor):
        return value
    return value.to(getattr(torch, dtype)).numpy() if value.is_floating_point() else value.numpy()


def _layer_twin(layer: Any, dtype: str) -> nn.Module:
    attention = layer.self_attn
    sizes = attention.embed_dim, attention.num_heads, layer.linear1.out_features, layer.dropout.p
    options = layer.norm1.eps, attention.batch_first, layer.norm_first
    bias = layer.linear1.bias is not None
    activation = _held(layer.activation, dtype)
    return nn.TransformerEncoderLayer(*sizes, activation, *options, bias, dtype)


def as_array(value: Any) -> Any:
    """A tensor's numbers."""
    return np.array(value.detach().numpy())


# Layers that the database does not have, and options of others, by images (2, 4, 5, 6).
_OF_IMAGES: list[tuple[str, dict[str, Any]]] = [
    ("ConstantPad2d", {"padding": (-1, 2, 3, -2), "value": 1.5}),
    ("ZeroPad2d", {"padding": (-1, 0, 2, 1)}),
    ("ReflectionPad2d", {"padding": (-1, 5, 4, 0)}),
    ("ReplicationPad2d", {"padding": (7, -2, 0, 3)}),
    ("CircularPad2d", {"padding": (6, 0, 0, 5)}),
    ("Upsample", {"scale_factor": 1.7}),
    ("Upsample", {"size": (7, 3), "mode": "bilinear"}),
    ("Upsample", {"size": (7, 3), "mode": "bicubic", "align_corners": True}),
    ("Upsample", {"scale_factor": (1.5, 0.6), "mode": "bilinear"}),
    ("UpsamplingNearest2d", {"size": (3, 13)}),
    ("UpsamplingBilinear2d", {"scale_factor": 2}),
    ("PixelShuffle", {"upscale_factor": 2}),
    ("PixelUnshuffle", {"downscale_factor": 1}),
    ("ChannelShuffle", {"groups": 2}),
    ("Unfold", {"kernel_size": (2, 3), "dilation": (2, 1), "padding": 1, "stride": (1, 2)}),
    ("LocalResponseNorm", {"size": 2, "alpha": 0.7, "beta": 0.6, "k": 1.5}),
    ("LocalResponseNorm", {"size": 9}),
    # Of smaller sizes torch keeps channel 0 in every later window, of odd ones its gradient is
    # that of a window beside the right one: tests/test_images.py holds these to the formula.
    ("CrossMapLRN2d", {"size": 8, "alpha": 0.7}),
    ("Softmax2d", {}),
]


def extra(dtype: str) -> Iterator[Sample]:
    """Options and values that the database leaves out."""
    rng = np.random.default_rng(3)
    kind = getattr(torch, dtype)
    x, z = (torch.from_numpy(rng.standard_normal((6, 4))).to(kind) for _ in range(2))
    p, q = x.softmax(1), z.softmax(1)
    hot = torch.eye(4, dtype=kind)[torch.from_numpy(rng.integers(0, 4, 6))]
    labels, sign = hot.argmax(1), 1 - 2 * (z > 0).to(kind)
    images = torch.from_numpy(rng.standard_normal((2, 4, 5, 6))).to(kind)
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=kind)
    both = {"weight": weight, "label_smoothing": 0.2}
    several = torch.tensor([[1, 3, -1, 0], [0, 1, 2, 3], [-1, 0, 1, 2]] * 2)
    starts, bags = torch.tensor([0, 2, 2, 5]), {"num_embeddings": 4, "embedding_dim": 3}
    bags["padding_idx"] = 1
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
        *[("PairwiseDistance", {"p": n, "keepdim": n > 2}, [x, z]) for n in (1.0, 2.0, 3.0)],
        *[("CosineSimilarity", {"dim": d}, [x, z]) for d in (0, 1)],
        *[("TripletMarginLoss", {"swap": s, "p": 1.0 + s}, [x, z, p]) for s in (True, False)],
        ("MultiLabelMarginLoss", {"reduction": "none"}, [x, several]),
        ("MultiLabelMarginLoss", {}, [x[0], several[0]]),
        *[("EmbeddingBag", {**bags, "mode": m}, [labels.reshape(2, 3)]) for m in _MODES],
        *[("EmbeddingBag", {**bags, "mode": m}, [labels, starts]) for m in _MODES],
        ("EmbeddingBag", {**bags, "mode": "sum"}, [labels, starts, x[:, 0]]),
        ("EmbeddingBag", {**bags, "include_last_offset": True}, [labels, starts]),
        ("MultiLabelSoftMarginLoss", {}, [30 * x, q]),
        ("BatchNorm1d", {"num_features": 4, "momentum": 1.0}, [x]),
        ("LayerNorm", {"normalized_shape": [6, 4]}, [x]),
        ("RMSNorm", {"normalized_shape": 4}, [x]),
        ("RMSNorm", {"normalized_shape": 4}, [0.0 * x]),  # without eps: the machine's
        ("RMSNorm", {"normalized_shape": [6, 4], "eps": 0.1}, [x]),
        ("RMSNorm", {"normalized_shape": 4, "elementwise_affine": False}, [1e-18 * x]),
        ("Embedding", {"num_embeddings": 4, "embedding_dim": 3, "padding_idx": 1}, [labels]),
        ("Softmin", {"dim": 0}, [x]),
        ("Softplus", {"beta": 3.0, "threshold": 1.0}, [x]),
        *[(name, options, [images]) for name, options in _OF_IMAGES],
        ("Fold", {"output_size": (3, 4), "kernel_size": 2}, [images.reshape(2, 20, 6)]),
    ]
    for name, options, args in cases:
        yield _pair(name, options, [a.detach() for a in args], dtype, True)


def extra_images(dtype: str) -> Iterator[Sample]:
    """Layers of images with options that the database leaves out, in train and in eval mode."""
    rng = np.random.default_rng(4)
    kind = getattr(torch, dtype)
    sizes = {1: (7,), 2: (7, 6), 3: (5, 4, 6)}
    x = {
        n: torch.from_numpy(rng.standard_normal((3, 4, *size)) + 2.0).to(kind)
        for n, size in sizes.items()
    }
    kept = {"affine": True, "track_running_stats": True}
    for n, name, options in [
        *[(n, f"Conv{n}d", {**_CONV, **o}) for n in x for o in _CONVS],
        *[(n, f"ConvTranspose{n}d", {**_CONV, **o}) for n in x for o in _TRANSPOSED],
        *[(n, f"InstanceNorm{n}d", {"num_features": 4, **kept, "momentum": 0.3}) for n in x],
        (2, "InstanceNorm2d", {"num_features": 4, **kept, "momentum": None}),
        *[(n, f"BatchNorm{n}d", {"num_features": 4, "momentum": None}) for n in x],
        *[(n, "GroupNorm", {"num_groups": 2, "num_channels": 4}) for n in x],
    ]:
        for training in (True, False) if "Norm" in name else (True,):
            yield _pair(name, options, [x[n].clone()], dtype, training)


_MODES = ("sum", "mean", "max")
_CONV = {"in_channels": 4, "out_channels": 6, "kernel_size": 3}
_CONVS: list[dict[str, Any]] = [
    {"stride": 2, "padding": 1, "groups": 2},
    {"padding": "same", "kernel_size": 2},
    {"padding": "same", "kernel_size": 4, "dilation": 2, "padding_mode": "replicate"},
    {"padding": "valid", "dilation": 2, "kernel_size": 2},
    {"padding": 2, "padding_mode": "reflect", "bias": False},
    {"padding": 3, "padding_mode": "circular", "stride": 2},
    {"padding": 1, "groups": 4, "out_channels": 8},
]
_TRANSPOSED: list[dict[str, Any]] = [
    {"stride": 2, "padding": 1, "output_padding": 1},
    {"stride": 3, "output_padding": 2, "kernel_size": 2, "groups": 2},
    {"dilation": 3, "output_padding": 2, "padding": 2, "bias": False},
]


def extra_attention(dtype: str) -> Iterator[Sample]:
    """Attention and transformers, in batches and with masks of every kind."""
    for name, options, args in attention_cases.cases(getattr(torch, dtype)):
        yield _pair(name, options, args, dtype, True)


def _pair(
    name: str, options: dict[str, Any], args: list[Any], dtype: str, training: bool
) -> Sample:
    """Two modules with the same options and state; the first argument has a gradient."""
    theirs = getattr(torch.nn, name)(**options).to(getattr(torch, dtype)).train(training)
    mine = _twin(getattr(torch.nn, name), (), options, dtype).train(training)
    layouts = _layouts(mine, theirs)
    for buffer in theirs.buffers():
        if buffer.is_floating_point():
            buffer += torch.rand_like(buffer)
    mine.load_state_dict(numbers(theirs))
    if args[0].is_floating_point() and args[0].is_leaf:
        args[0].requires_grad_()
    label = f"{name} {options} {'train' if training else 'eval'}"
    return Sample(label, mine, theirs, args, dtype, layouts)
