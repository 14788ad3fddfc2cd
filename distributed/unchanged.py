"""Whether a data set stayed as it was while a run read it: looked at before anything is merged.

What was read from files that have changed since is taken back, and is done again from what they
hold now. Where it is not known what was read of the old and what of the new, nothing more is made
of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from artifactgen.data.base import Catalog
from artifactgen.data.reading import scan_source
from artifactgen.data.stamps import Stamps, changed_files, take_stamps
from artifactgen.errors import DataError, NoProgressError, RunError
from artifactgen.patience import patiently
from artifactgen.store.atomic import write_json
from artifactgen.store.ledger import withdraw
from artifactgen.types import Task
from distributed import describe
from distributed.inputs import with_data
from distributed.run import Run

_MOST_NAMED = 5
_WHAT = "The data set"
_WHILE = "while the run read it"


def stamp(run: Run) -> Stamps:
    """The state of the files that a run, or this part of it, is made of; call before any is read.

    What was done before is part of it: it was made from what the scan has found now.
    """
    inputs, shards = run.inputs, [task.shard for task in _tasks(run)]
    if run.settings.dry_run:
        return {}
    return patiently(partial(take_stamps, inputs.source, inputs.catalog, shards), what=_WHAT)


def require_unchanged(run: Run, before: Stamps) -> None:
    """Check that the files that were read are what they were.

    Raises:
        RunError: some have changed, and the same command does again what was read from them.
        NoProgressError: the records are not the same any more.
    """
    inputs = run.inputs
    changed = patiently(partial(changed_files, inputs.source, inputs.catalog, before), what=_WHAT)
    if not changed:
        return
    files = sorted({path for paths in changed.values() for path in paths})
    number = describe.counted(len(files), "file")
    told = f"The data set changed {_WHILE}, in {number}:\n{_listed(files)}"
    now = _look_again(run, told)
    if now.identity != inputs.catalog.identity:
        raise _refusal(run, f"{told}\n{_difference(inputs.catalog, now)}")
    _do_again(run, [task for task in _tasks(run) if task.shard in changed], content=now.content)
    raise RunError(
        f"{told}\nWhat was read of {'it' if len(files) == 1 else 'them'}, "
        f"{describe.counted(len(changed), 'shard')} of {len(before)}, will be done again."
    )


def _tasks(run: Run) -> list[Task]:
    """All shards of this run, or of this part of it, that are not merged."""
    part = run.runner.part()
    every = (task for scope in run.open_scopes() for task in scope.tasks(()))
    return [task for task in every if part is None or part.holds(task.shard)]


def require_same_data_set(run: Run) -> None:
    """Check that the data set has the same records as before the run, with the same content.

    Raises:
        NoProgressError: it has not.
    """
    before = run.inputs.catalog
    now = _look_again(run, f"The data set changed {_WHILE}.")
    if now.identity != before.identity:
        raise _refusal(run, f"The data set changed {_WHILE}: {_difference(before, now)}")
    if now.content != before.content:
        raise _refusal(run, f"The data set changed {_WHILE}: its files hold other bytes.")


def _do_again(run: Run, tasks: Iterable[Task], *, content: str) -> None:
    """Take back what the tasks have made, and go on with what the files hold now.

    In this order: killed in between, the run is refused for its content.
    """
    for task in tasks:
        withdraw(run.layout, task.scope, task.shard, fingerprint=run.inputs.fingerprint)
    _write_settings(run, content=content)


def _look_again(run: Run, told: str) -> Catalog:
    try:
        return scan_source(run.inputs.source)
    except DataError as error:
        raise _refusal(run, f"{told}\nNow it cannot be used: {error}") from error


def _refusal(run: Run, told: str) -> NoProgressError:
    """What is there may be of both; so the directory is refused from now on."""
    _write_settings(run, identity=f"changed {_WHILE}")
    return NoProgressError(
        f"{told}\nSome of what is in {run.layout.root} was made from the one, some from the other. "
        "Once nothing changes the data set any more, begin anew: add overwrite=true, or give "
        "another output_dir."
    )


def _write_settings(run: Run, **changes: str) -> None:
    settings = with_data(run.inputs.deciding, **changes)
    write_json(run.layout.settings, settings, temp_dir=run.layout.temp)


def _difference(before: Catalog, now: Catalog) -> str:
    """How the records differ, as far as their numbers tell."""
    counts = [
        f"{name} had {len(index):,} records and has {_length(now.splits, name):,}"
        for name, index in before.splits.items()
        if len(index) != _length(now.splits, name)
    ]
    return f"{'; '.join(counts) or 'ids, labels or names of files are others'}."


def _length(splits: Mapping[str, object], name: str) -> int:
    index = splits.get(name, ())
    return len(index)  # type: ignore[arg-type]


def _listed(files: Sequence[str]) -> str:
    more = ["  …"] if len(files) > _MOST_NAMED else []
    return "\n".join([*(f"  {path}" for path in files[:_MOST_NAMED]), *more])
