"""ACDC, cine cardiac MR of 150 patients, as it is distributed.

Bernard et al., "Deep Learning Techniques for Automatic MRI Cardiac Multi-Structures Segmentation
and Diagnosis", IEEE TMI 2018, https://www.creatis.insa-lyon.fr/Challenge/acdc/
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from artifactgen.data.base import Catalog, decode_each, is_of_the_file
from artifactgen.data.content import content_digest
from artifactgen.data.image import MAX_PIXELS, centre_crop_or_pad, centred, resize, scale_to_unit
from artifactgen.data.nifti import read_frames
from artifactgen.data.stored import keep
from artifactgen.errors import ConfigError, DataError
from artifactgen.types import UNKNOWN_LABEL, Failure, Image, Sample

GROUPS = ("DCM", "HCM", "MINF", "NOR", "RV")
FRAME_NAMES = ("ED", "mid", "ES")

_LAYOUT = """Expected: <root>/training/patient001/{Info.cfg, patient001_4d.nii.gz}, …
          <root>/testing/patient101/{Info.cfg, patient101_4d.nii.gz}, …"""
_MAX_NAMED = 5
_BLOCKS = 8
"""Of a cine, for the digest of its content. They are packed by gzip, whose checksum is among them.
"""


@dataclass(frozen=True, slots=True)
class Patient:
    """One record: where its cine lies and what its `Info.cfg` says."""

    record_id: str
    folder: str
    """`training` or `testing`."""
    cine: str
    """Absolute path of the 4-D file."""
    content: bytes
    """Digest of the 4-D file."""
    frames: tuple[int, int, int]
    """Indices from 0 of end-diastole, the frame midway (rounded down) and end-systole."""
    group: str | None
    """Diagnosis; None where the release withholds it, as the challenge did for `testing`."""
    label: int


@dataclass(frozen=True, slots=True)
class PatientIndex:
    """The patients of a split, sorted by id."""

    patients: tuple[Patient, ...]

    def __len__(self) -> int:
        return len(self.patients)

    def record_ids(self, start: int, stop: int) -> list[str]:
        """Ids of rows `start` to `stop`."""
        return [patient.record_id for patient in self.patients[start:stop]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CmrAcdc:
    """Middle slice of each patient's cine: end-diastole, mid-way and end-systole as 3 channels.

    Record = patient, id = name of its folder. `test` is the folder `testing`; `train` and `val` are
    parts of `training`, stratified by diagnosis: within a group the ids are ranked by
    SHA-256 of `<seed>:<id>` and the first `val_fraction` of them (rounded to the nearest) are
    `val`. So the split depends on no library, and adding a group moves no patient of another. A
    file `splits.json` in the root, {split: [ids]}, replaces this rule.

    The image is float32 in [0, 1]: centre crop or zero-pad, each frame to its own range, resize.
    """

    root: str
    """Folder of the release; one with an inner `database` folder is accepted too."""
    image_size: tuple[int, int] | None = None
    crop_size: int | None = None
    """Side in pixels of the square crop before resizing; None = `image_size`, nothing resized."""
    val_fraction: float = 0.2
    seed: int = 2022
    classes: tuple[str, ...] | None = None
    """Diagnoses in the order of their labels; None = alphabetical."""
    max_pixels: int = MAX_PIXELS
    """A record whose frames have more, H × W, is a `Failure`."""
    keep_stored: bool = False
    """Whether samples bring the whole frames to draw on; filled by the driver."""

    def scan(self) -> Catalog:
        """List the patients and read their `Info.cfg`; no image is decoded.

        Raises:
            DataError: no release at the root, or unusable patients (the first five are named).
            ConfigError: `val_fraction` is no share.
        """
        if not 0 <= self.val_fraction <= 1:
            raise ConfigError(f"data.val_fraction={self.val_fraction} must lie between 0 and 1")
        classes = self.classes or GROUPS
        patients = _scan_patients(Path(self.root), classes)
        splits = _listed_splits(Path(self.root), patients) or self._own_splits(patients)
        return Catalog(
            splits={name: PatientIndex(rows) for name, rows in splits.items()},
            classes=classes,
            channels=len(FRAME_NAMES),
            identity=_identity(splits, classes),
            content=_content(splits),
            frame_names=FRAME_NAMES,
        )

    def read(
        self, catalog: Catalog, split: str, start: int, stop: int
    ) -> Iterator[Sample | Failure]:
        """Decode patients `start` to `stop` of a split, each a `Sample` or a `Failure`."""
        index = catalog.splits[split]
        assert isinstance(index, PatientIndex)
        refs = [(patient.record_id, patient) for patient in index.patients[start:stop]]
        return decode_each(refs, self._decode, split=split, start=start, place=Path(self.root))

    def files(self, catalog: Catalog, split: str, start: int, stop: int) -> Iterator[str]:
        """Paths of the cines of patients `start` to `stop` of a split, and of their `Info.cfg`."""
        index = catalog.splits[split]
        assert isinstance(index, PatientIndex)
        for patient in index.patients[start:stop]:
            yield from (patient.cine, str(Path(patient.cine).with_name("Info.cfg")))

    def _decode(self, row: int, record_id: str, patient: Patient) -> Sample:
        assert self.image_size is not None, "the driver fills in the model's input size"
        frames_CHW = self._frames(patient)
        crop = self.image_size if self.crop_size is None else (self.crop_size, self.crop_size)
        image_CHW = resize(scale_to_unit(centre_crop_or_pad(frames_CHW, crop)), self.image_size)
        kept = None
        if self.keep_stored:
            region = centred(frames_CHW.shape[1:], crop)
            again = partial(self._whole_again, patient, crop)
            kept = keep(_as_bright_as(crop, frames_CHW), region, again)
        return Sample(record_id, row, image_CHW, patient.label, crop, kept)

    def _frames(self, patient: Patient) -> Image:
        return read_frames(Path(patient.cine), patient.frames, max_pixels=self.max_pixels)

    def _whole_again(self, patient: Patient, crop: tuple[int, int]) -> Image:
        return _as_bright_as(crop, self._frames(patient))

    def _own_splits(self, patients: Sequence[Patient]) -> dict[str, tuple[Patient, ...]]:
        training = [patient for patient in patients if patient.folder == "training"]
        testing = tuple(patient for patient in patients if patient.folder == "testing")
        val = self._val_ids(training)
        splits = {
            "train": tuple(patient for patient in training if patient.record_id not in val),
            "val": tuple(patient for patient in training if patient.record_id in val),
        }
        return (splits if training else {}) | ({"test": testing} if testing else {})

    def _val_ids(self, training: Sequence[Patient]) -> set[str]:
        chosen: set[str] = set()
        for group in {patient.group for patient in training}:
            ids = [patient.record_id for patient in training if patient.group == group]
            ids.sort(key=lambda name: hashlib.sha256(f"{self.seed}:{name}".encode()).digest())
            chosen.update(ids[: int(self.val_fraction * len(ids) + 0.5)])
        return chosen


def _as_bright_as(crop: tuple[int, int], frames_CHW: Image) -> Image:
    """Whole frames in [0, 1], scaled as their crop is, so that both look alike."""
    return scale_to_unit(frames_CHW, as_in=centre_crop_or_pad(frames_CHW, crop))


def _scan_patients(root: Path, classes: Sequence[str]) -> list[Patient]:
    base = root / "database" if (root / "database").is_dir() else root
    folders = [
        folder
        for part in ("training", "testing")
        if (base / part).is_dir()
        for folder in (base / part).iterdir()
        if folder.is_dir() and not folder.name.startswith(".")
    ]
    if not folders:
        raise DataError(f"No ACDC release at {root}: set data.root to its folder.\n{_LAYOUT}")
    patients: list[Patient] = []
    problems: list[str] = []
    for folder in sorted(folders, key=lambda folder: folder.name):
        try:
            patients.append(_scan_patient(folder, classes))
        except DataError as error:
            problems.append(f"{folder.parent.name}/{folder.name}: {error}")
    counts = Counter(patient.record_id for patient in patients)
    problems += [f"{name}: twice, in training and testing" for name in counts if counts[name] > 1]
    _raise_first(problems, f"{root}: {len(problems)} patients cannot be used")
    return patients


def _scan_patient(folder: Path, classes: Sequence[str]) -> Patient:
    info = _read_info(folder / "Info.cfg")
    end_diastole, end_systole, n_frames = (_frame(info, key) for key in ("ED", "ES", "NbFrame"))
    if max(end_diastole, end_systole) > n_frames:
        raise DataError(f"ED={end_diastole}, ES={end_systole} outside its {n_frames} frames")
    group = info.get("Group")
    if group is None and folder.parent.name == "training":
        raise DataError("no Group in Info.cfg")
    if group is not None and group not in classes:
        raise DataError(f"group {group} is none of {', '.join(classes)}; see data.classes")
    cine = _cine(folder)
    midway = (end_diastole + end_systole) // 2
    return Patient(
        record_id=folder.name,
        folder=folder.parent.name,
        cine=str(cine.absolute()),
        content=content_digest(cine, blocks=_BLOCKS),
        frames=(end_diastole - 1, midway - 1, end_systole - 1),
        group=group,
        label=UNKNOWN_LABEL if group is None else classes.index(group),
    )


def _cine(folder: Path) -> Path:
    for ending in (".nii.gz", ".nii"):
        if (cine := folder / f"{folder.name}_4d{ending}").is_file():
            return cine
    raise DataError(f"no {folder.name}_4d.nii.gz")


def _read_info(path: Path) -> dict[str, str]:
    """`Info.cfg`: one `key: value` on each line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DataError("no Info.cfg") from error
    except OSError as error:
        if is_of_the_file(error):
            raise DataError(f"Info.cfg cannot be read: {error}") from error
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"Info.cfg cannot be read: {error}") from error
    pairs = (line.partition(":") for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _frame(info: Mapping[str, str], key: str) -> int:
    """A frame's number, counted from 1."""
    value = info.get(key)
    if value is None:
        raise DataError(f"no {key} in Info.cfg")
    if not value.isdecimal() or int(value) < 1:
        raise DataError(f"{key}: {value} in Info.cfg is no frame number (from 1)")
    return int(value)


def _listed_splits(
    root: Path, patients: Sequence[Patient]
) -> dict[str, tuple[Patient, ...]] | None:
    """The splits that `splits.json` lists, or None where there is no such file."""
    path = root / "splits.json"
    if not path.is_file():
        return None
    listed = _read_splits(path)
    by_id = {patient.record_id: patient for patient in patients}
    counts = Counter(name for ids in listed.values() for name in ids)
    problems = [f"{name}: no such patient" for name in counts if name not in by_id]
    problems += [f"{name}: listed {counts[name]} times" for name in counts if counts[name] > 1]
    _raise_first(problems, f"{path}: {len(problems)} ids are wrong")
    return {split: tuple(by_id[name] for name in sorted(ids)) for split, ids in listed.items()}


def _read_splits(path: Path) -> dict[str, list[str]]:
    try:
        listed = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}") from error
    if isinstance(listed, dict) and all(
        isinstance(ids, list) and all(isinstance(name, str) for name in ids)
        for ids in listed.values()
    ):
        return listed
    raise DataError(f'{path}: expected {{"train": ["patient001", …], …}}')


def _raise_first(problems: Sequence[str], summary: str) -> None:
    if problems:
        more = ["…"] if len(problems) > _MAX_NAMED else []
        raise DataError("\n  ".join([f"{summary}:", *problems[:_MAX_NAMED], *more]))


def _identity(splits: Mapping[str, Iterable[Patient]], classes: Sequence[str]) -> str:
    digest = hashlib.sha256(repr(tuple(classes)).encode())
    for split, patients in sorted(splits.items()):
        for patient in patients:
            # Where the release lies, and whether in `database/`, makes no difference.
            name = f"{patient.folder}/{patient.record_id}/{Path(patient.cine).name}"
            fact = (split, name, patient.group, patient.frames)
            digest.update(repr(fact).encode())
    return digest.hexdigest()


def _content(splits: Mapping[str, Iterable[Patient]]) -> str:
    digest = hashlib.sha256()
    for _, patients in sorted(splits.items()):
        for patient in patients:
            digest.update(patient.content)
    return digest.hexdigest()
