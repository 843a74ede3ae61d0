"""Small torch programs, as people write them: what `gpubp.torch` trains in place.

Each is a model, a loss, an optimiser and batches; nothing in them knows gpubp.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it
from torch import nn

SAMPLES, BATCH = 24, 8


@dataclass
class Program:
    """One of them.

    Attributes:
        model: makes it.
        loss: of (outputs, target).
        optimizer: of a model.
        data: inputs and target, samples first.
    """

    model: Callable[[], nn.Module]
    loss: Callable[..., Any]
    optimizer: Callable[[nn.Module], Any]
    data: Callable[[], tuple[Any, ...]]


class Recurrent(nn.Module):
    """A layer over sequences, and a class from its last output."""

    def __init__(self, kind: Any, **options: Any) -> None:
        super().__init__()
        self.body = kind(5, 6, batch_first=True, **options)
        self.head = nn.Linear(6 * (1 + self.body.bidirectional), 3)

    def forward(self, x: Any) -> Any:
        out, _ = self.body(x)
        return self.head(out[:, -1])


class Transformer(nn.Module):
    """Letters to letters, each seeing those before it."""

    def __init__(self, symbols: int = 7, width: int = 8, length: int = 6) -> None:
        super().__init__()
        self.letters = nn.Embedding(symbols, width)
        self.places = nn.Parameter(torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, 2, 16, 0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, symbols)

    def forward(self, x: Any) -> Any:
        mask = nn.Transformer.generate_square_subsequent_mask(x.size(1))
        return self.head(self.body(self.letters(x) + self.places, mask=mask, is_causal=True))


class BagOfWords(nn.Module):
    """Means of embeddings, where words are not padding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 6, padding_idx=0)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Any) -> Any:
        known = (x != 0).unsqueeze(-1)
        total = (self.words(x) * known).sum(1)
        return self.head(total / known.sum(1).clamp(min=1))


class Autoencoder(nn.Module):
    """Through a narrow middle, with the decoder's weights tied to the encoder's."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.encoder = nn.Linear(6, 3)
        self.decoder = nn.Linear(3, 6)
        self.bias = nn.Parameter(torch.zeros(6)) if tied else None

    def forward(self, x: Any) -> Any:
        code = torch.sigmoid(self.encoder(x))
        if self.bias is None:
            return self.decoder(code)
        return F.linear(code, self.encoder.weight.t(), self.bias)


class TiedLanguageModel(nn.Module):
    """One matrix for words in and words out."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 6)
        self.body = nn.GRU(6, 6, batch_first=True)
        self.head = nn.Linear(6, 9, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: Any) -> Any:
        return self.head(self.body(self.words(x))[0])


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3),
        nn.BatchNorm2d(6),
        nn.SiLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


def partly_frozen() -> nn.Module:
    model = mlp()
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    return model


def _labels(*shape: int) -> Any:
    return torch.randint(0, 3, (SAMPLES, *shape))


def _words(symbols: int, length: int) -> Any:
    return torch.randint(0, symbols, (SAMPLES, length))


def next_letter(outputs: Any, target: Any) -> Any:
    return F.cross_entropy(outputs.reshape(-1, outputs.size(-1)), target.reshape(-1))


def _of(name: str, **options: Any) -> Callable[[nn.Module], Any]:
    return lambda model: getattr(torch.optim, name)(model.parameters(), **options)


def _two_groups(model: Any) -> Any:
    return torch.optim.AdamW(
        [
            {"params": model[0].parameters(), "lr": 1e-3, "weight_decay": 0.0},
            {"params": [p for part in model[1:] for p in part.parameters()]},
        ],
        lr=1e-2,
    )


PROGRAMS = {
    "mlp": Program(mlp, nn.CrossEntropyLoss(), _of("Adam", lr=1e-2), lambda: (
        torch.randn(SAMPLES, 6), _labels())),
    "mlp, two groups": Program(mlp, nn.CrossEntropyLoss(label_smoothing=0.1), _two_groups, lambda: (
        torch.randn(SAMPLES, 6), _labels())),
    "convolutional": Program(
        convolutional, nn.CrossEntropyLoss(),
        _of("SGD", lr=0.05, momentum=0.9, weight_decay=1e-3, nesterov=True),
        lambda: (torch.randn(SAMPLES, 1, 8, 8), _labels())),
    "lstm": Program(
        lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), nn.CrossEntropyLoss(),
        _of("AdamW", lr=1e-2), lambda: (torch.randn(SAMPLES, 5, 5), _labels())),
    "gru": Program(
        lambda: Recurrent(nn.GRU), nn.CrossEntropyLoss(), _of("RMSprop", lr=1e-2, momentum=0.5),
        lambda: (torch.randn(SAMPLES, 5, 5), _labels())),
    "transformer": Program(
        Transformer, next_letter, _of("NAdam", lr=1e-3, eps=1e-4),
        lambda: (_words(7, 6), _words(7, 6))),
    "embedding classifier": Program(
        BagOfWords, nn.CrossEntropyLoss(), _of("Adagrad", lr=0.1),
        lambda: (_words(20, 5), _labels())),
    "autoencoder": Program(
        lambda: Autoencoder(tied=False), nn.MSELoss(), _of("Adam", lr=1e-2, amsgrad=True),
        lambda: (torch.randn(SAMPLES, 6), torch.randn(SAMPLES, 6))),
    "autoencoder, tied": Program(
        lambda: Autoencoder(tied=True), F.mse_loss, _of("RAdam", lr=1e-2),
        lambda: (torch.randn(SAMPLES, 6), torch.randn(SAMPLES, 6))),
    "language model, tied": Program(
        TiedLanguageModel, next_letter, _of("Adamax", lr=1e-2),
        lambda: (_words(9, 5), _words(9, 5))),
    "partly frozen": Program(
        partly_frozen, nn.CrossEntropyLoss(),
        lambda m: torch.optim.Adadelta([p for p in m.parameters() if p.requires_grad]),
        lambda: (torch.randn(SAMPLES, 6), _labels())),
    "partly frozen, all given": Program(
        partly_frozen, nn.CrossEntropyLoss(), _of("ASGD", lr=1e-2),
        lambda: (torch.randn(SAMPLES, 6), _labels())),
}  # fmt: skip
