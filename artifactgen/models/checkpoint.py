"""Read a checkpoint of any training framework without running any of its code.

Everything goes through `torch.load(weights_only=True)` with the short list of `pickles.py`.
https://docs.pytorch.org/docs/stable/notes/serialization.html#weights-only
"""

from __future__ import annotations

import argparse
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from artifactgen.errors import CheckpointError, printable
from artifactgen.models.file import CheckpointFile
from artifactgen.models.pickles import Inert, allowed_globals, refused_globals
from artifactgen.patience import is_of_the_machine

CONTAINERS = (
    "teacher",
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model_state_dict",
    "model",
    "module",
    "net",
    "network",
    "encoder",
    "backbone",
    "student",
)
"""Keys under which frameworks keep weights; of several, the first: averages win, as in timm."""

META_KEYS = (
    *("epoch", "global_step", "metric", "pytorch-lightning_version"),
    *("hyper_parameters", "datamodule_hyper_parameters", "hparams", "args", "config", "cfg"),
    *("arch", "architecture", "model_name", "model_args", "model_kwargs", "model_config"),
    *("num_classes", "classes", "class_names", "class_to_idx", "idx_to_class", "id2label"),
    *("labels", "mean", "std", "img_size", "image_size", "input_size", "normalize"),
)
"""Keys under which frameworks and people keep what they say of the weights."""

_MAX_NESTING = 16
_BROKEN = (
    pickle.UnpicklingError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    MemoryError,
    OverflowError,
    struct.error,
    zipfile.BadZipFile,
)
"""What the readers of torch, safetensors and zip raise for files that are cut or garbled."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The weights in a file, under the names they have there, and what the file says of them.

    Whatever text is in it goes into messages and reports, so control characters are escaped here.
    """

    file: CheckpointFile
    state_dict: Mapping[str, Tensor]
    """Views of the file where its format allows: read only. May hold far more than the model."""
    container: str
    """Key under which the weights were found, such as `state_dict`; empty at the top."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Epoch, step, hyper-parameters: what can be told in plain types."""

    @property
    def path(self) -> Path:
        return self.file.path


def read_checkpoint(file: CheckpointFile) -> Checkpoint:
    """Read a `.ckpt`, `.pth`, `.pt` or `.safetensors` file.

    Raises:
        CheckpointError: not a checkpoint, cut, without weights, larger on paper than the file, one
            that would run code, or changed since it was identified.
        OSError: of a kind that may pass.
    """
    path = file.path
    payload = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    container, weights = find_weights(payload)
    if not weights:
        is_mapping = isinstance(payload, Mapping)
        keys = ", ".join(map(str, payload)) if is_mapping else type(payload).__name__
        raise CheckpointError(
            f"{path}: no weights in it; it holds: {printable(keys)[:300] or 'nothing'}. "
            f"They are looked for at the top and under {', '.join(CONTAINERS)}."
        )
    weights = {printable(name): tensor for name, tensor in weights.items()}
    _check_tensors(path, weights)
    file.require_untouched()
    return Checkpoint(file, weights, container, _plain_meta(payload))


def find_weights(payload: object, *, depth: int = 4) -> tuple[str, dict[str, Tensor]]:
    """The (dotted) key under which the weights lie in nested mappings, and the weights."""
    if not isinstance(payload, Mapping) or depth == 0:
        return "", {}
    for key in CONTAINERS:
        inner, weights = find_weights(payload.get(key), depth=depth - 1)
        if weights:
            return f"{key}.{inner}".rstrip("."), weights
    named = {name: value for name, value in payload.items() if isinstance(name, str)}
    return "", {name: value for name, value in named.items() if isinstance(value, Tensor)}


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise CheckpointError(f"{path}: needs `pip install safetensors`.") from error
    from safetensors import SafetensorError

    try:
        return load_file(path, device="cpu")
    except (SafetensorError, *_BROKEN) as error:
        _let_pass(error)
        raise _broken(path, error) from error


def _read_torch(path: Path) -> Any:
    is_zip = zipfile.is_zipfile(path)
    with torch.serialization.safe_globals(allowed_globals()):
        try:
            if is_zip:
                _check_archive(path)
            # Files from before torch 1.6 are no archives and cannot be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        except _BROKEN as error:
            _let_pass(error)
            if names := refused_globals(path, error):
                raise _refusal(path, names) from error
            raise _broken(path, error) from error


def _check_archive(path: Path) -> None:
    """Mapping reads the bytes of an archive as they lie; `torch.save` never compresses."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("a compressed archive, which torch.save never writes")
    if any(Path(member.filename).name == "constants.pkl" for member in members):
        raise ValueError("a TorchScript archive: save model.state_dict() instead")


def _let_pass(error: Exception) -> None:
    """Raise what is not the file's fault, such as a stale handle, as it is."""
    if isinstance(error, OSError) and is_of_the_machine(error):
        raise error


def _broken(path: Path, error: BaseException) -> CheckpointError:
    # torch begins its refusals with a page of advice; the reason stands behind it.
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    reason = f"{type(error).__name__}: {printable(text.partition(chr(10))[0][:200])}"
    return CheckpointError(
        f"{path}: cut short, damaged or no checkpoint ({reason}). Copy or save it again."
    )


def _refusal(path: Path, names: list[str]) -> CheckpointError:
    listed = printable(", ".join(names[:8])) + (
        f" and {len(names) - 8} more" if len(names) > 8 else ""
    )
    return CheckpointError(
        f"{path}: refused, and nothing of it was run: besides weights it names {listed}, "
        "which would be code to run.\nIf you trust where it comes from, save its weights alone: "
        'torch.save({"state_dict": model.state_dict()}, "weights.ckpt").'
    )


def _check_tensors(path: Path, weights: Mapping[str, Tensor]) -> None:
    """Refuse tensors without data or with more elements than the file can hold, before any copy."""
    file_bytes = path.stat().st_size
    for name, tensor in weights.items():
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
            kind = f"{tensor.layout} on {tensor.device}, {tensor.dtype}"
            raise CheckpointError(f"{path}: {name} is no ordinary tensor ({kind}).")
        if tensor.numel() * tensor.element_size() > file_bytes:
            raise CheckpointError(
                f"{path}: {name} claims the shape {tuple(tensor.shape)}, more than the "
                f"{file_bytes} bytes of the whole file can hold. The file is damaged or hostile."
            )


def _plain_meta(payload: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: plain(payload[key]) for key in META_KEYS if key in payload}
    # Under a name for weights, some write what the model is called.
    found |= {key: plain(payload[key]) for key in CONTAINERS if isinstance(payload.get(key), str)}
    return {key: value for key, value in found.items() if value is not None}


def plain(value: Any, *, depth: int = _MAX_NESTING) -> Any:
    """`value` in types that JSON knows; None for what cannot be told in them."""
    if isinstance(value, Inert):
        value = value.content
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, pathlib.PurePath):
        return printable(str(value))
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if isinstance(value, Mapping) and depth:
        return {printable(str(key)): plain(item, depth=depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set) and depth:
        return [plain(item, depth=depth - 1) for item in value]
    return None
