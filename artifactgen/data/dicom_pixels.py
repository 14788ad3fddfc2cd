"""Pixels of DICOM files, as far as pydicom decodes them with what is installed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifactgen.data.dicom import (
    BROKEN,
    FRAME_GROUPS,
    DicomFrame,
    library,
    of_frame,
    read_elements,
)
from artifactgen.errors import RecordError

_PACKAGE = re.compile(r"(pylibjpeg[a-z-]*)")


def read_values(frame: DicomFrame) -> NDArray[np.float32]:
    """Values (H, W) of a grey frame in the file's unit: stored · slope + intercept.

    Raises:
        RecordError: it is cut short or broken, or nothing that is installed decompresses it.
    """
    stored, dataset = _pixels(frame)
    if stored.ndim != 2:
        raise RecordError(f"{frame.path}: colours, and the first slice is grey")
    processing = library().pixels.processing
    values: NDArray[np.float32] = processing.apply_modality_lut(stored, dataset).astype(np.float32)
    return values


def read_colours(frame: DicomFrame) -> NDArray[np.uint8]:
    """Colours (H, W, 3) of a frame: RGB, YBR as RGB, a palette's looked up; the upper 8 bits.

    Raises:
        RecordError: see `read_values`.
    """
    stored, dataset = _pixels(frame)
    bits = int(dataset.BitsStored)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        stored = library().pixels.processing.apply_color_lut(stored, dataset)
        bits = 8 * stored.itemsize
    if stored.ndim != 3:
        raise RecordError(f"{frame.path}: grey, and the first slice is in colours")
    return (stored >> max(bits - 8, 0)).astype(np.uint8)


def _pixels(frame: DicomFrame) -> tuple[NDArray[Any], Any]:
    """A frame as it is stored, decompressed, and the elements that say what it means.

    Of a file of many frames no other is read, unless all of the file is deflated.
    """
    pydicom = library()
    syntax = _syntax(frame.path)
    dataset, path = pydicom.Dataset(), frame.path
    tags = [pydicom.tag.Tag(name) for name in FRAME_GROUPS]
    try:
        if syntax.is_deflated:
            dataset = pydicom.dcmread(path)
            pixels = pydicom.pixels.pixel_array(dataset, index=frame.index)
        else:
            pixels = pydicom.pixels.pixel_array(
                path,
                index=frame.index,
                ds_out=dataset,
                specific_tags=tags,
                transfer_syntax_uid=syntax,
            )
    except (RuntimeError, NotImplementedError) as error:
        raise RecordError(f"{path}: {_undecoded(syntax, error)}") from error
    except BROKEN as error:
        text = f"its pixels cannot be decoded: {str(error)[:300]}"
        raise RecordError(f"{path}: {text}") from error
    return pixels, of_frame(dataset, frame.index)


def _syntax(path: Path) -> Any:
    """How a file is coded, guessed for one from before files said so."""
    dataset, uid = read_elements(path, ["Rows"]), library().uid
    if said := dataset.file_meta.get("TransferSyntaxUID"):
        return said
    is_implicit, is_little = dataset.original_encoding
    explicit = uid.ExplicitVRLittleEndian if is_little else uid.ExplicitVRBigEndian
    return uid.ImplicitVRLittleEndian if is_implicit else explicit


def _undecoded(syntax: Any, error: Exception) -> str:
    """What decompresses a file, if it were installed."""
    try:
        missing = library().pixels.get_decoder(syntax).missing_dependencies
    except NotImplementedError:
        missing = []
    found = next((text for text in missing if text.startswith("pylibjpeg")), None)
    if found is None:
        return f"{' '.join(str(error).split())[:300]}"
    packages = " ".join(_PACKAGE.findall(found.partition("requires")[2]))
    return f"{syntax.name} is decompressed by nothing that is installed: pip install {packages}"
