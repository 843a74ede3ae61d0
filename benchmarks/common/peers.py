"""Who takes part in the training steps, and how users choose."""

from __future__ import annotations

from common.contest import Contender
from gpubp.errors import unknown_name

GPUBP = Contender("gpubp", "gpubp", "common.peers_gpubp", required=True)
SINGLE = Contender("gpubp-single", "gpubp", "common.peers_gpubp", required=True)
ROOF = tuple(
    Contender(f"sgemm-{n}", "numpy", "common.peers_numpy", compared=False, required=True)
    for n in (512, 768, 1024)
)
PEERS = {
    "jax": ("jax-scan", "jax-step"),
    "torch": ("torch-eager", "torch-fused", "torch-compile"),
    "sklearn": ("sklearn",),
}
INSTALL = {"jax": "jax", "torch": "torch", "sklearn": "scikit-learn"}


def choose(text: str) -> list[Contender]:
    """Contenders beside gpubp.

    Args:
        text: "all", "none", or names of peers ("jax") and of their variants ("jax-scan"), with
            commas.

    Raises:
        UnknownNameError: a name that is none of these.
    """
    if text == "none":
        return []
    asked = list(PEERS) if text == "all" else text.split(",")
    known = [*PEERS, *(v for variants in PEERS.values() for v in variants)]
    for name in asked:
        if name not in known:
            raise unknown_name("peer", name, ["all", "none", *known])
    return [
        Contender(variant, peer, f"common.peers_{peer}")
        for peer, variants in PEERS.items()
        for variant in variants
        if peer in asked or variant in asked
    ]


def absence(name: str, peer: str, reason: str) -> str:
    """How a contender whose package is missing is reported."""
    return f"{name}: {reason}; pip install {INSTALL.get(peer, peer)}"
