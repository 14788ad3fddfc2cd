"""Row 17: a data set that changes while a run reads it is found before anything is merged."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel as nib
import numpy as np
import pytest
from helpers.broken import encoded, picture
from helpers.workspace import CLASSES, Workspace, artifacts, assert_exact

from artifactgen.data.base import Catalog
from artifactgen.data.cmr_acdc import CmrAcdc
from artifactgen.data.hdf5 import Hdf5
from artifactgen.data.image_folder import ImageFolder
from artifactgen.data.stamps import changed_files, take_stamps
from artifactgen.demo.phantom import write_phantoms
from artifactgen.types import Shard

RUN = ("experiment=embeddings/tiny", "ckpt_path=model.ckpt", "page=[]")


def write_folder(root: Path) -> None:
    for n in range(9):
        place = root / "data" / CLASSES[n % 3]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{n}.png").write_bytes(encoded(picture(n)))


def write_hdf5(root: Path, *, first: int = 0, name: str = "data.h5") -> None:
    with h5py.File(root / name, "w") as file:
        file["images"] = np.stack([picture(first + n, (64, 64)) for n in range(9)])
        file["labels"] = np.arange(9) % 3


def write_acdc(root: Path) -> None:
    write_phantoms(root / "data", training=0, testing=9)


def other_cine(root: Path) -> None:
    path = next((root / "data").glob("testing/*/*_4d.nii.gz"))
    cine = nib.load(path)
    changed = nib.Nifti1Image(np.asarray(cine.dataobj)[::-1], cine.affine, cine.header)
    nib.save(changed, path.parent / "new.nii.gz")
    (path.parent / "new.nii.gz").replace(path)


def other_hdf5(root: Path) -> None:
    write_hdf5(root, first=50, name="new.h5")
    (root / "new.h5").replace(root / "data.h5")


def other_picture(root: Path) -> None:
    (root / "data" / "cat" / "0.png").write_bytes(encoded(picture(50)))


def flipped_bit(root: Path) -> None:
    """Of the same size, where no sample of the content may look."""
    path = root / "data" / "cat" / "0.png"
    data = bytearray(path.read_bytes())
    data[20] ^= 0
    path.write_bytes(data)


@dataclass(frozen=True)
class Kind:
    data: str
    options: str
    write: Callable[[Path], None]
    change: Callable[[Path], None]
    named: str
    shards: str


KINDS = {
    "hdf5": Kind("hdf5", "data.path=data.h5", write_hdf5, other_hdf5, "data.h5", "3 shards of 3"),
    "picture": Kind(
        "image_folder", "data.root=data", write_folder, other_picture, "cat/0.png", "1 shard of 3"
    ),
    "touched": Kind(
        "image_folder", "data.root=data", write_folder, flipped_bit, "cat/0.png", "1 shard of 3"
    ),
    "nifti": Kind(
        "cmr_acdc",
        "data.root=data model.num_classes=3",
        write_acdc,
        other_cine,
        "_4d.nii.gz",
        "1 shard of 3",
    ),
}
SOURCES = {"hdf5": Hdf5, "image_folder": ImageFolder, "cmr_acdc": CmrAcdc}


READER, FIRST_LOOK = "reader", "MainThread"
"""Beginnings of the names of the threads that read."""


def at_row(
    monkeypatch: pytest.MonkeyPatch,
    data: str,
    row: int,
    do: Callable[[], object],
    *,
    thread: str = READER,
) -> None:
    """Let something happen, once, when a source of ours is to read a row."""
    source, done = SOURCES[data], threading.Event()
    read = source.read

    def reading(self, catalog: Catalog, split: str, start: int, stop: int):
        here = threading.current_thread().name.startswith(thread)
        if here and start <= row < stop and not done.is_set():
            done.set()
            do()
        return read(self, catalog, split, start, stop)

    monkeypatch.setattr(source, "read", reading)


@pytest.mark.parametrize(
    ("name", "thread"), [*((name, READER) for name in KINDS), ("picture", FIRST_LOOK)]
)
def test_what_was_read_of_a_file_that_changes_is_done_again(
    tmp_path: Path, tiny, monkeypatch: pytest.MonkeyPatch, name: str, thread: str
) -> None:
    kind = KINDS[name]
    workspace: Workspace = tiny(tmp_path, kind.data)
    kind.write(tmp_path)
    at_row(monkeypatch, kind.data, 7, lambda: kind.change(tmp_path), thread=thread)
    outcome = workspace.run(*RUN, *kind.options.split())
    assert outcome.exit_code == 1, outcome.text
    assert "The data set changed while the run read it, in 1 file:\n  " in outcome.text
    assert kind.named in outcome.text
    assert f"{kind.shards}, will be done again." in outcome.text
    assert "What is done stays done. Resume with:\n" in outcome.text
    assert "Traceback" not in outcome.text
    output = tmp_path / "artifacts" / "tiny"
    assert not (output / "_SUCCESS.json").exists()
    assert not list(output.glob("embeddings/*"))
    resumed = workspace.run(*RUN, *kind.options.split())
    assert resumed.exit_code == 0, resumed.text
    assert workspace.run(*RUN, *kind.options.split(), "output_dir=fresh").exit_code == 0
    assert_exact(output, tmp_path / "fresh")
    assert "Complete: nothing to do" in workspace.run(*RUN, *kind.options.split()).text


def add_a_picture(root: Path) -> None:
    (root / "data" / "cat" / "new.png").write_bytes(encoded(picture(60)))


def take_one_away(root: Path) -> None:
    (root / "data" / "cat" / "0.png").unlink()


def rename_one(root: Path) -> None:
    (root / "data" / "cat" / "0.png").rename(root / "data" / "dog" / "0.png")


def take_all_away(root: Path) -> None:
    shutil.rmtree(root / "data" / "cat")
    for name in ("dog", "eel"):
        shutil.rmtree(root / "data" / name)
    (root / "data" / "cat").mkdir()


OTHER_RECORDS = {
    "more": (add_a_picture, "test had 9 records and has 10"),
    "fewer": (take_one_away, "test had 9 records and has 8"),
    "others": (rename_one, "ids, labels or names of files are others"),
    "none": (take_all_away, "Now it cannot be used: There is no picture"),
}


@pytest.mark.parametrize("name", OTHER_RECORDS)
def test_other_records_end_the_run_and_what_is_mixed_is_refused(
    tmp_path: Path, tiny, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    change, told = OTHER_RECORDS[name]
    workspace: Workspace = tiny(tmp_path, "image_folder")
    write_folder(tmp_path)
    kept = shutil.copytree(tmp_path / "data", tmp_path / "kept")
    at_row(monkeypatch, "image_folder", 8, lambda: change(tmp_path))
    outcome = workspace.run(*RUN, "data.root=data")
    assert outcome.exit_code == 1, outcome.text
    assert "The data set changed while the run read it" in outcome.text
    assert told in outcome.text
    assert "add overwrite=true, or give another output_dir" in outcome.text
    assert "Resume with" not in outcome.text
    assert not (tmp_path / "artifacts" / "tiny" / "_SUCCESS.json").exists()
    shutil.rmtree(tmp_path / "data")
    kept.rename(tmp_path / "data")
    refused = workspace.run(*RUN, "data.root=data")
    assert refused.exit_code == 2, "it may hold artifacts of both"
    assert "changed while the run read it" in refused.text
    anew = workspace.run(*RUN, "data.root=data", "overwrite=true")
    assert anew.exit_code == 0, anew.text


def test_pictures_of_a_record_that_breaks_meanwhile_do_not_stay(
    tmp_path: Path, tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace: Workspace = tiny(tmp_path, "image_folder")
    write_folder(tmp_path)
    broken = tmp_path / "data" / "cat" / "0.png"
    at_row(monkeypatch, "image_folder", 8, lambda: broken.write_bytes(b""))
    assert workspace.run(*RUN, "data.root=data").exit_code == 1
    output = tmp_path / "artifacts" / "tiny"
    assert any("cat%2F0" in name for name in artifacts(output))
    assert workspace.run(*RUN, "data.root=data").exit_code == 0
    assert not any("cat%2F0" in name for name in artifacts(output))


def test_a_single_record_whose_file_changes(
    tmp_path: Path, tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace: Workspace = tiny(tmp_path, "image_folder")
    write_folder(tmp_path)
    options = (*RUN, "data.root=data", "record_id=cat/0")
    calls: list[int] = []
    read = ImageFolder._decode_row

    def decode(self, catalog, row, record_id, found):
        calls.append(row)
        if calls.count(0) == 2:  # the first look has read it
            other_picture(tmp_path)
        return read(self, catalog, row, record_id, found)

    monkeypatch.setattr(ImageFolder, "_decode_row", decode)
    outcome = workspace.run(*options)
    assert outcome.exit_code == 1, outcome.text
    assert "cat/0.png\nWhat was read of it, 1 shard of 1, will be done again." in outcome.text
    assert workspace.run(*options).exit_code == 0


def test_stamps_tell_which_files_of_which_shards(tmp_path: Path) -> None:
    write_folder(tmp_path)
    source = ImageFolder(root=str(tmp_path / "data"))
    catalog = source.scan()
    shards = [Shard("test", index, 3 * index, 3 * index + 3) for index in range(3)]
    before = take_stamps(source, catalog, shards)
    assert changed_files(source, catalog, before) == {}
    (tmp_path / "data" / "dog" / "1.png").unlink()
    (tmp_path / "data" / "eel" / "5.png").write_bytes(b"x")
    (tmp_path / "data" / "eel" / "8.png").touch()
    found = changed_files(source, catalog, before)
    assert {shard.index: [Path(path).name for path in paths] for shard, paths in found.items()} == {
        1: ["1.png"],
        2: ["5.png", "8.png"],
    }
    assert sum(len(stamps) for stamps in before.values()) == 9


def test_a_source_that_names_no_files_has_no_stamps() -> None:
    class Other:
        image_size = None

    assert take_stamps(Other(), Catalog({}, (), 3, ""), [Shard("test", 0, 0, 1)]) == {}  # type: ignore[arg-type]
