"""Options with any value: taken, or refused in words that name the option; never a traceback."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.strategies import fuzzed, scalars
from helpers.workspace import Workspace
from hypothesis import given
from hypothesis import strategies as st

from artifactgen.artifacts.base import Artifact
from artifactgen.data.base import Source
from artifactgen.errors import ConfigError, UsageError
from artifactgen.models.base import Family
from artifactgen.pages.base import Page
from distributed.inputs import build_runner, read_inputs
from distributed.instantiate import instantiate
from distributed.runners.base import RunnerOptions
from distributed.settings import parse
from distributed.usage import config_dir

GROUPS = {"data": Source, "model": Family, "artifact": Artifact, "page": Page}
GROUPS |= {"cluster": RunnerOptions}


@pytest.fixture(scope="module")
def composed(
    tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[[Path], Workspace]
) -> dict[str, Any]:
    """The configuration of a run."""
    workspace = make_workspace(tmp_path_factory.mktemp("fuzz"))
    told, root = io.StringIO(), workspace.root
    with contextlib.redirect_stdout(told):
        workspace.run(
            "experiment=embeddings/my_experiment",
            *(f"ckpt_path={root / 'a.ckpt'}", f"output_dir={root / 'out'}"),
            *("--cfg", "job", "--resolve"),
        )
    config: dict[str, Any] = yaml.safe_load(told.getvalue())
    return config


def keys(config: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Dotted keys of all options."""
    for key, value in config.items():
        yield before + key
        if isinstance(value, dict):
            yield from keys(value, f"{before}{key}.")


def changed(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    copy: dict[str, Any] = yaml.safe_load(yaml.safe_dump(dict(config)))
    for key, value in changes.items():
        *sections, last = key.split(".")
        target: Any = copy
        for section in sections:
            target = target.get(section) if isinstance(target, dict) else None
        if isinstance(target, dict):
            target[last] = value
    return copy


@given(st.data())
@fuzzed(400)
def test_any_value_of_any_option(composed: dict[str, Any], data: st.DataObject) -> None:
    options = sorted(key for key in keys(composed) if "_target_" not in key)
    changes = data.draw(
        st.dictionaries(st.sampled_from(options), scalars(), min_size=1, max_size=2)
    )
    try:
        settings, kinds = parse(changed(composed, changes))
        build_runner(settings)
        read_inputs(settings, kinds)
    except UsageError as error:
        if not str(error).strip() or "Traceback" in str(error):
            raise AssertionError(changes) from error


CHOICES = [
    (group, path.stem) for group in GROUPS for path in sorted((config_dir() / group).glob("*.yaml"))
]


def class_sections(group: str, choice: str) -> list[dict[str, Any]]:
    """The sections of a YAML that name a class."""
    content = yaml.safe_load((config_dir() / group / f"{choice}.yaml").read_text("utf-8"))
    found = [content, *(value for value in content.values() if isinstance(value, dict))]
    return [section for section in found if "_target_" in section]


@pytest.mark.parametrize(("group", "choice"), CHOICES)
@given(st.data())
@fuzzed(40)
def test_any_value_of_the_options_of_a_class(group: str, choice: str, data: st.DataObject) -> None:
    for section in class_sections(group, choice):
        options = {key: value for key, value in section.items() if key != "_target_"}
        names = st.sampled_from(sorted(options)) if options else st.nothing()
        options |= data.draw(st.dictionaries(names, scalars(), max_size=2))
        with contextlib.suppress(ConfigError):
            instantiate(section["_target_"], options, section=group, base=GROUPS[group])
