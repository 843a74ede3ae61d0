"""A LeNet and a small residual network, each written once for both libraries.

`nn` and `F` are torch's or gpubp's modules of these names.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any


def lenet(nn: Any, functional: ModuleType, **dtype: Any) -> Any:
    """LeCun et al., "Gradient-Based Learning Applied to Document Recognition" (1998); ReLUs."""

    class LeNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(1, 6, 5, padding=2, **dtype)
            self.conv2 = nn.Conv2d(6, 16, 5, **dtype)
            self.fc1 = nn.Linear(64, 120, **dtype)
            self.fc2 = nn.Linear(120, 84, **dtype)
            self.fc3 = nn.Linear(84, 10, **dtype)

        def forward(self, x: Any) -> Any:
            x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
            x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
            x = x.reshape(x.shape[0], 64)
            x = functional.relu(self.fc1(x))
            return self.fc3(functional.relu(self.fc2(x)))

    return LeNet()


def resnet(nn: Any, functional: ModuleType, bend: str = "relu", **dtype: Any) -> Any:
    """Three stages of one residual block, 16, 32 and 64 channels (He et al., arXiv:1512.03385)."""
    activation = getattr(functional, bend)

    def conv(a: int, b: int, size: int, stride: int = 1) -> Any:
        return nn.Conv2d(a, b, size, stride, size // 2, bias=False, **dtype)

    class Block(nn.Module):
        def __init__(self, a: int, b: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.norm1 = conv(a, b, 3, stride), nn.BatchNorm2d(b, **dtype)
            self.conv2, self.norm2 = conv(b, b, 3), nn.BatchNorm2d(b, **dtype)
            self.short = nn.Sequential()
            if a != b:
                self.short = nn.Sequential(conv(a, b, 1, stride), nn.BatchNorm2d(b, **dtype))

        def forward(self, x: Any) -> Any:
            y = activation(self.norm1(self.conv1(x)))
            return activation(self.norm2(self.conv2(y)) + self.short(x))

    class ResNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = conv(3, 16, 3), nn.BatchNorm2d(16, **dtype)
            self.stage1, self.stage2, self.stage3 = (
                Block(16, 16, 1),
                Block(16, 32, 2),
                Block(32, 64, 2),
            )
            self.last = nn.Linear(64, 10, **dtype)

        def forward(self, x: Any) -> Any:
            x = activation(self.norm(self.conv(x)))
            x = self.stage3(self.stage2(self.stage1(x)))
            return self.last(x.mean((2, 3)))

    return ResNet()
