"""Small data sets of every kind, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

WritePatient = Callable[..., Path]
WriteHdf5 = Callable[..., Path]


@pytest.fixture
def write_patient() -> WritePatient:
    """Write one patient of ACDC: a 4-D file and its `Info.cfg`."""

    def write(
        part: Path,
        name: str,
        *,
        group: str | None = "NOR",
        voxels_XYZT: NDArray[Any] | None = None,
        ed: int = 1,
        es: int = 4,
        info: str | None = None,
    ) -> Path:
        if voxels_XYZT is None:
            rng = np.random.default_rng(sum(name.encode()))
            voxels_XYZT = rng.integers(0, 900, (12, 10, 3, 5)).astype(np.int16)
        folder = part / name
        folder.mkdir(parents=True)
        nib.save(nib.Nifti1Image(voxels_XYZT, np.eye(4)), folder / f"{name}_4d.nii.gz")
        lines = [f"ED: {ed}", f"ES: {es}", "Height: 180.0", f"NbFrame: {voxels_XYZT.shape[3]}"]
        lines += [f"Group: {group}"] if group else []
        (folder / "Info.cfg").write_text("\n".join(lines) if info is None else info)
        return folder

    return write


@pytest.fixture
def acdc_root(tmp_path: Path, write_patient: WritePatient) -> Path:
    """A release with five patients of two diagnoses each way."""
    root = tmp_path / "acdc"
    for i in range(1, 11):
        write_patient(root / "training", f"patient{i:03d}", group="DCM" if i % 2 else "RV")
    for i in range(101, 104):
        write_patient(root / "testing", f"patient{i:03d}", group="HCM")
    (root / "MANDATORY_CITATION.md").write_text("cite")
    (root / "training" / ".DS_Store").mkdir()
    return root


@pytest.fixture
def write_hdf5() -> WriteHdf5:
    """Write data sets given by key; gzip in chunks of `chunk_rows` where that is given."""

    def write(path: Path, datasets: dict[str, Any], *, chunk_rows: int = 0, **options: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            for key, values in datasets.items():
                if chunk_rows and key.endswith("images"):
                    options["chunks"] = (chunk_rows, *values.shape[1:])
                    options["maxshape"] = (None, *values.shape[1:])
                    file.create_dataset(key, data=values, compression="gzip", **options)
                else:
                    file[key] = values
        return path

    return write
