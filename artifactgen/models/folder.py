"""A checkpoint that is a folder: of weights as Hugging Face keeps them, or shards of a training.

What a training in many processes wrote is refused, with the line that makes one file of it.
https://huggingface.co/docs/transformers/big_models#sharded-checkpoints
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

from artifactgen.errors import CheckpointError, printable

INDEX = ".index.json"
"""How the name of a file ends that says which tensor lies in which file beside it."""
_WEIGHTS = (
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
)
"""Of several, the first, as in transformers."""
_MOST_BYTES = 100_000_000
_CONVERTED = "weights.pt"


def weights_in(folder: Path) -> Path | None:
    """The file with the weights in a folder, or the index of several; None if there is neither.

    Raises:
        CheckpointError: the weights lie in shards of a training.
    """
    found = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if found is None and (line := _conversion(folder)):
        raise CheckpointError(
            f"ckpt_path={folder}: the shards of a training in several processes, no weights in one "
            f"piece. Make one file of them, and name that:\n{line}"
        )
    return found


def shards_of(index: Path) -> tuple[Path, ...]:
    """The files that an index names, all of which are there.

    Raises:
        CheckpointError: no index, or it names what is not beside it.
    """
    names = sorted(set(weight_map(index).values()))
    paths = [index.parent / name for name in names]
    absent = [path.name for path in paths if not path.is_file()]
    if absent:
        raise CheckpointError(
            f"{index}: names {len(names)} files, and {len(absent)} of them are not beside it: "
            f"{printable(', '.join(absent[:3]))}{', …' if len(absent) > 3 else ''}. Copy them too."
        )
    return tuple(paths)


def weight_map(index: Path) -> Mapping[str, str]:
    """Names of tensors, and of the files beside the index in which they lie."""
    too_large = index.stat().st_size > _MOST_BYTES
    try:
        content = {} if too_large else json.loads(index.read_text("utf-8"))
    except (ValueError, RecursionError):
        content = {}
    found = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{index}: no index of weights: it has no weight_map.")
    for name in found.values():
        if not isinstance(name, str) or name != Path(name).name or name in ("", ".."):
            raise CheckpointError(f"{index}: {name!a} is no name of a file beside it.")
    return found


def _conversion(folder: Path) -> str:
    """A line that makes one file of shards, and the next command's option; empty for others."""
    for place in (folder, *_folders_in(folder)):
        if (place / ".metadata").is_file() and any(place.glob("*.distcp")):
            return _of_torch(place)
    for place in (folder, folder.parent):
        if (place / "zero_to_fp32.py").is_file():
            return _of_deepspeed(place)
    if any(folder.glob("*model_states.pt")) or any(folder.glob("*/*model_states.pt")):
        return (
            "python zero_to_fp32.py … (of DeepSpeed, which writes it beside latest: copy it too)."
        )
    return ""


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _of_torch(folder: Path) -> str:
    """What `torch.distributed.checkpoint` wrote; Lightning keeps the rest in `meta.pt`."""
    place = shlex.quote(str(folder))
    if (folder / "meta.pt").is_file():
        return (
            f"python -m lightning.pytorch.utilities.consolidate_checkpoint {place}\n"
            f"ckpt_path={shlex.quote(f'{folder}.consolidated')}"
        )
    module = "torch.distributed.checkpoint.format_utils"
    return f"python -m {module} dcp_to_torch {place} {_CONVERTED}\nckpt_path={_CONVERTED}"


def _of_deepspeed(folder: Path) -> str:
    """What DeepSpeed wrote, with its own script beside it; of late, that writes a folder."""
    script, place = folder / "zero_to_fp32.py", shlex.quote(str(folder))
    to_folder = "output_dir" in script.read_text("utf-8", errors="replace")
    converted = Path(_CONVERTED).stem if to_folder else _CONVERTED
    return f"python {shlex.quote(str(script))} {place} {converted}\nckpt_path={converted}"
