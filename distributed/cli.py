"""From a command line to an exit code: Hydra composes, and each job of it is done or submitted."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from artifactgen.errors import ArtifactGenError, ConfigError, did_you_mean
from distributed.console import log_error
from distributed.data_auto import tell_data
from distributed.job import (
    LAUNCHER,
    SWEEP_NAMING,
    JobFailedError,
    SubmittedEnd,
    refuse_launcher,
    register_launcher,
    run_job,
)
from distributed.process import (
    MISUSED,
    begin_process,
    exit_code,
    exit_code_of,
    tell_error,
    tell_interruption,
)
from distributed.request import Request
from distributed.usage import PROGRAM, config_dir

_TWINS = {"data.path": "data.root", "data.root": "data.path"}
"""What a source has one of, by which it is found."""
_PATH_WITH_EQUALS = re.compile(
    r"(?P<key>ckpt_path|output_dir|data\.path|data\.root)=(?P<values>[^'\"[({]*=[^'\"[({]*)"
)
"""As Lightning names checkpoints: `ckpt_path=epoch=9-step=900.ckpt`."""
_GLOB_WITH_BRACES = re.compile(
    r"(?P<key>data\.(?:path|train|val|test))=(?P<glob>[^'\"\[][^'\"]*(?<!\$)[\[{][^'\"]*|\{[^'\":]*)"
)
"""As webdataset names shards, `data.path=shards/{000..009}.tar`; to Hydra it is no text."""
_OF_LAUNCHER = re.compile(r"[+~]*hydra\.launcher[.=]")


def run_hydra(arguments: Sequence[str]) -> int:
    """Compose the configuration of a command line, and do its jobs; the exit code."""
    command = _to_resume(arguments)
    begin_process()
    if "data=auto" in arguments:
        return exit_code_of(partial(tell_data, arguments), command=command)
    register_resolvers()
    register_launcher(
        yaml.safe_load((config_dir() / "launcher" / f"{LAUNCHER}.yaml").read_text("utf-8"))
    )
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us: Hydra neither prints them nor exits

    @hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="artifacts")
    def job(config: DictConfig) -> Request | None:
        return run_job(config, command)

    try:
        sys.argv = [PROGRAM, *prepare(arguments)]
        job()
    except KeyboardInterrupt as interruption:
        return tell_interruption(interruption, command)
    except (HydraException, OmegaConfBaseException) as error:
        log_error(explain(error, arguments))
        return MISUSED
    except SubmittedEnd as end:
        return end.exit_code
    except JobFailedError as failure:
        return tell_error(failure.error, command)
    except ArtifactGenError as error:  # of a job of a sweep, which has told it
        return exit_code(error, command)
    return 0


def _to_resume(arguments: Sequence[str]) -> str:
    """What to type to go on: a rank of a job was not typed, but its script was submitted."""
    if "cluster=slurm" not in arguments:
        return shlex.join([PROGRAM, *arguments])
    own = [argument for argument in arguments if argument != "cluster=slurm"]
    return f"sbatch slurm/artifacts.sbatch {shlex.join(own)}"


def register_resolvers() -> None:
    """What our configuration files compute: `${basename:embeddings/demo}` is `demo`."""
    OmegaConf.register_new_resolver("basename", lambda path: Path(path).name, replace=True)


def prepare(arguments: Sequence[str]) -> list[str]:
    """The arguments as Hydra needs them.

    Flags come before overrides. `debug=true` picks a file of the group `debug`, whose names Hydra
    wants quoted, as it does paths that hold a `=` and globs that hold a brace. In a sweep every job
    has an output directory of its own, named after what is swept: Hydra's `override_dirname`
    without the overrides that all jobs share.
    """
    try:
        _check_launcher(arguments)
    except ConfigError as error:
        raise JobFailedError(error) from error
    if f"hydra/launcher={LAUNCHER}" in arguments and not any(map(_is_cluster, arguments)):
        arguments = [*arguments, "cluster=slurm"]
    ordered = sorted(arguments, key=_is_override)
    prepared = [part for argument in ordered for part in _as_hydra_takes_it(argument)]
    if "-m" in prepared or "--multirun" in prepared:
        prepared.append(f"{SWEEP_NAMING}[{','.join(_shared_keys(prepared))}]")
    return prepared


def _check_launcher(arguments: Sequence[str]) -> None:
    """`ConfigError` for one that we do not know, or for settings of a launcher without one.

    With `-m` Hydra would have submitted jobs before one of them could refuse; and what a single run
    has no use for, it takes without a word.
    """
    for argument in arguments:
        if argument.startswith("hydra/launcher="):
            refuse_launcher(argument.partition("=")[2])
        elif _OF_LAUNCHER.match(argument) and f"hydra/launcher={LAUNCHER}" not in arguments:
            raise ConfigError(
                f"{argument} is for jobs that are submitted: add hydra/launcher={LAUNCHER}."
            )


def _is_override(argument: str) -> bool:
    return argument.startswith("~") or ("=" in argument and not argument.startswith("-"))


def _is_cluster(argument: str) -> bool:
    return argument.startswith("cluster=")


def _as_hydra_takes_it(argument: str) -> list[str]:
    if re.fullmatch(r"(\+\+)?model\.options=\{\s*\}", argument):
        # Hydra merges mappings, and an empty one would leave the experiment's options as they are.
        return ["++model.options=null", "++model.options={}"]
    if re.match(r"(model\.options|data\.kwargs|data\.splits|hydra\.launcher)[.=]", argument):
        return [f"++{argument}"]  # keys that timm knows, or that are refused with those there are
    if argument.lower() in ("debug=true", "debug=false"):
        return ['debug="{}"'.format(argument.lower().partition("=")[2])]
    if shards := _GLOB_WITH_BRACES.fullmatch(argument):
        return [f'{shards["key"]}="{shards["glob"]}"']
    path = _PATH_WITH_EQUALS.fullmatch(argument)
    if path is None:
        return [argument]
    values = [f'"{value}"' if "=" in value else value for value in path["values"].split(",")]
    return [f"{path['key']}={','.join(values)}"]


def _shared_keys(arguments: Sequence[str]) -> list[str]:
    overrides = [argument for argument in arguments if _is_override(argument)]
    parsed: list[Override] = OverridesParser.create().parse_overrides(overrides)
    return [o.key_or_group for o in parsed if not o.is_sweep_override()]


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """What Hydra says, in our words: what is wrong, and what is near."""
    text = "\n".join(line for line in str(error).splitlines() if line.strip())
    option = re.search(r"Could not override '([^']+)'", text)
    if option:
        return _unknown(option[1], arguments)
    if "must specify 'experiment'" in text:
        there = ", ".join(_choices("experiment", arguments))
        return f"experiment is not set. Known: {there}.\nAdd experiment=<one of them>."
    file = re.match(r"(In '[^']+': )?Could not (?:find|load) '(\w+)/([^']+)'", text)
    if file:
        where = "" if file[1] in (None, "In 'artifacts': ") else file[1]
        near = did_you_mean(file[3], _choices(file[2], arguments))
        return f"{where}{file[2]}={file[3]}: there is no such configuration. {near}"
    return text.partition("\nConfig search path")[0]


def _unknown(option: str, arguments: Sequence[str]) -> str:
    """An option that the chosen files do not have, and what it might have been."""
    known = [name for name in _options(arguments) if name != option]
    own = [name for name in known if name.rpartition(".")[2] == option]
    twin = [name for name in known if name == _TWINS.get(option)]
    group = option.partition(".")[0]
    what = (
        f"this {group}= has no such option" if option in _options() else "there is no such option"
    )
    return f"{option}: {what}. {did_you_mean(option, twin or own or known)}"


def _choices(group: str, arguments: Sequence[str]) -> list[str]:
    """Names of the files of a group, ours and those below the user's `--config-dir`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    given = parser.parse_known_args(list(arguments))[0].config_dir
    folders = [root / group for root in (config_dir(), given) if root is not None]
    return sorted({_stem(file, folder) for folder in folders for file in folder.rglob("*.yaml")})


def _stem(file: Path, folder: Path) -> str:
    return str(file.relative_to(folder).with_suffix(""))


def _options(arguments: Sequence[str] = ()) -> list[str]:
    """Every option of the program's own files, as it is written on a command line.

    Of a group of which the arguments choose one, only that one's.
    """
    root = config_dir()
    chosen = dict(a.split("=", 1) for a in arguments if re.fullmatch(r"(data|model)=\w+", a))
    files = [root / "artifacts.yaml", *root.glob("artifact/*.yaml"), *root.glob("*/*.yaml")]
    files = [file for file in files if chosen.get(file.parent.name, file.stem) == file.stem]
    options: list[str] = []
    for file in files:
        group = "" if file.parent.name in (root.name, "artifact", "debug") else file.parent.name
        group = {"page": f"pages.{file.stem}", "launcher": "hydra.launcher"}.get(group, group)
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        options += _dotted(content, group)
    return list(dict.fromkeys(options))


def _dotted(content: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in content.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, dict) and value:
            yield from _dotted(value, path)
        elif key not in ("defaults", "_target_"):
            yield path
