"""Small tensors that stay on a device: to copy one there anew makes the CPU wait for the GPU."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


@cache
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A tensor of the values, int64 or float32, made once for each device; do not change it."""
    return torch.tensor(values, device=device)
