"""PyTorch's own database of modules, translated: outputs, gradients and buffers are torch's."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from tolerances import ORACLE

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
from torch.testing._internal.common_modules import module_db  # noqa: E402

import gpubp as gp  # noqa: E402
import gpubp.torch  # noqa: E402
from gpubp.errors import TraceError  # noqa: E402
from gpubp.torch.translated import Translated  # noqa: E402

torch.set_num_threads(1)

pytestmark = [pytest.mark.oracle, pytest.mark.full]

TOLERANCE = ORACLE["float64"]
# Why a module, or an input of one, is refused or not compared.
REFUSED = {
    "CTCLoss": "torch's gradient by logarithms is not their derivative: see test_torch_ctc.py",
    "MultiLabelMarginLoss": "without a batch torch traces another shape than it computes",
    "Dropout": "draws numbers of its own",
    "RReLU": "draws numbers of its own",
    "FractionalMaxPool": "draws numbers of its own",
}

# Modules of which some inputs are refused, with what the error says: torch's own code looks at
# numbers there (masks that may become nested tensors), or has a backward of its own.
SOME_REFUSED = {
    "LinearCrossEntropyLoss": "an autograd function with a backward of its own",
    "Transformer": "depends on the numbers in a tensor",
    "TransformerEncoder": "depends on the numbers in a tensor",
}


def _samples(info: Any) -> Iterator[Any]:
    """(module, arguments) in float64, in train mode and where it differs in eval mode."""
    for training in [True, False] if info.train_and_eval_differ else [True]:
        torch.manual_seed(0)
        for given in info.module_inputs_func(
            info, device="cpu", dtype=torch.float64, requires_grad=True, training=training
        ):
            made = given.constructor_input
            module = info.module_cls(*made.args, **made.kwargs).double().train(training)
            call = inspect.signature(info.module_cls.forward).bind(
                None, *given.forward_input.args, **given.forward_input.kwargs
            )
            args = [_leaf(a) for a in call.args[1:]]
            if info.is_lazy:
                with torch.no_grad():
                    module(*copy.deepcopy(args), **call.kwargs)
            yield module, args, call.kwargs


def _leaf(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.detach().clone().requires_grad_(value.requires_grad)


def _first(result: Any) -> Any:
    return _first(result[0]) if isinstance(result, (tuple, list)) else result


def _flat(result: Any) -> list[Any]:
    if isinstance(result, (tuple, list)):
        return [leaf for part in result if part is not None for leaf in _flat(part)]
    return [result]


def _check(module: Any, args: list[Any], options: dict[str, Any]) -> None:
    twin = copy.deepcopy(module)
    places = [i for i, a in enumerate(args) if isinstance(a, torch.Tensor)]
    floats = [i for i in places if args[i].requires_grad]

    def called(model: Any, *tensors: Any) -> Any:
        given = list(args)
        for i, tensor in zip(places, tensors, strict=True):
            given[i] = tensor
        return model(*given, **options)

    inputs = [args[i].detach().clone().requires_grad_(i in floats) for i in places]
    expected = _flat(called(twin, *inputs))
    translated = Translated([module], lambda *tensors: called(module, *tensors))
    arrays = [args[i].detach().numpy() for i in places]
    compiled = gp.compile(lambda *xs: tuple(_flat(translated(*xs))), backend="numpy")
    found = _flat(compiled(*arrays))
    for actual, wanted in zip(found, expected, strict=True):
        _assert_close(actual, wanted.detach().numpy())
    for name, buffer in twin.named_buffers():
        _assert_close(translated.slots[f"models.0.{name}"].value, buffer.numpy())
    if expected[0].requires_grad:
        _check_gradients(translated, twin, expected[0], inputs, arrays)


def _check_gradients(translated: Any, twin: Any, out: Any, inputs: Any, arrays: Any) -> None:
    cotangent = np.random.default_rng(1).standard_normal(tuple(out.shape))
    wrt = [x for x in inputs if x.requires_grad] + list(twin.parameters())
    given = torch.autograd.grad(out, wrt, torch.from_numpy(np.array(cotangent)), allow_unused=True)
    slots = [gp.nn.Parameter(a) if x.requires_grad else a for a, x in zip(arrays, inputs)]
    own = {id(p): translated.slots[f"models.0.{n}"] for n, p in twin.named_parameters()}
    params = [s for s in slots if isinstance(s, gp.nn.Parameter)] + list(own.values())

    def loss(unused: Any) -> Any:
        result = _first(
            translated(*[s * 1.0 if isinstance(s, gp.nn.Parameter) else s for s in slots])
        )
        used = sum(gp.ops.sum(p * 0.0) for p in params)
        return gp.ops.sum(gp.ops.multiply(result, cotangent)) + used + 0.0 * gp.ops.sum(unused)

    step = gp.compile_step(loss, gp.optim.SGD(params, lr=0.0), backend="numpy", keep_grads=True)
    step(np.zeros(1))
    for actual, wanted in zip(step.grads, given, strict=True):
        expected = np.zeros_like(actual) if wanted is None else wanted.numpy()
        known = np.isfinite(expected)  # elsewhere torch's goes through what the loss leaves out
        _assert_close(actual[known], expected[known])


def _assert_close(actual: Any, expected: Any) -> None:
    actual = np.asarray(actual)
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    finite = np.isfinite(expected) if expected.dtype.kind == "f" else np.ones(expected.shape, bool)
    np.testing.assert_array_equal(actual[~finite], expected[~finite])
    error = np.abs(actual[finite] * 1.0 - expected[finite]).max(initial=0.0)
    assert error <= TOLERANCE * np.abs(expected[finite]).max(initial=0.0)


INFOS = [i for i in module_db if not any(r in i.module_cls.__name__ for r in REFUSED)]


@pytest.mark.parametrize("info", INFOS, ids=lambda i: i.module_cls.__name__)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_a_module_translated_equals_torch(info: Any) -> None:
    for module, args, options in _samples(info):
        if module.training and "BatchNorm" in type(module).__name__ and 0 in args[0].shape:
            with pytest.raises(TraceError, match="more than one value"):
                _check(module, args, options)
            continue
        said = SOME_REFUSED.get(type(module).__name__)
        try:
            with np.errstate(all="ignore"):
                _check(module, args, options)
        except TraceError as error:
            if said is None or said not in str(error):
                raise
