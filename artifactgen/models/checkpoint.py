"""Read a checkpoint of any training framework without running any of its code.

What is in its files is read by `reading.py`; here it is told which of it are the weights.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from artifactgen.errors import CheckpointError, printable
from artifactgen.models.file import CheckpointFile
from artifactgen.models.folder import weight_map
from artifactgen.models.pickles import Inert
from artifactgen.models.reading import read_file

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
    """Read a `.ckpt`, `.pth`, `.pt`, `.bin` or `.safetensors` file, or the shards of an index.

    Raises:
        CheckpointError: not a checkpoint, cut, without weights, larger on paper than the file, one
            that would run code, or changed since it was identified.
        OSError: of a kind that may pass.
    """
    path = file.path
    payload = _read_shards(file) if file.shards else read_file(path, trusted=file.trusted)
    container, weights = find_weights(payload)
    if not weights:
        is_mapping = isinstance(payload, Mapping)
        keys = ", ".join(map(str, payload)) if is_mapping else type(payload).__name__
        raise CheckpointError(
            f"{path}: no weights in it; it holds: {printable(keys)[:300] or 'nothing'}. "
            f"They are looked for at the top and under {', '.join(CONTAINERS)}."
        )
    weights = {printable(name): tensor for name, tensor in weights.items()}
    _check_tensors(file, weights)
    file.require_untouched()
    return Checkpoint(file, weights, container, _plain_meta(payload))


def find_weights(payload: object, *, depth: int = 4) -> tuple[str, dict[str, Tensor]]:
    """The (dotted) key under which the weights lie in nested mappings, and the weights."""
    if isinstance(payload, nn.Module):  # in a file that is trusted
        payload = payload.state_dict()
    if not isinstance(payload, Mapping) or depth == 0:
        return "", {}
    for key in CONTAINERS:
        inner, weights = find_weights(payload.get(key), depth=depth - 1)
        if weights:
            return f"{key}.{inner}".rstrip("."), weights
    named = {name: value for name, value in payload.items() if isinstance(name, str)}
    return "", {name: value for name, value in named.items() if isinstance(value, Tensor)}


def _read_shards(file: CheckpointFile) -> dict[str, Any]:
    """The tensors of all files of an index, each where its own file has it: nothing is copied."""
    contents = {path.name: read_file(path, trusted=file.trusted) for path in file.shards}
    for name, shard in weight_map(file.path).items():
        if not isinstance(contents[shard], Mapping) or name not in contents[shard]:
            raise CheckpointError(
                f"{file.path}: {printable(name)} is not in {shard}, where it should be. The files "
                "are not of one checkpoint: copy or save all of them again."
            )
    return {name: value for content in contents.values() for name, value in content.items()}


def _check_tensors(file: CheckpointFile, weights: Mapping[str, Tensor]) -> None:
    """Refuse tensors without data or with more elements than the file can hold, before any copy."""
    path, file_bytes = file.path, file.size_bytes
    for name, tensor in weights.items():
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
            kind = f"{tensor.layout} on {tensor.device}, {tensor.dtype}"
            raise CheckpointError(f"{path}: {name} is no ordinary tensor ({kind}).")
        if tensor.numel() * tensor.element_size() > file_bytes:
            raise CheckpointError(
                f"{path}: {name} claims the shape {tuple(tensor.shape)}, more than the "
                f"{file_bytes} bytes of the whole file can hold. The file is damaged or hostile."
            )


def _plain_meta(payload: Any) -> dict[str, Any]:
    if not isinstance(payload, Mapping):
        return {}
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
