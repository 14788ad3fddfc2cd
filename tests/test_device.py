"""Devices go by what decides how they round."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from artifactgen.device import constant, device_name, find_devices, of_one_name
from artifactgen.errors import ConfigError

H100, T4 = "NVIDIA H100 80GB HBM3", "Tesla T4"


def test_a_cpu_goes_by_the_instructions_of_its_kernels() -> None:
    capability = torch.backends.cpu.get_cpu_capability()
    assert device_name(torch.device("cpu")).startswith(f"cpu ({capability}")
    assert find_devices("cpu").name == device_name(torch.device("cpu"))


def test_other_kernels_are_another_device() -> None:
    code = "from artifactgen.device import find_devices; print(find_devices('cpu').name)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ATEN_CPU_CAPABILITY": "default"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() != find_devices("cpu").name


def test_gpus_of_one_kind_go_by_its_name() -> None:
    assert of_one_name([H100, H100], ["0", "1"]) == H100


def test_gpus_of_different_kinds_are_refused_with_those_to_choose() -> None:
    with pytest.raises(ConfigError) as refused:
        of_one_name([T4, H100, H100], ["2", "5", "7"])
    assert f"{T4} (2), {H100} (5, 7)" in str(refused.value)
    assert "CUDA_VISIBLE_DEVICES=5,7" in str(refused.value)


def test_equal_values_of_two_types_are_two_constants() -> None:
    device = torch.device("cpu")
    for dtype in (torch.float32, torch.int64, torch.float32):
        assert constant((1,), device, dtype=dtype).dtype == dtype
        assert constant((1.0,), device, dtype=dtype).dtype == dtype
