"""What every kind of artifact keeps to: walks the YAMLs of `configs/artifact/`."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.binding import CLASSES, random_images, random_model

from artifactgen.artifacts.base import Artifact, BoundArtifact, Subject, View
from artifactgen.introspect.forward import forward
from artifactgen.models.base import Network
from artifactgen.models.timm import as_network
from artifactgen.store.output import is_called
from artifactgen.types import Sample

CONFIGS = Path(__file__).parents[2] / "configs" / "artifact"
SIZE = (160, 160)


FILES = sorted(CONFIGS.glob("*.yaml"))
NETWORKS = ("test_vit", "resnet18")
CASES = [
    (file, name)
    for file in FILES
    for name in NETWORKS
    if (file.stem, name) != ("attention", "resnet18")  # a CNN computes none
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0].stem}-{case[1]}")
def case(request: pytest.FixtureRequest) -> tuple[Path, str]:
    found: tuple[Path, str] = request.param
    return found


@pytest.fixture
def kind(case: tuple[Path, str]) -> Artifact:
    """With the options of its YAML."""
    file, _ = case
    content = yaml.safe_load(file.read_text("utf-8"))
    assert content[f"generate_{file.stem}"] is True
    options: dict[str, Any] = content[file.stem]
    module, _, name = options.pop("_target_").rpartition(".")
    plain = {k: v for k, v in options.items() if not (isinstance(v, str) and "${" in v)}
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
    made: Artifact = getattr(importlib.import_module(module), name)(**plain)
    return made


@pytest.fixture
def network(case: tuple[Path, str]) -> Network:
    return as_network(random_model(case[1]))


@pytest.fixture
def subject(network: Network) -> Subject:
    return Subject(network, SIZE, CLASSES, has_head=True)


@pytest.fixture
def bound(kind: Artifact, subject: Subject) -> BoundArtifact:
    """Calibrated, as a worker gets it."""
    first = kind.bind(subject)
    x_BCHW = random_images(2, size=SIZE, seed=3)
    passed = forward(subject.network, x_BCHW, taps=first.calibration_taps, classify=True)
    return first.calibrate(passed)


def compute(bound: BoundArtifact, network: Network, x_BCHW: torch.Tensor) -> dict[str, np.ndarray]:
    passed = forward(network, x_BCHW, taps=bound.taps, classify=True)
    return {name: tensor.detach().numpy() for name, tensor in bound.compute(passed).items()}


def view(record_id: str) -> View:
    image = np.zeros((3, *SIZE), np.uint8)
    pictures = [np.zeros((*SIZE, 3), np.uint8)]
    sample = Sample(record_id, 0, image, 1)
    return View(sample, pictures, CLASSES[1], CLASSES[2], 0.5, {"Software": "test"})


def test_options_travel_and_bind_to_the_same_again(
    bound: BoundArtifact, subject: Subject, network: Network
) -> None:
    options = pickle.loads(pickle.dumps(bound.options))
    assert options == bound.options
    again = options.bind(subject)
    assert again.resolved() == bound.resolved()
    x_BCHW = random_images(2, size=SIZE)
    ours, theirs = compute(bound, network, x_BCHW), compute(again, network, x_BCHW)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


def test_arrays_have_a_row_for_each_image_and_are_finite(
    bound: BoundArtifact, network: Network
) -> None:
    arrays = compute(bound, network, random_images(3, size=SIZE))
    assert arrays
    assert {*bound.columns, *bound.maps} <= arrays.keys()
    for array in arrays.values():
        assert array.dtype in (np.float32, np.int64)
        assert len(array) == 3
        assert np.isfinite(array).all()


def test_a_batch_of_two_is_two_of_one(bound: BoundArtifact, network: Network) -> None:
    x_BCHW = random_images(2, size=SIZE)
    both = compute(bound, network, x_BCHW)
    for index in range(2):
        alone = compute(bound, network, x_BCHW[index : index + 1])
        for name, array in both.items():
            np.testing.assert_allclose(alone[name][0], array[index], rtol=1e-4, atol=1e-5)


def test_nothing_of_it_stays_in_the_model(bound: BoundArtifact, network: Network) -> None:
    compute(bound, network, random_images(2, size=SIZE))

    def fail(*_: object) -> None:
        raise RuntimeError("in the middle of the pass")

    middle = list(network.module.modules())[-2].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        compute(bound, network, random_images(2, size=SIZE))
    middle.remove()
    modules = list(network.module.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in modules)
    assert not torch.overrides._get_current_function_mode_stack()
    assert all(p.grad is None and not p.requires_grad for p in network.module.parameters())


@pytest.mark.parametrize("record_id", ["patient_1", "../../x", "a/b", "ü", "con"])
def test_pictures_lie_where_the_kind_says(
    bound: BoundArtifact, network: Network, record_id: str, tmp_path: Path
) -> None:
    arrays = compute(bound, network, random_images(1, size=SIZE))
    drawn = dict(bound.draw(view(record_id), {name: array[0] for name, array in arrays.items()}))
    patterns = type(bound.options).files
    assert bool(drawn) == bool(patterns)
    for path, png in drawn.items():
        assert is_called(path, patterns)
        assert (tmp_path / path).resolve().is_relative_to(tmp_path)
        assert png.startswith(b"\x89PNG")


def test_the_contact_sheet_shows_the_same_titles_for_every_record(
    bound: BoundArtifact, network: Network
) -> None:
    arrays = compute(bound, network, random_images(1, size=SIZE))
    files = [path for path, _ in bound.draw(view("p"), {k: v[0] for k, v in arrays.items()})]
    excerpts = pickle.loads(pickle.dumps(bound.excerpts))  # a value without the model
    shown = [excerpts(files, label=1, prediction=2), excerpts((), label=None, prediction=None)]
    assert [e.title for e in shown[0]] == [e.title for e in shown[1]]
    assert all(excerpt.path in files for excerpt in shown[0])
    assert all(excerpt.path is None for excerpt in shown[1])


def test_a_trial_makes_a_part_of_what_the_run_will(bound: BoundArtifact, network: Network) -> None:
    trial = bound.trial()
    assert 0 < trial.share <= 1
    x_BCHW = random_images(1, size=SIZE)
    passed = forward(network, x_BCHW, taps=bound.calibration_taps, classify=True)
    assert trial.artifact.compute(passed).keys() == compute(bound, network, x_BCHW).keys()
