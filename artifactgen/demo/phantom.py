"""Cine cardiac phantoms: MRI of patients who do not exist, as real files in ACDC's own layout."""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from isal import igzip
from numpy.typing import NDArray

from artifactgen.data.base import Catalog
from artifactgen.data.cmr_acdc import CmrAcdc
from artifactgen.demo.anatomy import GROUPS, draw_heart
from artifactgen.demo.imaging import Protocol, draw_protocol, image_heart
from artifactgen.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Phantom(CmrAcdc):
    """ACDC without ACDC: makes the patients at the root where there is nothing, then reads them."""

    training: int = 60
    """Number of patients below `training/`."""
    testing: int = 20

    def scan(self) -> Catalog:
        """Make the data where there is none, then scan it like any release of ACDC.

        Raises:
            DataError: the data cannot be written, or what lies at the root is no release.
        """
        if not _is_taken(Path(self.root)):
            write_phantoms(self.root, training=self.training, testing=self.testing, seed=self.seed)
        # Without arguments, `super()` does not know a class that `slots=True` has made anew.
        return CmrAcdc.scan(self)


def write_phantoms(
    root: str | os.PathLike[str], *, training: int = 60, testing: int = 20, seed: int = 2022
) -> None:
    """Write a whole data set or none: the root appears when its last file is complete.

    Args:
        root: folder that is empty or does not exist.
        training: number of patients below `training/`, from `patient001` on.
        testing: number of patients below `testing/`; their numbers go on.
        seed: the same seed gives the same bytes.

    Raises:
        DataError: the root is taken, or cannot be written.
    """
    root = Path(root).resolve()
    if _is_taken(root):
        raise DataError(f"{root} is not empty: remove it, or choose another data.root")
    partial = root.with_name(f".{root.name}-{uuid.uuid4().hex[:8]}.partial")
    try:
        partial.mkdir(parents=True)
        _write_split(partial / "training", 1, training, seed)
        _write_split(partial / "testing", 1 + training, testing, seed)
        partial.replace(root)
    except OSError as error:
        raise DataError(f"{root}: phantoms cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _is_taken(root: Path) -> bool:
    return root.exists() and not (root.is_dir() and next(root.iterdir(), None) is None)


def _write_split(folder: Path, first: int, patients: int, seed: int) -> None:
    """Write patients from number `first` on: the groups as even as can be, in random order."""
    folder.mkdir()
    names = list(GROUPS)
    even = [names[index % len(names)] for index in range(patients)]
    shuffled = np.random.default_rng((seed, first)).permutation(even).tolist()
    for number, group in enumerate(shuffled, first):
        rng = np.random.default_rng((seed, first, number))
        _write_patient(folder / f"patient{number:03d}", group, rng)


def _write_patient(folder: Path, group: str, rng: np.random.Generator) -> None:
    """Write one patient as the release has it: the cine, and ED and ES with their labels."""
    folder.mkdir()
    protocol = draw_protocol(rng)
    image_TZYX, labels_TZYX = image_heart(rng, draw_heart(rng, group), protocol)
    _write_info(folder / "Info.cfg", group, protocol, rng)
    _write_nifti(folder / f"{folder.name}_4d.nii.gz", image_TZYX, protocol)
    for frame in (0, protocol.es_frame):
        name = f"{folder.name}_frame{frame + 1:02d}"
        _write_nifti(folder / f"{name}.nii.gz", image_TZYX[frame], protocol)
        _write_nifti(folder / f"{name}_gt.nii.gz", labels_TZYX[frame], protocol)


def _write_info(path: Path, group: str, protocol: Protocol, rng: np.random.Generator) -> None:
    facts = {
        "ED": 1,
        "ES": protocol.es_frame + 1,
        "Group": group,
        "Height": round(rng.normal(172, 9), 1),
        "NbFrame": protocol.frames,
        "Weight": round(rng.normal(78, 12), 1),
    }
    path.write_text("".join(f"{key}: {value}\n" for key, value in facts.items()), encoding="utf-8")


def _write_nifti(path: Path, voxels: NDArray[np.generic], protocol: Protocol) -> None:
    """Write ([T,] Z, Y, X) voxels, which NIfTI wants as (X, Y, Z[, T])."""
    zooms = (protocol.spacing_mm,) * 2 + (protocol.thickness_mm, protocol.frame_time_s)
    image = nib.Nifti1Image(voxels.T, np.diag([-zooms[0], -zooms[1], zooms[2], 1]))
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms(zooms[: voxels.ndim])
    # With the time in its header, every copy of a gzip file would be another one.
    path.write_bytes(igzip.compress(image.to_bytes(), compresslevel=2, mtime=0))
