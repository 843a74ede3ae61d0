"""A network of modules, in PyTorch or in gpubp: their `nn` have the same names and arguments."""

from __future__ import annotations

from typing import Any

from common.nets import (
    Activation,
    Attend,
    Conv,
    EachPosition,
    Factors,
    Flatten,
    LastNorm,
    Layer,
    Linear,
    MaxPool,
    MeanPool,
    Network,
    Norm,
    Recurrent,
    Residual,
    Shape,
    Symbols,
    shape_after,
)

_ACTIVATIONS = {"relu": "ReLU", "sigmoid": "Sigmoid", "tanh": "Tanh", "gelu": "GELU"}


def make_model(nn: Any, network: Network, shape: Shape) -> Any:
    """The network as an `nn.Sequential`.

    Args:
        nn: `torch.nn` or `gpubp.nn`.
        network: what to build.
        shape: of one sample.
    """
    modules: list[Any] = []
    for layer in network:
        modules += _modules(nn, layer, shape)
        shape = shape_after(layer, shape)
    return nn.Sequential(*modules)


def _modules(nn: Any, layer: Layer, shape: Shape) -> list[Any]:
    match layer:
        case Linear(outputs):
            return [nn.Linear(shape[-1], outputs)]
        case Conv(channels, kernel, stride, padding, bias):
            return [nn.Conv2d(shape[0], channels, kernel, stride, padding, bias=bias)]
        case Norm():
            return [nn.BatchNorm2d(shape[0])]
        case Activation(name):
            return [getattr(nn, _ACTIVATIONS[name])()]
        case MaxPool(size):
            return [nn.MaxPool2d(size)]
        case MeanPool():
            return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        case Flatten():
            return [nn.Flatten()]
        case Symbols(count, width):
            return [_symbols(nn, count, *shape, width)]
        case Attend(heads, hidden):
            return [_attend(nn, shape, heads, hidden)]
        case LastNorm():
            return [nn.LayerNorm(shape[-1])]
        case EachPosition():
            return [nn.Flatten(0, 1)]
        case Recurrent(kind, hidden):
            return [_recurrent(nn, getattr(nn, kind)(shape[1], hidden, batch_first=True))]
        case Factors(users, items, width):
            return [_factors(nn, users, items, width)]
        case Residual(body, shortcut):
            return [_residual(nn, *(make_model(nn, b, shape) for b in (body, shortcut)))]


def _residual(nn: Any, body: Any, shortcut: Any) -> Any:
    class ResidualModule(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.body, self.shortcut = body, shortcut

        def forward(self, x: Any) -> Any:
            return self.body(x) + self.shortcut(x)

    return ResidualModule()


def _symbols(nn: Any, count: int, length: int, width: int) -> Any:
    class SymbolsModule(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.symbols, self.places = nn.Embedding(count, width), nn.Embedding(length, width)

        def forward(self, x: Any) -> Any:
            return self.symbols(x) + self.places.weight

    return SymbolsModule()


def _factors(nn: Any, users: int, items: int, width: int) -> Any:
    class FactorsModule(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.users, self.items = nn.Embedding(users, width), nn.Embedding(items, width)
            self.of_user, self.of_item = nn.Embedding(users, 1), nn.Embedding(items, 1)

        def forward(self, x: Any) -> Any:
            user, item = x[:, 0], x[:, 1]
            biases = self.of_user(user) + self.of_item(item)
            return (self.users(user) * self.items(item)).sum(-1) + biases[:, 0]

    return FactorsModule()


def _attend(nn: Any, shape: Shape, heads: int, hidden: int) -> Any:
    length, width = shape
    mask = nn.Transformer.generate_square_subsequent_mask(length)

    class AttendModule(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            options = {"batch_first": True, "norm_first": True}
            self.layer = nn.TransformerEncoderLayer(width, heads, hidden, 0.0, "gelu", **options)

        def forward(self, x: Any) -> Any:
            # Without weights PyTorch takes its fused causal attention, and never reads the mask.
            return self.layer(x, src_mask=mask, is_causal=True)

    return AttendModule()


def _recurrent(nn: Any, layer: Any) -> Any:
    class LastState(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Any) -> Any:
            _, state = self.layer(x)
            return (state[0] if isinstance(state, tuple) else state)[0]

    return LastState()
