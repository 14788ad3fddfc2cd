"""Rows 6, 7, 9, 10 and 11: HDF5 files, pixels, splits, and record ids that are not as usual."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers.broken import assert_others_equal, assert_refused, failures, picture
from helpers.workspace import Workspace, artifacts

from artifactgen.store.layout import safe_name

RUN = ("experiment=embeddings/tiny", "ckpt_path=model.ckpt", "data.path=data.h5")
SIZE = (64, 64)


def images(records: int = 6) -> np.ndarray:
    return np.stack([picture(n, SIZE) for n in range(records)])


def write(path: Path, **datasets: Any) -> Path:
    with h5py.File(path, "w") as file:
        for key, values in datasets.items():
            file[key.replace("__", "/")] = values
    return path


@pytest.fixture
def workspace(tmp_path: Path, tiny) -> Workspace:
    return tiny(tmp_path, "hdf5")


def cut(path: Path) -> None:
    write(path, images=images())
    path.write_bytes(path.read_bytes()[:-2000])


def killed_writer(path: Path) -> None:
    """Its writer ends without closing it, as by kill -9."""
    code = (
        "import h5py, os, sys\n"
        "file = h5py.File(sys.argv[1], 'w', libver='latest')\n"
        "file['images'] = [[[1.0]]]\n"
        "file.flush()\n"
        "os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", code, path], check=False)


def external(path: Path) -> None:
    write(path.with_name("other.h5"), images=images())
    with h5py.File(path, "w") as file:
        file["images"] = h5py.ExternalLink("other.h5", "images")


def unknown_filter(path: Path) -> None:
    """Filter 32004 is LZ4, which plain HDF5 does not have."""
    with h5py.File(path, "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1, 64, 64, 3))
        plist.set_filter(32004, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple((6, 64, 64, 3))
        h5py.h5d.create(file.id, b"images", h5py.h5t.NATIVE_UINT8, space, plist)


def objects(path: Path) -> None:
    with h5py.File(path, "w") as file:
        kind = h5py.vlen_dtype(np.uint8)
        file.create_dataset("images", (6,), dtype=kind)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (cut, r"data\.h5 cannot be read as HDF5: .*truncated.* It may be cut short or damaged"),
    "empty": (lambda path: path.write_bytes(b""), r"data\.h5 is (an )?empty|0 bytes"),
    "text": (lambda path: path.write_text("no\n" * 99), r"data\.h5 is .*text"),
    "killed writer": (killed_writer, "is marked as open for writing: a program is writing it, or"),
    "key missing": (
        lambda path: write(path, pixels=images()),
        r"no data set images, nor <split>/images\. The file holds: pixels \(6, 64, 64, 3\) uint8\.",
    ),
    "lengths differ": (
        lambda path: write(path, images=images(), labels=[0, 1]),
        r"/labels has shape \(2,\); /images has 6 images",
    ),
    "wrong rank": (lambda path: write(path, images=[1.0, 2.0]), r"has shape \(2,\); expected"),
    "objects": (objects, "holds object, not numbers"),
    "words": (lambda path: write(path, images=["a", "b"]), "holds object, not numbers"),
    "external link": (external, "images is a link; only what the file itself holds is read"),
    "unknown filter": (unknown_filter, "needs the filter .*; try: pip install hdf5plugin"),
    "signed": (
        lambda path: write(path, images=images().astype(np.int16) - 300),
        "holds int16, a type without a range that pixels could be scaled by. Store uint8",
    ),
    "none": (lambda path: None, r"data\.path=data\.h5 matches no file"),
    "label beyond": (
        lambda path: write(path, images=images(), labels=[0, 1, 2, 0, 1, 2_000_000]),
        r"the label of data_5 is 2000000; labels are indices of classes",
    ),
    "twice": (
        lambda path: write(path, images=images(), record_ids=list("aabbcd")),
        r"2 record ids occur twice: a, b\.",
    ),
    "looks the same": (
        lambda path: write(path, images=images(2), record_ids=["é", "e\u0301"]),
        "1 record ids occur twice: é",
    ),
    "no record": (
        lambda path: write(path, images=images()[:0]),
        "The data set has no records in any split",
    ),
}
"""Files that end with 2 (rows 6, 7, 9 and 10), and what is said."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize("what", FILES)
def test_a_file_that_cannot_be_used_is_refused(
    workspace: Workspace, tmp_path: Path, what: str
) -> None:
    make, told = FILES[what]
    make(tmp_path / "data.h5")
    assert_refused(workspace.run(*RUN, "output_dir=out"), told, tmp_path / "out")


def test_a_file_that_is_written_at_this_moment_is_refused(
    workspace: Workspace, tmp_path: Path
) -> None:
    code = (
        "import h5py, sys\n"
        "file = h5py.File(sys.argv[1], 'w')\n"
        "file['images'] = [[[1.0]]]\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "data.h5")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as writer:  # type: ignore[call-overload]
        assert writer.stdout.readline() == b"open\n"
        outcome = workspace.run(*RUN, "output_dir=out")
        writer.stdin.close()
    told = r"data\.h5 is open for writing in another program\. Wait until that has closed it"
    assert_refused(outcome, told, tmp_path / "out")


def test_ids_repeated_across_files_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    for name in ("one", "two"):
        ids = [f"r{n}" for n in range(6)]
        write(tmp_path / f"{name}.h5", images=images(), record_ids=ids)
    outcome = workspace.run(*RUN, "data.path=*.h5", "output_dir=out")
    assert_refused(
        outcome,
        r"6 record ids occur twice: r0, r1, r2, r3, r4, …",
        tmp_path / "out",
    )


def run(workspace: Workspace, output: str, *options: str, data: str = "data.h5") -> str:
    outcome = workspace.run(*RUN, f"data.path={data}", f"output_dir={output}", *options)
    assert outcome.exit_code == 0, outcome.text
    assert "Traceback" not in outcome.text
    return outcome.text


def test_pixels_that_are_no_numbers_and_constant_ones(workspace: Workspace, tmp_path: Path) -> None:
    """Row 7: NaN and infinity are failures; a constant image and float64 are records."""
    clean = images().astype(np.float64) / 255
    clean[5] = 0.25
    write(tmp_path / "clean.h5", images=clean.astype(np.float32), record_ids=list("abcdef"))
    broken = clean.copy()
    broken[1, 3, 4, 0], broken[2, 0, 0, 0], broken[3, 9, 9, 2] = np.nan, -np.inf, 1e300
    write(tmp_path / "data.h5", images=broken, record_ids=list("abcdef"))
    assert "3 failed" in run(workspace, "out")
    run(workspace, "clean", data="clean.h5")
    reasons = failures(tmp_path / "out")
    assert set(reasons.values()) == {"NaN or Inf among the pixels, or beyond float32"}
    assert_others_equal(tmp_path / "out", tmp_path / "clean", ["b", "c", "d"])


def test_bool_is_black_and_white(workspace: Workspace, tmp_path: Path) -> None:
    masks = images()[..., :1] > 127
    write(tmp_path / "data.h5", images=masks, record_ids=list("abcdef"))
    write(tmp_path / "clean.h5", images=masks * np.uint8(255), record_ids=list("abcdef"))
    run(workspace, "out")
    run(workspace, "clean", data="clean.h5")
    assert_others_equal(tmp_path / "out", tmp_path / "clean", [])


def test_an_empty_split_is_a_file_without_rows(workspace: Workspace, tmp_path: Path) -> None:
    """Row 9."""
    write(tmp_path / "data.h5", train__images=images(), val__images=images()[:0])
    run(workspace, "out")
    content = torch.load(tmp_path / "out/embeddings/val_embeddings.pt", weights_only=True)
    width = torch.load(tmp_path / "out/embeddings/train_embeddings.pt", weights_only=True)
    assert content["embeddings"].shape == (0, width["embeddings"].shape[1])
    assert content["record_ids"] == []
    assert (tmp_path / "out" / "_SUCCESS.json").exists()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("records", [1, 2])
def test_fewer_records_than_workers(workspace: Workspace, tmp_path: Path, records: int) -> None:
    write(tmp_path / "data.h5", images=images(records))
    text = run(workspace, "out", "cluster.workers=4", "data.num_workers=8")
    assert f"Done: {records} record" in text


def test_an_unknown_split(workspace: Workspace, tmp_path: Path) -> None:
    write(tmp_path / "data.h5", train__images=images())
    outcome = workspace.run(*RUN, "splits=[tarin]", "output_dir=out")
    told = r"splits: the data set has no tarin\. Did you mean train\?"
    assert_refused(outcome, told, tmp_path / "out")
    outcome = workspace.run(*RUN, "splits=[val]", "output_dir=out")
    told = r"splits=\['val'\]: the data set has none of them\. It has: train"
    assert_refused(outcome, told, tmp_path / "out")


IDS = [
    *("../../x", "/etc/x", "a/b", "..", ".", "", "é" * 150, "emoji 🫀", "CON", "con.txt"),
    *("x.", " x", "A", "a", "b\\c", "~", "%41", "record", "-rf", "$(id)", "new\nline", "\u202eabc"),
]


def test_ids_of_every_kind_stay_inside_and_are_told_apart(
    workspace: Workspace, tmp_path: Path
) -> None:
    """Rows 10 and 11."""
    ids = [name.encode() for name in IDS] + [b"lone \xff"]
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["images"] = images(len(ids))
        stored = file.create_dataset("record_ids", (len(ids),), h5py.string_dtype("utf-8"))
        for row, name in enumerate(ids):
            stored[row] = name
    before = set(tmp_path.rglob("*"))
    run(workspace, "out", "generate_attention=false")
    rows = pq.read_table(tmp_path / "out" / "manifest.parquet").to_pylist()
    assert [row["record_id"] for row in rows] == [*IDS, r"lone \udcff"]
    folders = [{Path(name).parts[:-1] for name in row["gradcam_files"]} for row in rows]
    assert folders == [{("gradcam", safe_name(name))} for name in (*IDS, "lone \udcff")]
    made = {name for name in artifacts(tmp_path / "out") if name.startswith("gradcam/")}
    assert made == {name for row in rows for name in row["gradcam_files"]}
    assert len(made) == 3 * len(ids)
    outside = {p for p in tmp_path.rglob("*") if tmp_path / "out" not in (p, *p.parents)}
    assert outside == before


def test_a_record_of_an_odd_id_is_found_by_it(workspace: Workspace, tmp_path: Path) -> None:
    write(tmp_path / "data.h5", images=images(2), record_ids=["../../x", "y"])
    run(workspace, "out", "record_id='../../x'")
    assert [p.name for p in (tmp_path / "out" / "gradcam").iterdir()] == [safe_name("../../x")]
