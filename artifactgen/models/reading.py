"""The content of one file of a checkpoint, in whatever format; none of its code is run unasked.

Everything goes through `torch.load(weights_only=True)` with the short list of `pickles.py`.
https://docs.pytorch.org/docs/stable/notes/serialization.html#weights-only
"""

from __future__ import annotations

import logging
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch

from artifactgen.errors import CheckpointError, forbid_exit, printable
from artifactgen.models.pickles import allowed_globals, refused_globals
from artifactgen.patience import is_of_the_machine

log = logging.getLogger(__name__)

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


def read_file(path: Path, *, trusted: bool) -> Any:
    """What `torch.save` or safetensors put into a file.

    Args:
        path: a `.ckpt`, `.pth`, `.pt`, `.bin` or `.safetensors` file.
        trusted: whether it may run code of its own, where it cannot be read without.

    Raises:
        CheckpointError: cut, no checkpoint, or one that would run code.
        OSError: of a kind that may pass.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    return _read_torch(path, trusted=trusted)


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


def _read_torch(path: Path, *, trusted: bool) -> Any:
    is_zip = zipfile.is_zipfile(path)
    with torch.serialization.safe_globals(allowed_globals()):
        try:
            if is_zip:
                _check_archive(path)
            # Files from before torch 1.6 are no archives and cannot be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip)
        except _BROKEN as error:
            _let_pass(error)
            names = refused_globals(path, error)
            if not names:
                raise _broken(path, error) from error
            if not trusted:
                raise _refusal(path, names) from error
    return _unpickle(path, names, mmap=is_zip)


def _unpickle(path: Path, names: list[str], *, mmap: bool) -> Any:
    """Everything in a file, by running what it names: only where the user trusts it."""
    log.warning(
        "WARNING: %s: trust_checkpoint=true: reading it imports and runs what it names: %s",
        path,
        printable(", ".join(names)),
    )
    try:
        with forbid_exit(str(path), "it was read", CheckpointError):
            return torch.load(path, map_location="cpu", weights_only=False, mmap=mmap)
    except (*_BROKEN, ImportError, ArithmeticError) as error:
        _let_pass(error)
        raise CheckpointError(
            f"{path}: cannot be read ({type(error).__name__}: {printable(str(error))[:200]}).\n"
            "What it names has to be found here as where it was saved: install its modules, or put "
            "them beside the folder of --config-dir or into one of PYTHONPATH. What a script or "
            "notebook defines (__main__) is found in no other: save model.state_dict() there."
        ) from error


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
        "which would be code to run.\nSave its weights alone: "
        'torch.save({"state_dict": model.state_dict()}, "weights.ckpt"). Or, if you trust where it '
        "comes from as you trust a program that you run, set trust_checkpoint=true."
    )
