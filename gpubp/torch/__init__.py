"""PyTorch programs trained by gpubp's compiled steps, in place.

`compile_step` takes a `torch.nn.Module`, a loss and an optimiser of torch; the torch objects hold
the new weights, buffers and optimiser state after each step. Needs PyTorch:
`pip install "gpubp[torch]"`.
"""

from __future__ import annotations

from importlib.util import find_spec

from gpubp.errors import missing_extra

if find_spec("torch") is None:
    raise missing_extra("PyTorch", "torch", "gpubp.torch")

from gpubp.torch.convert import from_module, to_module
from gpubp.torch.listing import supported
from gpubp.torch.step import TorchStep, compile_step

__all__ = ["TorchStep", "compile_step", "from_module", "supported", "to_module"]
