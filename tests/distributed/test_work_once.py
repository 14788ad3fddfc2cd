"""The driver does nothing twice, and gives back what the workers do not need."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import pytest
import torch
from helpers.workspace import CKPT, EXPERIMENT, Workspace

import artifactgen.introspect.probe
import artifactgen.models.file
import distributed.build
import distributed.inputs
from artifactgen.artifacts.attention import AttentionMaps
from artifactgen.artifacts.cam.gradcam import GradCAM
from artifactgen.artifacts.embedding import Embedding
from artifactgen.assembly import Assembly
from artifactgen.device import Devices
from artifactgen.job import Job
from artifactgen.models.loading import LoadedModel
from artifactgen.types import Receipt, Task
from artifactgen.worker import Worker
from distributed.runners.base import Runner, Workers


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often what takes long was done."""
    counts: Counter[str] = Counter()

    def count(owner: Any, name: str, label: str) -> None:
        original = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            counts[label] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    count(distributed.inputs, "identify", "hash")
    count(artifactgen.models.file, "identify", "hash")
    count(torch, "load", "read")
    count(distributed.build, "load_model", "load")
    count(artifactgen.introspect.probe, "probe", "probe")
    for kind in (GradCAM, AttentionMaps, Embedding):
        count(kind, "bind", f"bind {kind.__name__}")
    return counts


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the batches that went through a model."""
    from timm.models.vision_transformer import VisionTransformer

    seen: list[int] = []
    original = VisionTransformer.forward_features

    def counted(self: VisionTransformer, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(len(x))
        return original(self, x, *args, **kwargs)

    monkeypatch.setattr(VisionTransformer, "forward_features", counted)
    return seen


ONCE = {
    **{"hash": 1, "load": 1, "probe": 1},
    **{"bind GradCAM": 1, "bind AttentionMaps": 1, "bind Embedding": 1},
}


def test_a_run_in_one_process_reads_hashes_loads_probes_and_binds_once(
    workspace: Workspace, counts: Counter[str]
) -> None:
    outcome = workspace.run(EXPERIMENT, CKPT, "splits=[test]")
    assert outcome.exit_code == 0, outcome.text
    reads = counts.pop("read")
    assert counts == ONCE
    assert reads == 2, "the checkpoint, and the .pt that is read back before it gets its name"


@pytest.mark.parametrize(
    "options",
    [[], ["gradcam.layer=blocks.3.norm1"], ["ckpt_path=avg.ckpt"]],
    ids=str,
)
def test_a_preflight_makes_at_most_four_small_forward_passes_and_looks_at_32_records(
    workspace: Workspace, batches: list[int], options: list[str]
) -> None:
    weights = torch.load(workspace.root / "a.ckpt", weights_only=True)["state_dict"]
    mean_pooled = {k.replace("model.norm.", "model.fc_norm."): v for k, v in weights.items()}
    torch.save({"state_dict": mean_pooled}, workspace.root / "avg.ckpt")
    outcome = workspace.run(EXPERIMENT, CKPT, *options, "dry_run=true")
    assert outcome.exit_code == 0, outcome.text
    first_look = [8, 8, 8, 4]  # 30 places, two of which hold the records of the first batch
    assert batches[-4:] == first_look
    assert 1 <= len(batches[:-4]) <= 4
    assert max(batches[:-4]) <= 4


def test_a_finished_run_loads_nothing(
    workspace: Workspace, counts: Counter[str], batches: list[int]
) -> None:
    assert workspace.run(EXPERIMENT, CKPT, "splits=[test]").exit_code == 0
    counts.clear()
    batches.clear()
    outcome = workspace.run(EXPERIMENT, CKPT, "splits=[test]")
    assert "Complete: nothing to do." in outcome.text
    assert counts == {"hash": 1}
    assert batches == []


LOADED: list[weakref.ref[Any]] = []
ALIVE: list[bool] = []


@dataclass(frozen=True, kw_only=True)
class Elsewhere(Runner):
    """As on a cluster: the workers load the model themselves."""

    def staff(self, devices: Devices, *, tasks: int) -> Workers:
        return Workers(1, 1, "elsewhere")

    def run(
        self, job: Job, tasks: Sequence[Task], workers: Workers, assembly: Assembly | None
    ) -> Iterator[Receipt]:
        assert assembly is None
        gc.collect()
        ALIVE.append(LOADED[0]() is not None)
        worker = Worker(job)
        yield from map(worker, tasks)


def test_the_drivers_model_is_given_back_before_workers_start(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = distributed.build.load_model

    def remembered(*args: Any, **options: Any) -> LoadedModel:
        loaded = original(*args, **options)
        LOADED.append(weakref.ref(loaded.network.module))
        return loaded

    monkeypatch.setattr(distributed.build, "load_model", remembered)
    target = f"cluster._target_={__name__}.Elsewhere"
    outcome = workspace.run(EXPERIMENT, CKPT, "splits=[test]", target)
    assert outcome.exit_code == 0, outcome.text
    assert ALIVE == [False]
    assert (workspace.output / "overview_test.png").exists(), "drawn without the model"


def test_what_a_run_will_do_is_said_before_the_model_is_loaded(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(distributed.build, "load_model", fail)
    outcome = workspace.run(EXPERIMENT, CKPT)
    assert outcome.exit_code == 130
    assert "Data: Hdf5, records: train 24, val 7, test 5; 3 classes" in outcome.text
    assert "Model: test_vit from model.ckpt, 1." in outcome.text
    assert f"Output: embeddings, gradcam, attention to {workspace.output}" in outcome.text


def test_opencv_has_no_threads_of_its_own_in_a_worker(workspace: Workspace) -> None:
    cv2.setNumThreads(2)
    assert workspace.run(EXPERIMENT, CKPT, "splits=[test]").exit_code == 0
    assert cv2.getNumThreads() == 1
