"""The device that a worker owns: which it is, its precision, and how data gets there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from artifactgen.errors import ConfigError
from artifactgen.types import Accelerator, Precision

AUTOCAST: Mapping[str, torch.dtype] = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def resolve_device(accelerator: Accelerator) -> torch.device:
    """The device to compute on; `ConfigError` if a GPU is asked for and there is none."""
    if accelerator == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if accelerator == "gpu":
        raise ConfigError(
            "accelerator=gpu, but torch finds no CUDA device. Set accelerator=auto or cpu."
        )
    return torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Devices:
    """What a run has to compute on."""

    kind: str
    """`cpu` or `cuda`."""
    name: str
    """Which of its kind, all of them, see `device_name`."""
    gpus: int
    computes_bf16: bool
    """Natively: else bf16 is slower than float32."""


def find_devices(accelerator: Accelerator) -> Devices:
    """The devices of this machine; `ConfigError` if a GPU is asked for and there is none."""
    device = resolve_device(accelerator)
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Devices("cuda", of_one_name(names, _gpu_ids(len(names))), len(names), native)
    return Devices("cpu", device_name(device), 0, bool(_cpu_bf16()))


def _gpu_ids(gpus: int) -> list[str]:
    """The GPUs as `CUDA_VISIBLE_DEVICES` calls them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    return given if len(given) == gpus else [str(index) for index in range(gpus)]


def of_one_name(names: Sequence[str], ids: Sequence[str]) -> str:
    """The name that all GPUs have.

    Args:
        names: of each.
        ids: of each, as `CUDA_VISIBLE_DEVICES` calls them.

    Raises:
        ConfigError: they have several; a run on all of them would not round in one way.
    """
    by_name: dict[str, list[str]] = {}
    for name, id_ in zip(names, ids, strict=True):
        by_name.setdefault(name, []).append(id_)
    if len(by_name) > 1:
        kinds = ", ".join(f"{name} ({', '.join(own)})" for name, own in by_name.items())
        most = max(len(own) for own in by_name.values())
        chosen = ",".join(next(own for own in by_name.values() if len(own) == most))
        raise ConfigError(
            f"The GPUs of this machine are of different kinds, which round differently: {kinds}.\n"
            f"Choose those of one kind, as by CUDA_VISIBLE_DEVICES={chosen} in the environment."
        )
    return names[0]


def device_name(device: torch.device) -> str:
    """What decides how a device rounds: `NVIDIA H100 80GB HBM3`, `cpu (AVX512, AMX)`.

    Of a CPU, the instructions that torch's kernels are made of, and those that bf16 goes through.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({', '.join([torch.backends.cpu.get_cpu_capability(), *_cpu_bf16()])})"


def _cpu_bf16() -> list[str]:
    """What the CPU computes bf16 with natively; none on most."""
    found: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    names = {"amx_bf16": "AMX", "avx512_bf16": "AVX512_BF16"}
    return [name for key, name in names.items() if found.get(key)][:1]


def resolve_precision(precision: Precision, devices: Devices) -> Precision:
    """`auto` is bf16-mixed where the devices compute bf16 natively, else 32-true."""
    if precision == "16-mixed" and devices.kind == "cpu":
        raise ConfigError("precision=16-mixed needs a GPU. Use bf16-mixed or 32-true on a CPU.")
    if precision != "auto":
        return precision
    return "bf16-mixed" if devices.computes_bf16 else "32-true"


def make_reproducible() -> None:
    """On a GPU, equal bytes in every run, and float32 as float32.

    Torch's deterministic algorithms are taken wherever there is one; where there is none, as in
    the backward of some rare layers, torch warns. TF32, with its error of about 1e-3, is never
    used: what is computed in float32 beside a mixed precision is so for exactness.
    """
    if not torch.cuda.is_available():
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@contextmanager
def exact_float32() -> Iterator[None]:
    """Float32 as float32 in the block, as `make_reproducible` has it; then as it was before."""
    backends: Any = torch.backends
    convolution, name = backends.cudnn, "allow_tf32"
    if hasattr(backends.cudnn, "conv"):  # since torch 2.9, which refuses to read a mix of the two
        convolution, name = backends.cudnn.conv, "fp32_precision"
    before = torch.get_float32_matmul_precision(), getattr(convolution, name)
    try:
        torch.set_float32_matmul_precision("highest")
        setattr(convolution, name, "ieee" if name == "fp32_precision" else False)
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        setattr(convolution, name, before[1])


class Transfers:
    """Copies to the device and back that overlap with its work.

    On a GPU, uploads go from pinned memory on a stream of their own, so that the next batch is on
    its way while this one computes, and downloads end when they are asked for.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    @cached_property
    def _uploads(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

    def upload(self, images: NDArray[Any]) -> Tensor:
        """The array on the device, ready for what is computed next."""
        host = torch.from_numpy(images)
        if self._device.type != "cuda":
            return host.to(self._device)
        compute = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._uploads):
            there = host.pin_memory().to(self._device, non_blocking=True)
        compute.wait_stream(self._uploads)
        there.record_stream(compute)  # else its memory could be used anew while it is read
        return there

    def download(self, tensors: Mapping[str, Tensor]) -> Download:
        """Begin to copy tensors to the CPU."""
        if self._device.type != "cuda":
            return Download({name: tensor.cpu() for name, tensor in tensors.items()}, None)
        host = {
            name: torch.empty_like(tensor, device="cpu", pin_memory=True)
            for name, tensor in tensors.items()
        }
        for name, tensor in tensors.items():
            host[name].copy_(tensor, non_blocking=True)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(self._device))
        return Download(host, done)


@dataclass(frozen=True, slots=True)
class Download:
    """Tensors on their way to the CPU."""

    host: Mapping[str, Tensor]
    done: torch.cuda.Event | None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays, once all of them are there."""
        if self.done is not None:
            self.done.synchronize()
        return {name: tensor.numpy() for name, tensor in self.host.items()}


@cache
def constant(values: tuple[float, ...], device: torch.device, *, dtype: torch.dtype) -> Tensor:
    """A tensor of the values, made once for each device and type; do not change it.

    To copy a small tensor to a GPU anew makes the CPU wait for it. The type has to be said: values
    that are equal, as 1 and 1.0, would be one entry of the cache.
    """
    return torch.tensor(values, device=device, dtype=dtype)
