"""The same pictures in folders, tables, shards and a data set of one's own: the same artifacts."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from helpers.pictures import user_folder, write_pictures
from helpers.workspace import EXPERIMENT, Workspace

from artifactgen import load_embeddings

MINE = """\
from pathlib import Path
from PIL import Image

class Mine:
    classes = ("cat", "dog")

    def __init__(self, split):
        self.files = sorted(Path("pictures", split).rglob("*.png"))

    def __len__(self):
        return len(self.files)

    def __getitem__(self, row):
        file = self.files[row]
        label = self.classes.index(file.parent.name)
        return {"image": Image.open(file), "label": label, "id": f"{file.parent.name}/{file.stem}"}
"""
SPLITS = {"train": 5, "test": 4}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    write_pictures(tmp_path, SPLITS)
    for split in SPLITS:
        pack(tmp_path, split)
    (tmp_path / "mine.py").write_text(MINE)
    return user_folder(tmp_path, source="image_folder", batch_size=3)


def pack(root: Path, split: str) -> None:
    files = sorted((root / "pictures" / split).rglob("*.png"))
    names = [f"{file.parent.name}/{file.stem}" for file in files]
    columns = {
        "image": [{"bytes": file.read_bytes(), "path": None} for file in files],
        "label": [file.parent.name for file in files],
        "record_id": names,
    }
    pq.write_table(pa.table(columns), root / f"{split}.parquet", row_group_size=2)
    with tarfile.open(root / f"{split}-0.tar", "w") as archive:
        for name, file in zip(names, files, strict=True):
            (root / "label").write_text(file.parent.name)
            archive.add(file, f"{name}.png")
            archive.add(root / "label", f"{name}.cls")


SOURCES = {
    "parquet": ["data=parquet", "data.path=*.parquet"],
    "webdataset": ["data=webdataset", "data.path={train,test}-{0..0}.tar"],
    "shards": ["data=webdataset", "data.train=train-*.tar", "data.test=test-*.tar"],
    "custom": [
        *("data=custom", "data.target=mine.Mine", 'data.kwargs={split: "{split}"}'),
        "data.splits=[train,test]",
    ],
}


@pytest.mark.parametrize("name", SOURCES)
def test_they_have_the_same_embeddings_and_pictures(workspace: Workspace, name: str) -> None:
    command = (EXPERIMENT, "ckpt_path=model.ckpt", "precision=32-true", "page=[]")
    expected = workspace.run(*command, "data.root=pictures", "output_dir=a")
    assert expected.exit_code == 0, expected.text
    outcome = workspace.run(*command, *SOURCES[name], "output_dir=b")
    assert outcome.exit_code == 0, outcome.text
    for split, count in SPLITS.items():
        ours, theirs = (
            load_embeddings(workspace.root / place / "embeddings" / f"{split}_embeddings.pt")
            for place in "ba"
        )
        assert ours.record_ids == theirs.record_ids
        assert len(ours.record_ids) == count
        assert list(ours.classes) == ["cat", "dog"]
        torch.testing.assert_close(ours.embeddings, theirs.embeddings, rtol=0, atol=0)
        torch.testing.assert_close(ours.labels, theirs.labels, rtol=0, atol=0)
    drawn = [
        {p.relative_to(workspace.root / place): p.read_bytes() for p in found}
        for place in "ab"
        for found in [sorted((workspace.root / place).rglob("*.png"))]
    ]
    assert drawn[0] == drawn[1] != {}
    again = workspace.run(*command, *SOURCES[name], "output_dir=b")
    assert "Complete: nothing to do" in again.text
