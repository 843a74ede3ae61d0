"""Stacks of transformer layers, with torch's parameters."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np

from gpubp.arguments import checked, shown, truth
from gpubp.errors import ArgumentError, ShapeError
from gpubp.kinds import is_iterable
from gpubp.nn.arrays import as_array
from gpubp.nn.collection import ModuleList
from gpubp.nn.key_value_cache import KeyValueCache
from gpubp.nn.module import Module
from gpubp.ops.spec import is_concrete, operand


class _Stack(Module):
    """Copies of one layer, called one after the other, and a norm behind them."""

    _layer: str  # the name of the constructor's first argument

    def __init__(self, layer: Module, num_layers: int, norm: Module | None) -> None:
        super().__init__()
        if num_layers < 1:
            raise ShapeError(
                f"{type(self).__name__} needs at least one layer, got num_layers={num_layers}."
            )
        self.layers = ModuleList([copy.deepcopy(layer) for _ in range(num_layers)])
        self.num_layers = num_layers
        self.norm = norm

    def constructor_arguments(self) -> dict[str, Any]:
        """What an equal module is made with; for files of models."""
        return {self._layer: self.layers[0], "num_layers": len(self.layers), "norm": self.norm}

    @checked
    def make_caches(self, batch_size: int, max_length: int) -> ModuleList:
        """A KeyValueCache for each layer.

        Args:
            batch_size: sequences at a time.
            max_length: the most positions of a sequence.
        """
        attentions = [layer.self_attn for layer in self.layers]
        return ModuleList(
            [
                KeyValueCache(
                    batch_size, a.num_heads, max_length, a.head_dim, a.out_proj.weight.dtype
                )
                for a in attentions
            ]
        )

    def _through(self, caches: Iterable[Any] | None, x: Any, *rest: Any, **named: Any) -> Any:
        """All layers, and the norm; x and what follows are the arguments of each layer."""
        if caches is not None and not is_iterable(caches):
            raise ArgumentError(
                f"{type(self).__name__}: caches is {shown(caches)}, expected a KeyValueCache for "
                "each layer; make_caches() makes them."
            )
        found = [{}] * len(self.layers) if caches is None else [{"cache": c} for c in caches]
        if len(found) != len(self.layers):
            raise ArgumentError(
                f"{type(self).__name__}: got {len(found)} caches, expected one for each of "
                f"{len(self.layers)} layers; make_caches() makes them."
            )
        for layer, cache in zip(self.layers, found, strict=True):
            x = layer(x, *rest, **named, **cache)
        return x if self.norm is None else self.norm(x)


class TransformerEncoder(_Stack):
    """A stack of layers, first all equal, as in torch.

    Args:
        encoder_layer: the layer that is copied, a TransformerEncoderLayer or one called like it.
        num_layers: how many copies.
        norm: what is behind the last layer; or None.
        enable_nested_tensor, mask_check: for torch's fast path; without effect here.

    Attributes:
        layers: the copies.

    Raises:
        ShapeError: num_layers is below 1.
    """

    _layer = "encoder_layer"

    @checked
    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        super().__init__(encoder_layer, num_layers, norm)
        self.enable_nested_tensor, self.mask_check = enable_nested_tensor, mask_check

    def forward(
        self,
        src: Any,
        mask: Any = None,
        src_key_padding_mask: Any = None,
        is_causal: bool | None = None,
        *,
        caches: Iterable[KeyValueCache] | None = None,
    ) -> Any:
        """Map (N, L, E), (L, N, E) or (L, E) to the same shape.

        Args:
            src, mask, src_key_padding_mask: see TransformerEncoderLayer.
            is_causal: says that `mask` hides all later positions; None: it is looked at.
            caches: one for each layer, from `make_caches`, for sequences that come piece by piece;
                without masks.
        """
        return self._through(
            caches,
            src,
            src_mask=mask,
            src_key_padding_mask=src_key_padding_mask,
            is_causal=_is_causal(self, mask, is_causal),
        )


class TransformerDecoder(_Stack):
    """A stack of layers, first all equal, as in torch.

    Args:
        decoder_layer: the layer that is copied, a TransformerDecoderLayer or one called like it.
        num_layers: how many copies.
        norm: what is behind the last layer; or None.

    Attributes:
        layers: the copies.

    Raises:
        ShapeError: num_layers is below 1.
    """

    _layer = "decoder_layer"

    @checked
    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__(decoder_layer, num_layers, norm)

    def forward(
        self,
        tgt: Any,
        memory: Any,
        tgt_mask: Any = None,
        memory_mask: Any = None,
        tgt_key_padding_mask: Any = None,
        memory_key_padding_mask: Any = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
        *,
        caches: Iterable[KeyValueCache] | None = None,
    ) -> Any:
        """Map (N, T, E), (T, N, E) or (T, E) to the same shape.

        Args:
            tgt, memory: see TransformerDecoderLayer, and so for the masks.
            tgt_mask, memory_mask: what may see what.
            tgt_key_padding_mask, memory_key_padding_mask: which keys are padding.
            memory_is_causal: says that `memory_mask` hides all later positions.
            tgt_is_causal: says that `tgt_mask` hides all later positions; None: it is looked at.
            caches: one for each layer, from `make_caches`, for a tgt that comes piece by piece;
                without masks of tgt.
        """
        return self._through(
            caches,
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=_is_causal(self, tgt_mask, tgt_is_causal),
            memory_is_causal=memory_is_causal,
        )


def _is_causal(owner: object, mask: Any, given: bool | None) -> bool:
    """What was said; or whether a mask that is known hides all later positions and no others."""
    if given is not None or mask is None:
        return given is not None and truth(type(owner).__name__, "is_causal", given)
    mask = operand(as_array(owner, mask))
    if not is_concrete(mask) or mask.ndim != 2 or mask.shape[0] != mask.shape[1]:
        return False
    later = np.triu(np.ones(mask.shape, bool), 1)
    return np.array_equal(mask, later if mask.dtype == bool else np.where(later, -np.inf, 0.0))
