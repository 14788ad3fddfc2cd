from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch.nn import functional

from artifactgen.demo.__main__ import main
from artifactgen.demo.checkpoint import CROP_SIZE, IMAGE_SIZE, _spec, load_cohort, make_demo
from artifactgen.demo.phantom import Phantom
from artifactgen.demo.training import Cohort, Schedule, _augment, _transplant, fit
from artifactgen.models.timm import Timm

SHORT = Schedule(steps=3, batch_size=4)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Phantom:
    root = tmp_path_factory.mktemp("demo") / "data"
    return Phantom(
        root=str(root), image_size=IMAGE_SIZE, crop_size=CROP_SIZE, training=10, testing=5
    )


def run(source: Phantom, ckpt: Path, schedule: Schedule = SHORT) -> str:
    console = Console(file=io.StringIO(), width=200)
    make_demo(source, ckpt, schedule=schedule, console=console)
    return console.file.getvalue()


def test_checkpoint_is_lightning_like_and_fits_its_own_hyper_parameters(
    source: Phantom, tmp_path: Path
) -> None:
    said = run(source, tmp_path / "new" / "demo.ckpt")
    assert "/5 of the test patients" in said
    content = torch.load(tmp_path / "new" / "demo.ckpt", weights_only=True)
    assert content["global_step"] == SHORT.steps
    assert {"epoch", "pytorch-lightning_version"} <= set(content)
    facts = content["hyper_parameters"]
    assert facts["classes"] == ["DCM", "HCM", "MINF", "NOR", "RV"]
    family = Timm(
        backbone=facts["backbone"],
        num_classes=len(facts["classes"]),
        image_size=tuple(facts["image_size"]),
        options=facts["options"],
    )
    model = family.build().module
    weights = {name.removeprefix("model."): value for name, value in content["state_dict"].items()}
    assert all(name.startswith("model.") for name in content["state_dict"])
    model.load_state_dict(weights, strict=True)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["demo.ckpt"]


def test_second_run_changes_nothing_and_other_settings_fit_anew(
    source: Phantom, tmp_path: Path
) -> None:
    ckpt = tmp_path / "demo.ckpt"
    run(source, ckpt)
    before = ckpt.stat().st_mtime_ns
    assert "is there already" in run(source, ckpt)
    assert ckpt.stat().st_mtime_ns == before
    assert "already" not in run(source, ckpt, Schedule(steps=2, batch_size=4))
    assert torch.load(ckpt, weights_only=True)["global_step"] == 2


def test_same_seed_same_weights_and_the_callers_randomness_is_left_alone(source: Phantom) -> None:
    catalog = source.scan()
    cohort = load_cohort(source, catalog, ["train"])
    torch.manual_seed(7)
    expected, threads = torch.rand(1), torch.get_num_threads()
    torch.manual_seed(7)
    first, second = (fit(_spec(source, catalog), cohort, SHORT).state_dict() for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.get_num_threads() == threads
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = fit(_spec(source, catalog), cohort, Schedule(steps=3, batch_size=4, seed=1))
    assert not torch.equal(first["head.weight"], other.state_dict()["head.weight"])


def test_a_transplanted_heart_stays_whole_in_other_surroundings(source: Phantom) -> None:
    cohort = load_cohort(source, source.scan(), ["test"])
    torch.manual_seed(0)
    seen = [_transplant(cohort) for _ in range(8)]
    heart_BHW = functional.interpolate(cohort.structure_BSHW.amax(1, keepdim=True), IMAGE_SIZE)[
        :, 0
    ]
    moved = 0
    for batch in seen:
        assert torch.equal(batch.label_B, cohort.label_B)
        assert torch.equal(batch.structure_BSHW, cohort.structure_BSHW)
        differs_BHW = (batch.image_BCHW != cohort.image_BCHW).any(dim=1)
        assert not differs_BHW[heart_BHW > 0.5].any()
        moved += int(differs_BHW.flatten(1).any(dim=1).sum())
    assert 0.25 * 8 * len(cohort) < moved < 0.75 * 8 * len(cohort)


def test_structures_move_with_the_image() -> None:
    torch.manual_seed(0)
    square = torch.zeros(8, 1, 64, 64)
    square[..., 20:40, 24:48] = 1.0
    moved = _augment(
        Cohort(square, torch.arange(8), square.expand(-1, 6, -1, -1)), torch.arange(8).flip(0)
    )
    assert moved.label_B.tolist() == list(range(7, -1, -1))
    seen, structure = moved.image_BCHW[:, 0] > 0.5, moved.structure_BSHW[:, 3] > 0.5
    assert (seen == structure).float().mean() > 0.98
    assert (structure != (square[:, 0] > 0.5)).float().mean() > 0.02


def test_structures_lie_where_the_image_shows_them(source: Phantom) -> None:
    cohort = load_cohort(source, source.scan(), ["test"])
    small = functional.interpolate(cohort.image_BCHW, cohort.structure_BSHW.shape[-2:], mode="area")
    for image_CHW, structure_SHW in zip(small, cohort.structure_BSHW, strict=True):
        muscle, blood = structure_SHW[1] > 0.9, structure_SHW[2] > 0.9
        assert image_CHW[0][blood].mean() > 1.5 * image_CHW[0][muscle].mean()
        muscle, blood = structure_SHW[4] > 0.9, structure_SHW[5] > 0.9
        assert image_CHW[2][blood].mean() > 1.5 * image_CHW[2][muscle].mean()


def test_a_file_that_is_no_checkpoint_is_not_overwritten(
    source: Phantom, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ckpt = tmp_path / "demo.ckpt"
    ckpt.write_text("my notes")
    assert main(["--data-root", source.root, "--ckpt", str(ckpt)]) == 2
    assert ckpt.read_text() == "my notes"
    assert "demo.ckpt" in capsys.readouterr().err
