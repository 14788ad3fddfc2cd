"""Headers of DICOM files: what finds a slice, and says how it is shown.

Only elements that say what a picture is are ever read: what is known of the patient never gets
into this program, unless an element is asked for by name.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from artifactgen.data.intensity import Shading
from artifactgen.errors import ConfigError, RecordError, did_you_mean

HEAD_BYTES = 132
"""By which a file is known to be DICOM: a preamble, and four letters."""
BROKEN = (AttributeError, EOFError, IndexError, KeyError, TypeError, ValueError)
"""What pydicom raises of broken files; its own errors are among them."""
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")
"""Of files from before there was a preamble: of the file, or of the study."""
_ELEMENTS = 0x20
"""Numbers of the elements that such files begin with are smaller."""
FRAME_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_IN_HEADER = (
    *("SOPClassUID", "SeriesInstanceUID", "InstanceNumber", "NumberOfFrames", "Rows", "Columns"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "GridFrameOffsetVector"),
    *("SamplesPerPixel", "PhotometricInterpretation", *FRAME_GROUPS),
    *("WindowCenter", "WindowWidth", "VOILUTFunction"),
)
_OF_FRAMES = ("PixelValueTransformationSequence", "FrameVOILUTSequence", "PlanePositionSequence",
              "PlaneOrientationSequence", "PixelMeasuresSequence")  # fmt: skip
"""Groups of elements that in files of many frames stand beside each, or once for all."""


@dataclass(frozen=True, slots=True)
class DicomFrame:
    """Where a slice lies: which frame of which file, and where in the patient."""

    path: Path
    index: int
    """Of the frame in the file, from 0."""
    number: int
    """InstanceNumber, for the order where nothing else tells."""
    position: tuple[float, ...] | None
    """(x, y, z) of its first pixel in mm to the left, to the back and up; None = not told."""
    orientation: tuple[float, ...] | None
    """Directions in which columns and rows are counted, three numbers each."""


@dataclass(frozen=True, slots=True)
class DicomHeader:
    """What a file says of its pictures."""

    series: str
    size: tuple[int, int]
    """(H, W) in pixels."""
    spacing: tuple[float, float]
    """Between rows and between columns, in mm."""
    frames: tuple[DicomFrame, ...]
    is_cine: bool
    """Whether several frames are of one place, one after another."""
    is_colour: bool
    wanted: str | None = None
    """Value of the element that was asked for."""


def is_dicom(head: bytes) -> bool:
    """Whether a file is DICOM, by its first 132 bytes."""
    if head[128:HEAD_BYTES] == b"DICM":
        return True
    element = int.from_bytes(head[2:4], "little")
    return len(head) == HEAD_BYTES and head[:2] in _FIRST_GROUPS and element < _ELEMENTS


def require_element(keyword: str | None) -> None:
    """`ConfigError` where pydicom is not installed, or DICOM has no element of that keyword."""
    known = library().datadict.keyword_dict
    if keyword is not None and keyword not in known:
        raise ConfigError(
            f"data.id_tag={keyword} is no keyword of DICOM. {did_you_mean(keyword, known)}"
        )


@lru_cache(1)
def library() -> Any:
    """pydicom, set up to say nothing; `ConfigError` where it is not installed."""
    try:
        import pydicom.config
        import pydicom.datadict
        import pydicom.pixels
        import pydicom.pixels.processing
    except ImportError as error:
        raise ConfigError(
            "DICOM files are read by pydicom, which is not installed: pip install pydicom"
        ) from error
    # Its warnings and its log quote values out of files, which may be the patient's.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", module=r"pydicom\b")
    return pydicom


def read_dicom_header(path: Path, *, wanted: str | None = None) -> DicomHeader | None:
    """Read what a file is, but for its pixels; None where it holds no picture, as a report.

    Args:
        path: a DICOM file.
        wanted: keyword of an element that is asked for, such as `PatientID`.

    Raises:
        RecordError: a broken header, or a picture without a size.
        OSError: it cannot be read.
    """
    names = [*_IN_HEADER, wanted] if wanted else list(_IN_HEADER)
    dataset = read_elements(path, names)
    if "Rows" not in dataset and not _is_image(dataset):
        return None
    try:
        return _header(path, dataset, wanted)
    except BROKEN as error:
        raise RecordError(f"{path}: a broken DICOM header: {str(error)[:200]}") from error


def read_shading(frame: DicomFrame) -> Shading:
    """How a frame's values are shown, as its file says."""
    dataset = of_frame(read_elements(frame.path, _IN_HEADER), frame.index)
    inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
    center, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    if center is None or width is None:
        return Shading(inverted=inverted)
    function = str(dataset.get("VOILUTFunction") or "LINEAR")
    return Shading(center, width, function.upper(), inverted)


def read_elements(path: Path, names: Sequence[str]) -> Any:
    """Some elements of a file, none of them pixels; `RecordError` where it is broken."""
    pydicom = library()
    try:
        # `force`: whether it is DICOM was told from its first bytes.
        return pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(names))
    except BROKEN as error:
        raise RecordError(f"{path}: a broken DICOM file: {str(error)[:200]}") from error


def _is_image(dataset: Any) -> bool:
    """Whether it was meant to hold a picture; of a file that is cut short it is said first."""
    uid = dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID")
    return "Image Storage" in uid.name if uid else bool(dataset.preamble)


def _header(path: Path, dataset: Any, wanted: str | None) -> DicomHeader:
    count = int(dataset.get("NumberOfFrames") or 1)
    if not dataset.get("Rows") or not dataset.get("Columns") or count < 1:
        raise RecordError(f"{path}: a DICOM picture without Rows, Columns or frames")
    number = _whole(dataset, "InstanceNumber")
    parts = [of_frame(dataset, index) for index in range(count)]
    frames = tuple(
        DicomFrame(path, index, number, *_place(part, index)) for index, part in enumerate(parts)
    )
    spacing = [float(mm) for mm in parts[0].get("PixelSpacing") or (1.0, 1.0)]
    samples = int(dataset.get("SamplesPerPixel") or 1)
    positions = {frame.position for frame in frames}
    return DicomHeader(
        series=str(dataset.get("SeriesInstanceUID") or ""),
        size=(int(dataset.Rows), int(dataset.Columns)),
        spacing=(spacing[0], spacing[1]),
        frames=frames,
        is_cine=count > 1 and (None in positions or len(positions) < count),
        is_colour=samples > 1 or dataset.get("PhotometricInterpretation") == "PALETTE COLOR",
        wanted=str(dataset.get(wanted, "")) if wanted else None,
    )


def of_frame(dataset: Any, index: int) -> Any:
    """The elements of a frame of a file of many, as those of a file of one."""
    if not any(name in dataset for name in FRAME_GROUPS):
        return dataset
    flat = library().Dataset()
    flat.update(dataset)
    for name in FRAME_GROUPS:
        groups = dataset.get(name) or []
        group = (
            groups[index if name == FRAME_GROUPS[1] and len(groups) > 1 else 0] if groups else {}
        )
        for part in _OF_FRAMES:
            if items := group.get(part):
                flat.update(items[0])
    return flat


def _place(part: Any, index: int) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    position = _numbers(part.get("ImagePositionPatient"), 3)
    orientation = _numbers(part.get("ImageOrientationPatient"), 6)
    offsets = part.get("GridFrameOffsetVector")
    if position and orientation and offsets is not None and index:
        step = np.cross(orientation[:3], orientation[3:]) * float(offsets[index])
        position = tuple((np.array(position) + step).tolist())
    return position, orientation


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    """Some numbers; None where there are not as many, or not finite ones."""
    if value is None or isinstance(value, str) or len(value) != count:
        return None
    numbers = tuple(float(number) for number in value)
    return numbers if np.isfinite(numbers).all() else None


def _whole(dataset: Any, name: str) -> int:
    """A number that only sorts: 0 where it is none."""
    try:
        return int(dataset.get(name) or 0)
    except ValueError:
        return 0


def _first(value: Any) -> float | None:
    if value is None or value == "":
        return None
    return float(value if isinstance(value, (int, float, str)) else value[0])
