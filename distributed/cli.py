"""From a command line to an exit code: Hydra composes, and each job of it is built and executed.

Exit codes: 0 complete, 1 the run failed, 2 wrong use found before any work, 130 interrupted.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from artifactgen.errors import ArtifactGenError, UsageError, did_you_mean
from distributed.console import log_error, log_to_stderr
from distributed.job import JobFailedError, run_job

PROGRAM = "generate_artifacts"
MISUSED, INTERRUPTED = 2, 130


def config_dir() -> Path:
    """The folder of our configuration: in a wheel beside this file, in a checkout at its top."""
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "configs"


def run_command(arguments: Sequence[str]) -> int:
    """Run the program with command-line arguments; its exit code."""
    command = shlex.join([PROGRAM, *arguments])
    log_to_stderr()
    register_resolvers()
    signal.signal(signal.SIGTERM, _interrupt)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us: Hydra neither prints them nor exits
    main = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="artifacts")
    try:
        sys.argv = [PROGRAM, *prepare(arguments)]
        main(run_job)()
    except KeyboardInterrupt:
        log_error(f"Interrupted. What is done stays done. Resume with:\n  {command}")
        return INTERRUPTED
    except (HydraException, OmegaConfBaseException) as error:
        log_error(explain(error))
        return MISUSED
    except JobFailedError as failure:
        log_error(str(failure.error))
        return _exit_code(failure.error, command)
    except ArtifactGenError as error:  # of a job of a sweep, which has told it
        return _exit_code(error, command)
    return 0


def register_resolvers() -> None:
    """What our configuration files compute: `${basename:embeddings/demo}` is `demo`."""
    OmegaConf.register_new_resolver("basename", lambda path: Path(path).name, replace=True)


def prepare(arguments: Sequence[str]) -> list[str]:
    """The arguments as Hydra needs them.

    `debug=true` picks a file of the group `debug`, whose names Hydra wants quoted. In a sweep
    every job has an output directory of its own, named after what is swept: Hydra's
    `override_dirname` without the overrides that all jobs share.
    """
    prepared = [re.sub(r"^debug=(true|false)$", r'debug="\1"', a, flags=re.I) for a in arguments]
    if "-m" in prepared or "--multirun" in prepared:
        shared = ",".join(_shared_keys(prepared))
        prepared.append(f"hydra.job.config.override_dirname.exclude_keys=[{shared}]")
    return prepared


def _shared_keys(arguments: Sequence[str]) -> list[str]:
    overrides = [a for a in arguments if "=" in a and not a.startswith("-")]
    parsed: list[Override] = OverridesParser.create().parse_overrides(overrides)
    return [o.key_or_group for o in parsed if not o.is_sweep_override()]


def explain(error: Exception) -> str:
    """What Hydra says, in our words: what is wrong, and what is near."""
    text = "\n".join(line for line in str(error).splitlines() if line.strip())
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        return f"{unknown[1]}: there is no such option. {did_you_mean(unknown[1], _options())}"
    return text


def _options() -> list[str]:
    """Every option of the program's own files, as it is written on a command line."""
    root = config_dir()
    files = [root / "artifacts.yaml", *root.glob("artifact/*.yaml"), *root.glob("*/*.yaml")]
    options: list[str] = []
    for file in files:
        group = "" if file.parent.name in (root.name, "artifact", "debug") else file.parent.name
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


def _exit_code(error: ArtifactGenError, command: str) -> int:
    if not isinstance(error, UsageError):
        log_error(f"What is done stays done. Resume with:\n  {command}")
    return error.exit_code


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
