"""Who takes part in the training steps, and how users choose."""

from __future__ import annotations

from collections.abc import Mapping

from common.contest import Contender
from common.rows import Row
from gpubp.errors import unknown_name

GPUBP = Contender("gpubp", "gpubp", "common.peers_gpubp", required=True)
SINGLE = Contender("gpubp-single", "gpubp", "common.peers_gpubp", required=True)
ROOF = tuple(
    Contender(f"sgemm-{n}", "numpy", "common.peers_numpy", compared=False, required=True)
    for n in (512, 768, 1024)
)
PEERS = {
    "jax": ("jax-scan", "jax-step"),
    "torch": (
        *("torch-eager", "torch-fused", "torch-compile"),
        *("torch-fused-nhwc", "torch-compile-nhwc"),
    ),
    "sklearn": ("sklearn",),
}
ON_GPU = {
    "jax": ("jax-scan", "jax-step"),
    "torch": (
        *("torch-eager", "torch-fused", "torch-compile", "torch-reduce-overhead"),
        *("torch-max-autotune", "torch-graph"),
    ),
}
GPU_ROOF = tuple(
    Contender(name, "roof", "common.peers_gpu_roof", compared=False)
    for name in ("gemm-float32", "gemm-tf32", "gemm-bf16", "copy")
)
INSTALL = {"jax": "jax", "torch": "torch", "roof": "torch", "sklearn": "scikit-learn"}


def choose(text: str, peers: Mapping[str, tuple[str, ...]] = PEERS) -> list[Contender]:
    """Contenders beside gpubp.

    Args:
        text: "all", "none", or names of peers ("jax") and of their variants ("jax-scan"), with
            commas.
        peers: who there is.

    Raises:
        UnknownNameError: a name that is none of these.
    """
    if text == "none":
        return []
    asked = list(peers) if text == "all" else text.split(",")
    known = [*peers, *(v for variants in peers.values() for v in variants)]
    for name in asked:
        if name not in known:
            raise unknown_name("peer", name, ["all", "none", *known])
    return [
        Contender(variant, peer, f"common.peers_{peer}")
        for peer, variants in peers.items()
        for variant in variants
        if peer in asked or variant in asked
    ]


def suits(contender: Contender, row: Row) -> bool:
    """Whether there is anything to ask: an order of channels is none without images."""
    return bool(row.image) or not contender.name.endswith("-nhwc")


def absence(name: str, peer: str, reason: str) -> str:
    """How a contender whose package is missing is reported."""
    return f"{name}: {reason}; pip install {INSTALL.get(peer, peer)}"
