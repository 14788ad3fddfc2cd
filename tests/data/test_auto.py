"""What is recognised at a path, and that the command which is named reads it."""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers.dicom import write_series
from PIL import Image

from artifactgen.data.auto import answer
from artifactgen.errors import DataError
from distributed.instantiate import instantiate
from distributed.launch import run_command

VOLUME = np.arange(120, dtype=np.int16).reshape(4, 5, 6)


def picture_file() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 8)).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(picture_file())


def table(path: Path, /, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((2, 8, 8), np.uint8)


def nifti(path: Path) -> None:
    nib.save(nib.Nifti1Image(VOLUME, np.eye(4)), path)


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("a.png")
        info.size = len(picture_file())
        archive.addfile(info, io.BytesIO(picture_file()))


def packed(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/b.png", picture_file())


def manifest(path: Path) -> None:
    pictures(path.parent, "a.png")
    path.write_text("record_id,path,label\na,a.png,x\n")


CASES: dict[str, tuple[Callable[[Path], Any], str, str, str]] = {
    "pictures": (
        lambda p: pictures(p, "train/a/1.png", "train/b/2.jpg", "validation/a/3.tif"),
        "",
        "a folder of pictures, splits train (2), val (1); 2 classes: a, b",
        "data=image_folder data.root=",
    ),
    "pictures alone": (
        lambda p: pictures(p, "1.png"),
        "",
        "a folder of pictures, splits test (1); no classes",
        "data=image_folder data.root=",
    ),
    "one picture": (
        lambda p: pictures(p, "1.png"),
        "1.png",
        "a PNG image; a folder of them is a data set",
        "data=image_folder data.root=",
    ),
    "tables": (
        lambda p: [table(p / f"{s}.parquet", image=[picture_file()]) for s in ("train", "test")],
        "",
        "2 tables of pictures; splits test (1), train (1)",
        "data=parquet data.path=",
    ),
    "a table": (
        lambda p: table(p / "a.parquet", image=[picture_file()], label=[0]),
        "a.parquet",
        "a table of pictures in image, labels in label",
        "data=parquet data.path=",
    ),
    "a table of paths": (
        lambda p: [table(p / "a.parquet", path=["a.png"]), pictures(p, "a.png")],
        "a.parquet",
        "a table of paths",
        "data=manifest data.path=",
    ),
    "CSV": (
        lambda p: manifest(p / "a.csv"),
        "a.csv",
        "a table of paths",
        "data=manifest data.path=",
    ),
    "CSV beside pictures": (
        lambda p: manifest(p / "a.csv"),
        "",
        "a table of paths",
        "data=manifest data.path=",
    ),
    "shards": (
        lambda p: [tar(p / "train-0.tar")],
        "",
        "1 tar shard; splits train (1)",
        "data=webdataset 'data.path=",
    ),
    "a shard": (
        lambda p: tar(p / "0.tar"),
        "0.tar",
        "a tar archive, as webdataset has them",
        "data=webdataset data.path=",
    ),
    "HDF5": (lambda p: hdf5(p / "a.h5"), "a.h5", "an HDF5 file", "data=hdf5 data.path="),
    "HDF5 files": (lambda p: hdf5(p / "a.h5"), "", "1 HDF5 file", "data=hdf5 'data.path="),
    "NIfTI": (
        lambda p: [nifti(p / "a.nii.gz"), nifti(p / "b.nii")],
        "",
        "2 NIfTI volumes",
        "data=nifti_folder data.root=",
    ),
    "DICOM": (
        lambda p: write_series(p / "s", VOLUME, series="1.2"),
        "",
        "4 DICOM files",
        "data=dicom_folder data.root=",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_there_is_recognised_and_the_command_reads_it(tmp_path: Path, name: str) -> None:
    make, below, what, options = CASES[name]
    tmp_path = tmp_path / "my data"
    tmp_path.mkdir()
    make(tmp_path)
    told = answer(str(tmp_path / below), "go")
    first, command = told.split("\n")
    assert first == f"{tmp_path / below}: {what}. Use:"
    quoted = options.replace(" data.", " 'data.") if " '" not in options else options
    assert command.startswith(f"  go {quoted}")
    _, _, choice, place = shlex.split(command.replace("  go", "x y"))
    key, _, value = place.removeprefix("data.").partition("=")
    assert read(choice.removeprefix("data="), {key: value}) > 0


def read(choice: str, place: dict[str, str]) -> int:
    """How many records there are."""
    from distributed.usage import config_dir

    text = (config_dir() / "data" / f"{choice}.yaml").read_text(encoding="utf-8")
    target = re.findall(r"^_target_: (\S+)", text, re.M)[0]
    source: Any = instantiate(target, place, section="data", base=object)
    return sum(len(index) for index in source.scan().splits.values())


def test_the_release_of_acdc(acdc_root: Path) -> None:
    told = answer(str(acdc_root), "go")
    assert "the ACDC release, 13 patients in training and testing. Use:" in told
    assert told.endswith(f"  go data=cmr_acdc data.root={acdc_root}")


def test_a_folder_that_datasets_saved(tmp_path: Path) -> None:
    import datasets  # slow, and only here

    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"image": [picture_file()]}).save_to_disk(tmp_path)
    told = answer(str(tmp_path), "go")
    assert "a data set that datasets saved to disk. Use:" in told
    assert read("parquet", {"path": str(tmp_path)}) == 1


@pytest.mark.parametrize(
    ("make", "below", "told"),
    [
        (lambda p: None, "", "an empty folder. Is it the right one, and is it mounted?"),
        (lambda p: (p / "a.bin").touch(), "a.bin", "an empty file."),
        (lambda p: packed(p / "a.zip"), "a.zip", r"a zip archive of .*: unzip \S*a.zip"),
        (lambda p: packed(p / "a.zip"), "", r"1 packed archive.*: unzip \S*a.zip"),
        (
            lambda p: shutil.make_archive(str(p / "a"), "gztar", p),
            "a.tar.gz",
            r"a tar archive, packed by gzip.*: tar -xf \S*a.tar.gz",
        ),
        (lambda p: torch.save({}, p / "m.pth"), "m.pth", "Is it the model. Then ckpt_path="),
        (lambda p: (p / "a.xyz").write_bytes(b"\0"), "", r"not known \(.xyz 1\).*data=custom"),
        (
            lambda p: (p / "a.csv").write_text("a,b\n1,2\n3,4\n"),
            "a.csv",
            "data.path_column=<column>'\nIts columns are a, b: which one holds the paths",
        ),
        (
            lambda p: (p / "a.parquet").write_bytes(b"PAR1" * 9),
            "a.parquet",
            "a broken table .*a.parquet cannot be read as a table",
        ),
    ],
    ids=["folder", "file", "zip", "zips", "tgz", "model", "unknown", "columns", "broken"],
)
def test_what_nothing_reads_as_it_is(
    tmp_path: Path, make: Callable[[Path], Any], below: str, told: str
) -> None:
    make(tmp_path)
    assert re.search(told, answer(str(tmp_path / below), "go"))


def test_what_is_not_there_is_told_with_what_is_near(tmp_path: Path) -> None:
    pictures(tmp_path, "images/a.png")
    with pytest.raises(DataError, match=r"no such file or folder\. Did you mean images\?"):
        answer(str(tmp_path / "image"), "go")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="pipe is no regular file and no folder"):
        answer(str(tmp_path / "pipe"), "go")


def test_the_command_needs_no_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path, "images/a.png")
    monkeypatch.chdir(tmp_path)
    assert run_command(["data=auto", "data.path='images'", "ckpt_path=a b.pth"]) == 2
    assert capsys.readouterr().err.endswith(
        "images: a folder of pictures, splits test (1); no classes. Use:\n"
        "  generate_artifacts 'ckpt_path=a b.pth' experiment=<name> data=image_folder "
        "data.root=images\n"
    )
    assert run_command(["data=auto"]) == 2
    assert "data=auto looks at data.path=…" in capsys.readouterr().err
