"""What every data source keeps to, whatever it reads.

A new source is one YAML in `configs/data/` and one maker in `MAKERS` below.
"""

from __future__ import annotations

import dataclasses
import importlib
import io
import pickle
import random
import re
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from helpers.dicom import write_series
from PIL import Image

from artifactgen.data.base import Catalog, InFiles, Source
from artifactgen.data.custom import Custom
from artifactgen.data.reading import read_range, scan_source
from artifactgen.data.stamps import changed_files, take_stamps
from artifactgen.types import Failure, Framing, Region, Sample, Shard

CONFIGS = Path(__file__).parents[2] / "configs" / "data"
GENERIC = {"_target_", "batch_size", "num_workers", "mean", "std", "max_value"}
"""Keys that the driver takes; all others are the source's fields."""
FRAMING = {"crop_pct", "crop_mode", "interpolation"}
"""Keys of the field `framing`, of sources that have it; the driver takes them too."""


@dataclasses.dataclass(frozen=True)
class Small:
    """A small data set, and how one record of it breaks."""

    options: dict[str, Any]
    split: str
    row: int
    damage: Callable[[], object]
    """Break record `row` of `split` in its file."""


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def small_cmr_acdc(folder: Path, request: pytest.FixtureRequest) -> Small:
    root = request.getfixturevalue("acdc_root")
    cine = root / "testing/patient102/patient102_4d.nii.gz"
    return Small({"root": str(root)}, "test", 1, lambda: _cut(cine))


def small_phantom(folder: Path, request: pytest.FixtureRequest) -> Small:
    root = folder / "phantom"

    def damage() -> None:
        _cut(sorted((root / "testing").glob("*/*_4d.nii.gz"))[1])

    return Small({"root": str(root), "training": 3, "testing": 2}, "test", 1, damage)


def small_hdf5(folder: Path, request: pytest.FixtureRequest) -> Small:
    images = np.random.default_rng(0).integers(0, 256, (9, 20, 16, 3), dtype=np.uint8)
    splits = ["train", "val", "train"] * 3
    path = request.getfixturevalue("write_hdf5")(
        folder / "a.h5", {"images": images, "split": splits, "labels": [0] * 9}, chunk_rows=1
    )

    with h5py.File(path) as file:
        chunk = file["images"].id.get_chunk_info(2)

    def damage() -> None:
        with path.open("r+b") as raw:
            raw.seek(chunk.byte_offset)
            raw.write(b"\xff" * chunk.size)

    return Small({"path": str(path)}, "train", 1, damage)


def small_image_folder(folder: Path, request: pytest.FixtureRequest) -> Small:
    rng, root = np.random.default_rng(0), folder / "pictures"
    for split, label in (("train", "cat"), ("train", "eel"), ("validation", "eel")):
        for i, ending in enumerate(("png", "jpg", "tif")):
            path = root / split / label / f"{label}_{i}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = rng.integers(0, 256, (20 + i, 16, 3), dtype=np.uint8)
            Image.fromarray(picture).save(path)
    return Small({"root": str(root)}, "train", 1, lambda: _cut(root / "train/cat/cat_1.jpg"))


def small_manifest(folder: Path, request: pytest.FixtureRequest) -> Small:
    rng, root = np.random.default_rng(0), folder / "table"
    root.mkdir()
    rows = ["label,split,path,record_id"]
    for i, ending in enumerate(("png", "jpg", "tif", "webp", "bmp")):
        picture = rng.integers(0, 256, (20 + i, 16, 3), dtype=np.uint8)
        Image.fromarray(picture).save(root / f"{i}.{ending}")
        rows.append(f"{'cat' if i % 2 else 'eel'},{'train' if i else 'val'},{i}.{ending},id {i}")
    (root / "table.csv").write_text("\n".join(rows))
    return Small({"path": str(root / "table.csv")}, "train", 1, lambda: _cut(root / "2.tif"))


def small_nifti_folder(folder: Path, request: pytest.FixtureRequest) -> Small:
    rng, root = np.random.default_rng(0), folder / "volumes"
    for i in range(6):
        path = root / ("val" if i % 3 else "train") / "ab"[i % 2] / f"v{i}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        voxels = rng.integers(-900, 900, (9 + i, 14, 5)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    return Small({"root": str(root)}, "val", 2, lambda: _cut(root / "val/b/v1.nii.gz"))


def small_dicom_folder(folder: Path, request: pytest.FixtureRequest) -> Small:
    rng, root = np.random.default_rng(0), folder / "studies"
    for i in range(6):
        noise_ZYX = rng.integers(-99, 99, (3, 40, 30 + i))
        volume_ZYX = (noise_ZYX + 40 * np.arange(30 + i)).astype(np.int16)
        series = root / ("val" if i % 3 else "train") / "ab"[i % 2] / f"patient {i}"
        write_series(series, volume_ZYX, series=f"1.2.{i}")
    return Small({"root": str(root)}, "val", 2, lambda: _cut(root / "val/b/patient 1/im002"))


def small_parquet(folder: Path, request: pytest.FixtureRequest) -> Small:
    rng, files = np.random.default_rng(0), []
    for i in range(5):
        buffer = io.BytesIO()
        picture = rng.integers(0, 256, (20 + i, 16, 3), dtype=np.uint8)
        Image.fromarray(picture).save(buffer, "PNG")
        files.append(buffer.getvalue())
    images = [{"bytes": file, "path": None} for file in files]
    table = pa.table({"image": images, "label": [0, 1, 0, 1, 0]})
    (folder / "tables").mkdir()
    for split in ("train", "validation"):
        path = folder / f"tables/{split}-00000-of-00001.parquet"
        pq.write_table(table, path, row_group_size=2, compression="none", use_dictionary=False)

    def damage() -> None:
        path = folder / "tables/train-00000-of-00001.parquet"
        path.write_bytes(path.read_bytes().replace(files[1], b"\xff" * len(files[1])))

    return Small({"path": str(folder / "tables")}, "train", 1, damage)


def small_webdataset(folder: Path, request: pytest.FixtureRequest) -> Small:
    rng, files = np.random.default_rng(0), {}
    for i in range(5):
        buffer = io.BytesIO()
        picture = rng.integers(0, 256, (20 + i, 16, 3), dtype=np.uint8)
        Image.fromarray(picture).save(buffer, "PNG")
        files[f"a/{i}.png"], files[f"a/{i}.cls"] = buffer.getvalue(), str(i % 2).encode()
    for name in ("train-0", "train-1", "val-0"):
        with tarfile.open(folder / f"{name}.tar", "w") as archive:
            for member, content in files.items():
                info = tarfile.TarInfo(f"{name}/{member}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))

    def damage() -> None:
        path, broken = folder / "train-0.tar", files["a/1.png"]
        path.write_bytes(path.read_bytes().replace(broken, b"\xff" * len(broken)))

    return Small({"path": f"{folder}/{{train,val}}-*.tar"}, "train", 1, damage)


class ArraysInFiles:
    """A data set of the user's own: arrays in files, beside a list of labels."""

    classes = ("cat", "eel")

    def __init__(self, folder: str) -> None:
        self.files = sorted(Path(folder).glob("*.npy"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return np.load(self.files[index]), index % 2


def small_custom(folder: Path, request: pytest.FixtureRequest) -> Small:
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (folder / split).mkdir()
        for i in range(5):
            picture = rng.integers(0, 256, (20 + i, 16, 3), dtype=np.uint8)
            np.save(folder / split / f"{i}.npy", picture)
    target = f"{__name__}.{ArraysInFiles.__name__}"
    options = {"target": target, "kwargs": {"folder": f"{folder}/{{split}}"}}
    options["splits"] = ("train", "val")
    return Small(options, "train", 1, lambda: _cut(folder / "train" / "1.npy"))


Maker = Callable[[Path, pytest.FixtureRequest], Small]
MAKERS: dict[str, Maker] = {
    "cmr_acdc": small_cmr_acdc,
    "custom": small_custom,
    "dicom_folder": small_dicom_folder,
    "hdf5": small_hdf5,
    "image_folder": small_image_folder,
    "manifest": small_manifest,
    "nifti_folder": small_nifti_folder,
    "parquet": small_parquet,
    "phantom": small_phantom,
    "webdataset": small_webdataset,
}


def _config(name: str) -> dict[str, Any]:
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(config, dict)
    return config


def _class(name: str) -> Any:
    module, _, attribute = _config(name)["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), attribute)


NO_SOURCES = {"auto"}
"""What only answers which source to use."""


@pytest.fixture(params=sorted({path.stem for path in CONFIGS.glob("*.yaml")} - NO_SOURCES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def small(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> Small:
    assert name in MAKERS, f"add a maker of small data for {name} to MAKERS"
    return MAKERS[name](tmp_path, request)


@pytest.fixture
def source(name: str, small: Small) -> Source:
    """The source as its YAML has it, on small data."""
    required = {key for key, value in _config(name).items() if value == "???"}
    assert required <= small.options.keys(), "the maker leaves required keys out"
    plain = {
        key: value
        for key, value in _config(name).items()
        if key not in GENERIC | FRAMING
        and not (isinstance(value, str) and ("${" in value or value == "???"))
    }
    framing = {"framing": Framing()} if "framing" in _fields(name) else {}
    made = {**plain, **framing, "image_size": (12, 10), **small.options}
    built: Source = _class(name)(**made)
    return built


def _fields(name: str) -> set[str]:
    return {field.name for field in dataclasses.fields(_class(name))}


def read_all(source: Source, catalog: Catalog) -> list[Sample | Failure]:
    return [
        record
        for split, index in catalog.splits.items()
        for record in source.read(catalog, split, 0, len(index))
    ]


def as_values(record: Sample | Failure) -> object:
    if isinstance(record, Failure):
        return record
    image = record.image_CHW
    return record.record_id, record.row, record.label, image.dtype, image.shape, image.tobytes()


def test_the_yaml_has_every_option_of_the_class_with_a_comment(name: str) -> None:
    options = _fields(name) - {"keep_stored"}
    if "framing" in options:
        options = (options - {"framing"}) | FRAMING
    assert set(_config(name)) == GENERIC | options
    lines = (CONFIGS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    keys = [line for line in lines if re.match(r"\w+:", line) and not line.startswith("_target_")]
    assert [line for line in keys if not re.search(r"  # \S", line)] == []


def test_the_class_is_a_frozen_value(name: str) -> None:
    assert _class(name).__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(_class(name)))


def test_two_scans_find_the_same(source: Source) -> None:
    first, second = source.scan(), source.scan()
    assert first.identity == second.identity
    assert first.classes == second.classes
    assert list(first.splits) == list(second.splits)
    for split, index in first.splits.items():
        again = second.splits[split].record_ids(0, len(index))
        assert list(index.record_ids(0, len(index))) == list(again)


def test_ids_are_unique_over_all_splits(source: Source) -> None:
    splits = source.scan().splits.values()
    ids = [record_id for index in splits for record_id in index.record_ids(0, len(index))]
    assert len(ids) == sum(len(index) for index in splits) > 0
    assert len(set(ids)) == len(ids)


def test_it_gives_what_is_asked_for_of_any_source(source: Source) -> None:
    catalog = scan_source(source)
    for split, index in catalog.splits.items():
        found = read_range(source, catalog, split, 0, len(index))
        assert [as_values(r) for r in found] == [
            as_values(r) for r in source.read(catalog, split, 0, len(index))
        ]


def test_damage_is_other_content_of_the_same_records(source: Source, small: Small) -> None:
    before = source.scan()
    assert before.content
    small.damage()
    after = source.scan()
    assert after.identity == before.identity
    assert after.content != before.content


def test_a_picture_with_too_many_pixels_is_a_failure(source: Source) -> None:
    limited: Any = dataclasses.replace(source, max_pixels=10)  # type: ignore[type-var]
    found = read_all(limited, limited.scan())
    assert all(isinstance(record, Failure) for record in found)
    assert "more than data.max_pixels=10;" in found[0].reason


def test_samples_are_what_the_catalog_says(source: Source) -> None:
    catalog = source.scan()
    for split, index in catalog.splits.items():
        records = list(source.read(catalog, split, 0, len(index)))
        assert [r.record_id for r in records] == list(index.record_ids(0, len(index)))
        assert [r.row for r in records] == list(range(len(index)))
        for record in records:
            assert isinstance(record, Sample), record
            assert record.image_CHW.shape == (catalog.channels, 12, 10)
            assert record.image_CHW.dtype in (np.uint8, np.uint16, np.float32)
            assert catalog.dtype in (None, str(record.image_CHW.dtype))
            assert record.image_CHW.flags.c_contiguous
            assert -1 <= record.label < max(len(catalog.classes), 1)


def test_reading_twice_and_in_any_range_gives_the_same_bytes(source: Source) -> None:
    catalog, rng = source.scan(), random.Random(0)
    for split, index in catalog.splits.items():
        whole = [as_values(record) for record in source.read(catalog, split, 0, len(index))]
        for _ in range(8):
            start, stop = sorted(rng.choices(range(len(index) + 1), k=2))
            found = [as_values(record) for record in source.read(catalog, split, start, stop)]
            assert found == whole[start:stop]
            assert list(index.record_ids(start, stop)) == [value[0] for value in whole[start:stop]]


def test_a_pickled_copy_reads_the_same_from_two_threads(source: Source) -> None:
    catalog = source.scan()
    expected = [as_values(record) for record in read_all(source, catalog)]
    copy, catalog_copy = pickle.loads(pickle.dumps((source, catalog)))

    def read(_: int) -> list[object]:
        return [as_values(record) for record in read_all(copy, catalog_copy)]

    with ThreadPoolExecutor(2) as pool:
        assert all(found == expected for found in pool.map(read, range(4)))


def _cut_out(channel_HW: Any, region: Region) -> Any:
    """A region at the size of the samples, with a black border where it is beyond the picture."""
    wide = Image.fromarray(np.pad(channel_HW.astype(np.float32), 50))
    left, top = region.left + 50, region.top + 50
    box = (left, top, left + region.width, top + region.height)
    return np.asarray(wide.resize((10, 12), Image.Resampling.BICUBIC, box=box))


def test_a_picture_to_draw_on_is_brought_where_it_is_asked_for(name: str, source: Source) -> None:
    asked = _asked_for_pictures(name, source)
    plain, found = read_all(source, source.scan()), read_all(asked, asked.scan())
    assert [as_values(record) for record in found] == [as_values(record) for record in plain]
    assert all(isinstance(record, Sample) and record.stored is None for record in plain)
    for sample in found:
        assert isinstance(sample, Sample)
        assert sample.stored is not None
        picture_CHW, image_CHW = sample.stored.read(), sample.image_CHW
        assert picture_CHW.dtype == image_CHW.dtype
        assert len(picture_CHW) == len(image_CHW)
        seen = [_cut_out(channel_HW, sample.stored.region) for channel_HW in picture_CHW]
        assert np.corrcoef(np.ravel(seen), image_CHW.ravel())[0, 1] > 0.95


def test_a_large_picture_to_draw_on_is_read_again(
    name: str, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _asked_for_pictures(name, source)
    held = read_all(asked, asked.scan())
    for module in ("stored", "pictures"):
        monkeypatch.setattr(f"artifactgen.data.{module}.HELD_BYTES", 0)
    again = read_all(asked, asked.scan())
    for one, other in zip(held, again, strict=True):
        assert isinstance(one, Sample)
        assert isinstance(other, Sample)
        assert one.stored is not None
        assert other.stored is not None
        assert one.stored.region == other.stored.region
        np.testing.assert_array_equal(one.stored.read(), other.stored.read())


def _asked_for_pictures(name: str, source: Source) -> Any:
    assert "keep_stored" in _fields(name), "canvas=source is for all sources that come with us"
    return dataclasses.replace(source, keep_stored=True)  # type: ignore[type-var]


def test_a_change_of_its_files_is_noticed_while_a_run_reads_them(
    source: Source, small: Small
) -> None:
    """Row by row, as far as the source knows its files; one of Python's objects does not."""
    catalog = source.scan()
    assert isinstance(source, InFiles) != isinstance(source, Custom)
    rows = {
        split: [Shard(split, row, row, row + 1) for row in range(len(index))]
        for split, index in catalog.splits.items()
    }
    every = [shard for shards in rows.values() for shard in shards]
    before = take_stamps(source, catalog, every)
    assert changed_files(source, catalog, before) == {}
    small.damage()
    changed = changed_files(source, catalog, before)
    assert (rows[small.split][small.row] in changed) == isinstance(source, InFiles)


def test_a_broken_record_is_one_failure_and_harms_no_other(source: Source, small: Small) -> None:
    catalog = source.scan()
    before = [as_values(record) for record in read_all(source, catalog)]
    (record_id,) = catalog.splits[small.split].record_ids(small.row, small.row + 1)
    small.damage()
    found = read_all(source, catalog)
    failures = [record for record in found if isinstance(record, Failure)]
    assert [(f.record_id, f.split, f.row) for f in failures] == [
        (record_id, small.split, small.row)
    ]
    assert failures[0].stage == "read"
    assert failures[0].reason
    others = [
        (old, as_values(new)) for old, new in zip(before, found, strict=True) if new not in failures
    ]
    assert all(old == new for old, new in others)
