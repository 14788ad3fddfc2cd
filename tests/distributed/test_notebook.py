"""In a notebook: what a run writes, and the page of the manual, run as it stands."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import timm
import torch
import transformers
from helpers.workspace import CKPT, CLASSES, EXPERIMENT, IMAGE_SIZE, RECORDS, Workspace
from matplotlib import pyplot
from numpy.typing import NDArray

from artifactgen import Explainer, load_embeddings

BATCH = 2
PAGE = (Path(__file__).parents[2] / "docs" / "notebook.md").read_text("utf-8")
CELLS = re.findall(r"^```python\n(.*?)^```\n(?:```\n(.*?)^```\n)?", PAGE, re.M | re.S)


@pytest.fixture(autouse=True)
def no_figure_left() -> Iterator[None]:
    """What cells have drawn goes with them, as at the end of a notebook."""
    yield
    pyplot.close("all")


def same_model(path: Path) -> Any:
    """The model of a checkpoint, as a user has it in memory."""
    weights = torch.load(path, weights_only=True)["state_dict"]
    model = timm.create_model("test_vit", num_classes=len(CLASSES), img_size=IMAGE_SIZE)
    model.load_state_dict({name.removeprefix("model."): value for name, value in weights.items()})
    return model


def normalised(images_BHWC: NDArray[np.uint8], model: Any) -> torch.Tensor:
    x_BCHW = torch.from_numpy(images_BHWC).permute(0, 3, 1, 2) / 255
    cfg = model.pretrained_cfg
    mean, std = (torch.tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (x_BCHW - mean) / std


def read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(cv2.imread(str(path))[..., ::-1])


def test_it_gives_what_a_run_writes(workspace: Workspace, shared: Path) -> None:
    kept = "precision=32-true", "save_maps=true", "splits=[test]"
    outcome = workspace.run(EXPERIMENT, CKPT, *kept)
    assert outcome.exit_code == 0, outcome.text
    written = load_embeddings(workspace.output / "embeddings/test_embeddings.pt")
    model = same_model(shared / "a.ckpt")
    with h5py.File(shared / "images.h5", locking=False) as file:
        images, labels = file["test/images"][:], file["test/labels"][:]
    x = Explainer(model, classes=CLASSES, batch_size=BATCH)(normalised(images, model))
    assert len(x) == RECORDS["test"]
    torch.testing.assert_close(x.embeddings, written.embeddings, rtol=0, atol=1e-6)
    with h5py.File(workspace.output / "maps/test/test-000000.h5") as file:
        np.testing.assert_allclose(x.gradcam[:BATCH], file["gradcam"][:BATCH], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(
            x.attention[:BATCH], file["attention"][:BATCH], rtol=0, atol=1e-6
        )
    assert np.array_equal(x.images, images)
    for row, record_id in enumerate(written.record_ids):
        for k in range(len(CLASSES)):
            png = read(workspace.output / f"gradcam/{record_id}/class_{k}.png")
            assert np.array_equal(x.overlay(row, k), png)
        figure = x.figure(row, title=record_id, label=CLASSES[labels[row]])
        png = read(workspace.output / f"attention_maps/{record_id}_attention.png")
        assert np.array_equal(figure, png)


def write_what_a_reader_has(folder: Path) -> None:
    """Two pictures, and a small ViT in a folder of transformers with its preprocessing."""
    rng = np.random.default_rng(0)
    for name in ("cat.jpg", "dog.jpg"):
        cv2.imwrite(str(folder / name), rng.integers(0, 256, (80, 100, 3), dtype=np.uint8))
    names = {0: "cat", 1: "dog"}
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3}
    config = transformers.ViTConfig(
        **sizes,
        intermediate_size=96,
        image_size=64,
        id2label=names,
        label2id={name: index for index, name in names.items()},
    )
    transformers.ViTForImageClassification(config).save_pretrained(folder / "path/to/vit")
    processor = transformers.ViTImageProcessor(size={"height": 64, "width": 64})
    processor.save_pretrained(folder / "path/to/vit")


def test_the_page_is_run_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_what_a_reader_has(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    assert len(CELLS) == 6
    names: dict[str, Any] = {}
    capsys.readouterr()
    for code, printed in CELLS:
        torch.manual_seed(0)
        # Weights are not downloaded in a test.
        exec(compile(code.replace("pretrained=True", "pretrained=False"), "cell", "exec"), names)
        assert capsys.readouterr().out == printed
    assert names["x"].gradcam.shape == (2, 2, 14, 14)
    assert np.array_equal(read(tmp_path / "gradcam_of_dog.png"), names["x"].overlay(1, "dog"))


def test_the_options_on_the_page_are_those_that_there_are() -> None:
    table = PAGE.partition("| `Explainer(model, …)` |")[2]
    rows = [line.split("|")[1:3] for line in table.splitlines()[2:]]
    pairs = [
        (name, default)
        for names, defaults in rows
        for name, default in zip(names.split(","), _each(defaults, names), strict=True)
    ]
    documented = {
        name.strip(" `"): ast.literal_eval(default.strip(" `")) for name, default in pairs
    }
    fields = [f for f in dataclasses.fields(Explainer) if f.init and f.name != "model"]
    assert documented.keys() == {f.name for f in fields}
    for field in fields:
        default = documented[field.name]
        assert field.default == (tuple(default) if isinstance(default, list) else default)


def _each(defaults: str, names: str) -> list[str]:
    """The default of each option of a row; a single one is that of all."""
    count = len(names.split(","))
    parts = defaults.split(",")
    return parts if len(parts) == count else [defaults] * count
