"""The worker on real files: images in HDF5, a random test_vit, all three kinds of artifact."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import cv2
import h5py
import numpy as np
import pytest
import timm
import torch

from artifactgen.artifacts.attention import AttentionMaps
from artifactgen.artifacts.base import Arrays, Artifact, BoundArtifact, Subject, Tensors, View
from artifactgen.artifacts.cam.gradcam import GradCAM
from artifactgen.artifacts.embedding import Embedding
from artifactgen.data.hdf5 import Hdf5
from artifactgen.device import find_devices
from artifactgen.engine import Normalization
from artifactgen.errors import CheckpointError, DataError, RecordError, RunError
from artifactgen.introspect.forward import Pass
from artifactgen.job import Job
from artifactgen.labels import match_labels
from artifactgen.models.checkpoint import read_checkpoint
from artifactgen.models.file import identify
from artifactgen.models.loading import LoadedModel, load_model
from artifactgen.models.timm import Timm
from artifactgen.preflight import preflight
from artifactgen.store.layout import safe_name
from artifactgen.store.ledger import committed, is_intact
from artifactgen.store.shardfile import read_shard
from artifactgen.types import Receipt, Shard, Task
from artifactgen.worker import Worker

SIZE = 48
CPU = find_devices("cpu").name
CLASSES = ("DCM", "HCM", "NOR")
RECORDS = 10
BATCH_SIZE = 4
SHARD = Shard("train", 0, 0, RECORDS)
KINDS = {"embeddings": Embedding(), "gradcam": GradCAM(), "attention": AttentionMaps()}
IMAGES = np.random.default_rng(0).integers(0, 256, (RECORDS, SIZE, SIZE, 3), dtype=np.uint8)
IDS = [f"patient_{row}" for row in range(RECORDS)]
MakeJob = Callable[..., Job]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_vit", num_classes=len(CLASSES), img_size=SIZE).eval()


@pytest.fixture(scope="module")
def checkpoint(model: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "random.pt"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture
def make_job(checkpoint: Path, tmp_path: Path) -> MakeJob:
    def make(
        images: np.ndarray = IMAGES, ids: list[Any] = IDS, *, name: str = "out", **options: Any
    ) -> Job:
        data = tmp_path / f"{name}.h5"
        with h5py.File(data, "w") as file:
            file["train/images"] = images
            file["train/labels"] = np.arange(len(images)) % 4 - 1
            file["train/record_ids"] = ids
        source = Hdf5(path=str(data), image_size=(SIZE, SIZE), classes=CLASSES)
        job = Job(
            source=source,
            catalog=source.scan(),
            model=Timm(backbone="test_vit", num_classes=len(CLASSES), image_size=(SIZE, SIZE)),
            checkpoint=identify(checkpoint),
            classes=CLASSES,
            labels=match_labels(CLASSES, CLASSES, are_named=True, outputs_are_named=False),
            normalization=Normalization((0.5,) * 3, (0.25,) * 3),
            artifacts=KINDS,
            output_dir=tmp_path / name,
            fingerprint="f" * 64,
            batch_size=BATCH_SIZE,
            reader_threads=2,
            accelerator="cpu",
            precision="32-true",
            compute_threads=1,
        )
        return replace(job, **options)

    return make


@dataclass(frozen=True, slots=True)
class Done:
    """A shard that was done, read back."""

    receipt: Receipt
    ids: list[str]
    files: list[dict[str, list[str]]]
    columns: dict[str, np.ndarray]


def do(job: Job, shard: Shard = SHARD, *, scope: str = "train", **task: Any) -> Done:
    receipt = Worker(job)(Task(scope, shard, **task))
    rows = read_shard(job.output_dir / receipt.shard_file.path)
    files = [{kind: list(paths) for kind, paths in each.items()} for each in rows.pictures]
    return Done(receipt, list(rows.record_ids), files, dict(rows.columns))


def load(job: Job) -> LoadedModel:
    return load_model(job.model, read_checkpoint(job.checkpoint))


def pictures(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.png")}


def expected_files(record_id: str) -> dict[str, list[str]]:
    return {
        "gradcam": [f"gradcam/{safe_name(record_id)}/class_{k}.png" for k in range(len(CLASSES))],
        "attention": [f"attention_maps/{safe_name(record_id)}_attention.png"],
    }


def assert_same_columns(found: Done, expected: Done) -> None:
    assert found.columns.keys() == expected.columns.keys()
    for name, column in found.columns.items():
        np.testing.assert_array_equal(column, expected.columns[name], err_msg=name)
    assert (found.ids, found.files) == (expected.ids, expected.files)


def test_a_shard_is_committed_with_all_of_its_rows(make_job: MakeJob) -> None:
    job = make_job()
    done = do(job)
    assert done.ids == IDS
    assert done.columns["rows"].tolist() == list(range(RECORDS))
    assert done.columns["labels"].tolist() == [row % 4 - 1 for row in range(RECORDS)]
    assert done.receipt.records == RECORDS
    assert done.receipt.failures == ()
    assert done.receipt.seconds.keys() == {"read", "compute", "write", "commit"}
    assert all(is_intact(job.output_dir, file) for file in done.receipt.files)
    ledger = committed(job.layout, "train", [SHARD], fingerprint=job.fingerprint, device=CPU)
    assert ledger == {SHARD: done.receipt}
    assert not list(job.layout.temp.iterdir())


def test_embeddings_and_predictions_are_those_of_timm(make_job: MakeJob, model) -> None:
    columns = do(make_job()).columns
    x_BCHW = (torch.from_numpy(IMAGES).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        embeddings = model.forward_head(model.forward_features(x_BCHW), pre_logits=True)
        predictions = model(x_BCHW).argmax(1)
    np.testing.assert_allclose(columns["embeddings"], embeddings, atol=1e-5, rtol=0)
    assert np.array_equal(columns["predictions"], predictions)


def test_the_pictures_lie_where_the_rows_say_and_nowhere_else(make_job: MakeJob) -> None:
    job = make_job()
    done = do(job)
    found = pictures(job.output_dir)
    assert done.files == [expected_files(record_id) for record_id in IDS]
    named = [path for files in done.files for paths in files.values() for path in paths]
    assert sorted(named) == sorted(found)
    assert done.receipt.pictures == len(found)
    assert done.receipt.picture_bytes == sum(map(len, found.values()))
    for path, content in found.items():
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        width = picture.shape[1]
        assert width >= 1800 if path.startswith("attention") else picture.shape == (SIZE, SIZE, 3)


def test_doing_a_shard_again_changes_no_byte(make_job: MakeJob) -> None:
    job = make_job(save_maps=True)
    first = do(job)
    before = pictures(job.output_dir)
    again = do(job)
    assert_same_columns(again, first)
    assert pictures(job.output_dir) == before
    assert again.receipt.files == first.receipt.files


@pytest.mark.parametrize("threads", [1, 3, 16])
def test_the_number_of_reader_threads_changes_no_byte(make_job: MakeJob, threads: int) -> None:
    one = make_job(name="one", reader_threads=2)
    other = make_job(name="other", reader_threads=threads)
    done, expected = do(other), do(one)
    assert_same_columns(done, expected)
    assert done.receipt.files == expected.receipt.files
    assert pictures(other.output_dir) == pictures(one.output_dir)


def test_shards_of_whole_batches_give_the_rows_of_one_long_shard(make_job: MakeJob) -> None:
    whole = do(make_job(name="whole"))
    job = make_job(name="cut")
    parts = [do(job, Shard("train", i, i * 4, min(i * 4 + 4, RECORDS))) for i in range(3)]
    joined = np.concatenate([part.columns["embeddings"] for part in parts])
    assert np.array_equal(joined, whole.columns["embeddings"])
    assert pictures(job.output_dir) == pictures(job.output_dir.parent / "whole")


def test_a_broken_record_is_a_failure_and_harms_no_other(make_job: MakeJob) -> None:
    images = IMAGES.astype(np.float32) / 255
    whole = do(make_job(images, name="whole"))
    broken = images.copy()
    broken[5, 3, 3, 0] = np.nan
    job = make_job(broken, name="broken")
    done = do(job)
    (failure,) = done.receipt.failures
    assert (failure.record_id, failure.split, failure.row, failure.stage) == (
        *("patient_5", "train", 5, "read"),
    )
    kept = [row for row in range(RECORDS) if row != 5]
    assert done.columns["rows"].tolist() == kept
    assert done.ids == [IDS[row] for row in kept]
    # Three images in place of four: the same but for the rounding of the smaller batch.
    np.testing.assert_allclose(
        done.columns["embeddings"], whole.columns["embeddings"][kept], atol=1e-5, rtol=0
    )
    assert not any("patient_5" in path for path in pictures(job.output_dir))


def test_a_shard_without_a_good_record_is_done_as_well(make_job: MakeJob) -> None:
    job = make_job(np.full((RECORDS, SIZE, SIZE, 3), np.nan, np.float32), save_maps=True)
    done = do(job)
    assert done.receipt.records == 0
    assert [failure.row for failure in done.receipt.failures] == list(range(RECORDS))
    assert (done.ids, done.files, pictures(job.output_dir)) == ([], [], {})


def test_a_record_that_the_model_breaks_on_is_a_failure(make_job: MakeJob) -> None:
    images = IMAGES.astype(np.float32) / 255
    images[[2, 4]] = 3e38  # finite; no longer so inside the model
    images[3] = np.nan
    job = make_job(images)
    done = do(job)
    assert [(f.row, f.stage) for f in done.receipt.failures] == [
        *[(2, "compute"), (3, "read"), (4, "compute")],
    ]
    assert done.receipt.records == RECORDS - 3
    assert np.isfinite(done.columns["embeddings"]).all()
    drawn = {path.split("/")[1] for path in pictures(job.output_dir) if path.startswith("gradcam")}
    assert drawn == set(IDS) - {IDS[2], IDS[3], IDS[4]}


def test_asking_for_records_gives_the_rows_of_the_whole_run_and_no_others(make_job) -> None:
    whole = do(make_job(name="whole"))
    job = make_job(name="single")
    batch, wanted = Shard("train", 1, 4, 8), frozenset({"patient_5", "patient_7"})
    done = do(job, batch, scope="records", record_ids=wanted)
    assert done.ids == ["patient_5", "patient_7"]
    assert np.array_equal(done.columns["embeddings"], whole.columns["embeddings"][[5, 7]])
    of_whole = pictures(job.output_dir.parent / "whole")
    assert pictures(job.output_dir) == {
        path: of_whole[path]
        for record_id in done.ids
        for paths in expected_files(record_id).values()
        for path in paths
    }
    assert committed(job.layout, "train", [batch], fingerprint=job.fingerprint, device=CPU) == {}


def test_failures_of_records_that_were_not_asked_for_are_not_told(make_job: MakeJob) -> None:
    images = IMAGES.astype(np.float32) / 255
    images[[4, 5]] = np.nan
    images[6] = 3e38
    batch = Shard("train", 1, 4, 8)
    done = do(make_job(images), batch, record_ids=frozenset({"patient_5", "patient_7"}))
    assert [failure.record_id for failure in done.receipt.failures] == ["patient_5"]
    assert done.ids == ["patient_7"]


def test_maps_are_kept_as_the_contract_says(make_job: MakeJob) -> None:
    job = make_job(save_maps=True, artifacts={**KINDS, "gradcam": GradCAM(target_classes=[2, 0])})
    done = do(job)
    path = job.layout.maps("train", SHARD)
    assert [file.path for file in done.receipt.files][1:] == [
        str(path.relative_to(job.output_dir)),
    ]
    grid = SIZE // 16
    with h5py.File(path) as file:
        assert file["record_ids"].asstr()[()].tolist() == IDS
        assert file["rows"][()].tolist() == list(range(RECORDS))
        assert file["rows"].dtype == np.int64
        assert file["gradcam"].shape == (RECORDS, 2, grid, grid)
        assert file["attention"].shape == (RECORDS, 1, 2, grid, grid)
        assert file["gradcam"].dtype == file["attention"].dtype == np.float32
        assert file["gradcam"][()].min() >= 0
        mass = file["attention"][()].sum((-2, -1))
        assert ((mass > 0) & (mass < 1)).all(), "the class token keeps its share"
        attributes = {key: np.asarray(value).tolist() for key, value in file.attrs.items()}
    assert attributes["gradcam.classes"] == [2, 0]
    assert attributes["gradcam.method"] == "gradcam"
    assert attributes["gradcam.layer"].startswith("blocks.")
    assert attributes["attention.method"] == "cls"
    assert attributes["attention.layers"] == [5]


def test_without_save_maps_there_are_none(make_job: MakeJob) -> None:
    job = make_job()
    assert len(do(job).receipt.files) == 1
    assert not (job.output_dir / "maps").exists()


def test_any_text_is_an_id(make_job: MakeJob) -> None:
    ids = [b"../../x", b"/etc/x", b"", b"..", b"\xff\xfe", "🫀".encode(), b"CON", b"x.", b"a\nb"]
    ids.append(b"y" * 300)
    job = make_job(IMAGES, [*map(np.bytes_, ids)])
    done = do(job)
    assert done.ids == [raw.decode("utf-8", "surrogateescape") for raw in ids]
    assert done.receipt.pictures == len(pictures(job.output_dir)) == RECORDS * 4
    around = {path.name for path in job.output_dir.parent.iterdir()}
    assert around == {"out", "out.h5"}


def test_a_checkpoint_that_changed_since_the_plan_is_refused(make_job, tmp_path: Path) -> None:
    job = make_job()
    other = tmp_path / "other.pt"
    weights = torch.load(job.checkpoint.path, weights_only=True)
    torch.save({name: weight + 1 for name, weight in weights.items()}, other)
    with pytest.raises(CheckpointError, match="changed"):
        Worker(replace(job, checkpoint=replace(job.checkpoint, path=other)))


def test_a_data_set_that_goes_away_stops_the_shard_without_a_commit(make_job: MakeJob) -> None:
    job = make_job()
    worker = Worker(job)
    Path(job.source.path).write_bytes(b"no longer HDF5")
    with pytest.raises(DataError, match=r"Hdf5 raised .* while reading rows 0 to 1 of train"):
        worker(Task("train", SHARD))
    assert committed(job.layout, "train", [SHARD], fingerprint=job.fingerprint, device=CPU) == {}


def test_the_preflight_measures_one_record_and_writes_nothing(make_job: MakeJob) -> None:
    job = make_job()
    ready = preflight(job, load(job))
    calibrated = ready.job.artifacts["gradcam"]
    assert (calibrated.layer, calibrated.route) == ("blocks.5.norm1", "class_token")
    assert replace(ready.job, artifacts=job.artifacts) == job
    assert ready.status == dict.fromkeys(KINDS, "ok")
    assert ready.embedding_shape == (64,)
    assert ready.pictures_per_record == len(CLASSES) + 1
    assert not job.output_dir.exists()
    done = do(job)
    record = done.receipt.picture_bytes / RECORDS + 64 * 4
    assert ready.bytes_per_record == pytest.approx(record, rel=0.2)


def test_the_preflight_looks_for_a_record_that_can_be_read(make_job: MakeJob) -> None:
    images = IMAGES.astype(np.float32) / 255
    images[:7] = np.nan
    job = make_job(images)
    assert preflight(job, load(job)).pictures_per_record == len(CLASSES) + 1
    images[:] = np.nan
    broken = make_job(images, name="broken")
    with pytest.raises(DataError, match=r"(?s)first 10 records.*patient_0"):
        preflight(broken, load(broken))


@dataclass(frozen=True, slots=True, kw_only=True)
class Picky(Artifact):
    """A kind that cannot draw some records."""

    files: ClassVar[tuple[str, ...]] = ("picky/*.png",)
    refused: tuple[str, ...] = ("patient_2", "patient_9")

    def bind(self, subject: Subject) -> BoundPicky:
        return BoundPicky(self)


@dataclass(frozen=True, slots=True)
class BoundPicky(BoundArtifact):
    options: Picky

    def compute(self, forward_pass: Pass) -> Tensors:
        return {}

    def draw(self, view: View, arrays: Arrays) -> Iterator[tuple[str, bytes]]:
        yield f"picky/{view.sample.record_id}_a.png", b"first"
        if view.sample.record_id in self.options.refused:
            raise RecordError("its second picture cannot be drawn")
        yield f"picky/{view.sample.record_id}_b.png", b"second"


def test_a_record_that_cannot_be_drawn_is_a_failure_and_leaves_no_picture(
    make_job: MakeJob,
) -> None:
    job = make_job(artifacts={**KINDS, "picky": Picky()})
    whole = do(make_job(name="whole"))
    done = do(job)
    assert [(f.record_id, f.row, f.stage, f.reason) for f in done.receipt.failures] == [
        ("patient_2", 2, "draw", "its second picture cannot be drawn"),
        ("patient_9", 9, "draw", "its second picture cannot be drawn"),
    ]
    kept = [row for row in range(RECORDS) if row not in (2, 9)]
    assert done.receipt.records == len(kept)
    assert done.ids == [IDS[row] for row in kept]
    for name, column in done.columns.items():
        assert np.array_equal(column, whole.columns[name][kept]), name
    left = [str(path) for path in job.output_dir.rglob("*patient_2*")]
    assert left == [str(job.output_dir / "gradcam" / "patient_2")]
    assert not any((job.output_dir / "gradcam" / "patient_2").iterdir())


def test_a_flipped_bit_of_any_picture_has_its_shard_done_again(make_job: MakeJob) -> None:
    job = make_job()
    do(job)

    def is_done() -> bool:
        same = {"fingerprint": job.fingerprint, "device": CPU}
        return bool(committed(job.layout, "train", [SHARD], **same))

    assert is_done()
    pictures = sorted(job.output_dir.rglob("*.png"))
    for path in pictures[:: len(pictures) // 6]:
        content = bytearray(path.read_bytes())
        place = len(content) // 2
        content[place] ^= 1 << (place % 8)
        path.write_bytes(content)
        assert not is_done(), path
        content[place] ^= 1 << (place % 8)
        path.write_bytes(content)
    assert is_done()


def test_labels_are_written_as_the_classifier_counts_them(make_job: MakeJob) -> None:
    outputs = CLASSES[::-1]
    labels = match_labels(CLASSES, outputs, are_named=True, outputs_are_named=True)
    done = do(make_job(classes=outputs, labels=labels))
    assert done.columns["labels"].tolist() == [-1, 2, 1, 0, -1, 2, 1, 0, -1, 2]


def test_empty_maps_are_counted(make_job: MakeJob, model: torch.nn.Module, tmp_path: Path) -> None:
    """Of a class whose score depends on nothing, every map is."""
    weights = model.state_dict()
    indifferent = {**weights, "head.weight": weights["head.weight"].clone()}
    indifferent["head.weight"][1] = 0
    torch.save(indifferent, tmp_path / "indifferent.pt")
    done = do(make_job(checkpoint=identify(tmp_path / "indifferent.pt")))
    assert done.receipt.empty_maps == {f"gradcam: class {CLASSES[1]}": RECORDS}


def test_a_receipt_says_where_it_was_computed_and_on_what(make_job: MakeJob) -> None:
    receipt = Worker(make_job())(Task("train", SHARD))
    assert (receipt.host, receipt.device) == (socket.gethostname(), CPU)


def test_a_worker_with_another_kind_of_device_than_was_planned_refuses(make_job: MakeJob) -> None:
    with pytest.raises(RunError) as refused:
        Worker(make_job(device="NVIDIA H100 80GB HBM3"))
    for word in (socket.gethostname(), CPU, "NVIDIA H100 80GB HBM3", "--constraint"):
        assert word in str(refused.value)
