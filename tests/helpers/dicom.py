"""DICOM files, written by pydicom with made-up values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

PATIENT = "Doe^Jane"
PATIENT_ID = "MRN-1234567"


def write_dicom(path: Path, pixels: NDArray[Any], *, series: str = "1.2.3", **values: Any) -> Path:
    """Write grey pixels (H, W) or frames (N, H, W), or colours (H, W, 3), with further elements."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    uid = generate_uid(entropy_srcs=[str(path)])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = uid
    dataset.PatientName, dataset.PatientID = PATIENT, PATIENT_ID
    dataset.SeriesInstanceUID = series
    is_colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    dataset.Rows, dataset.Columns = pixels.shape[:2] if is_colour else pixels.shape[-2:]
    if pixels.ndim == 3 and not is_colour:
        dataset.NumberOfFrames = len(pixels)
    dataset.SamplesPerPixel = 3 if is_colour else 1
    if is_colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes() + bytes(pixels.nbytes % 2)
    for name, value in values.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path,
    volume_ZYX: NDArray[Any],
    *,
    axes: Sequence[float] = (1, 0, 0, 0, 1, 0),
    step: float = 2.0,
    **values: Any,
) -> list[Path]:
    """Write a file for each slice, along the normal; their names are in the reverse order."""
    normal = np.cross(axes[:3], axes[3:])
    return [
        write_dicom(
            folder / f"im{len(volume_ZYX) - z:03d}",
            plane,
            ImageOrientationPatient=list(axes),
            ImagePositionPatient=[float(mm) for mm in normal * step * z],
            **{"InstanceNumber": len(volume_ZYX) - z, "PixelSpacing": [1.0, 1.0], **values},
        )
        for z, plane in enumerate(volume_ZYX)
    ]
