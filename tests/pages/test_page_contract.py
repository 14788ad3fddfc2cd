"""What every page keeps to: walks the YAMLs of `configs/page/`."""

from __future__ import annotations

import importlib
import pickle
from pathlib import Path

import pytest
import yaml

from artifactgen.pages.base import Page
from artifactgen.store.layout import Layout
from artifactgen.store.output import is_called

CONFIGS = Path(__file__).parents[2] / "configs" / "page"


@pytest.fixture(params=sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def page(request: pytest.FixtureRequest) -> Page:
    """With the options of its YAML."""
    file = CONFIGS / f"{request.param}.yaml"
    assert file.read_text("utf-8").startswith(f"# @package pages.{request.param}\n")
    options = yaml.safe_load(file.read_text("utf-8"))
    module, _, name = options.pop("_target_").rpartition(".")
    made: Page = getattr(importlib.import_module(module), name)(**options)
    return made


def test_it_is_a_frozen_value_that_travels(page: Page) -> None:
    assert isinstance(page, Page)
    assert type(page).__dataclass_params__.frozen
    assert pickle.loads(pickle.dumps(page)) == page


@pytest.mark.parametrize("split", ["train", "../x", "ü", "a/b"])
def test_its_file_is_its_own_and_inside(page: Page, split: str, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "out")
    path = page.path(layout, split)
    inside = str(path.relative_to(layout.root))
    assert path.resolve().is_relative_to(layout.root)
    assert is_called(inside, page.files)
    assert page.is_due(layout, split)
    path.parent.mkdir(parents=True)
    path.touch()
    assert not page.is_due(layout, split)
