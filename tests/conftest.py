"""Equal bytes in every test, and one thread: models here are too small to share out."""

from __future__ import annotations

import os

# MKL must not round by where arrays happen to lie in memory.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

import pytest
import torch

pytest.register_assert_rewrite("helpers")

torch.set_num_threads(1)
