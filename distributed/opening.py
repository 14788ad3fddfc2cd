"""Making an output directory ready for a run, and for the parts of a run that start together."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

from artifactgen.errors import OutputError
from artifactgen.store.calibrated import recall, remember
from artifactgen.store.layout import Layout
from artifactgen.store.lock import lock, owner
from artifactgen.store.output import open_output, remove_owned
from artifactgen.store.siblings import Siblings
from artifactgen.types import Part
from distributed.prepare import Prepared, prepare
from distributed.run import Run

log = logging.getLogger(__name__)

PATIENCE_S = 900.0
"""How long a part waits for another one that opens the directory or merges."""
_LONGEST_PAUSE_S = 0.3
_TELL_AFTER_S = 2.0
_PREPARATIONS = 3


@contextmanager
def locked(layout: Layout, *, part: Part | None) -> Iterator[None]:
    """Make the output directory, and hold its lock for the block."""
    try:
        layout.state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"output_dir={layout.root} cannot be made: {error.strerror}. Give another directory."
        ) from error
    with lock(layout.lock, part=part):
        yield


def open_directory(run: Run, prepared: Prepared) -> None:
    """Resume what is there, or start anew; call where nobody else is at work."""
    changes = run.changes()
    if changes:
        log.info("overwrite=true: removing what other settings made: %s", "; ".join(changes))
        remove_owned(run.layout)
    if run.is_mended():
        log.warning(
            "retry_failures=true: the files of the data set hold other bytes than before. Only "
            "shards with failures are read again; that the rest is unchanged is taken on trust."
        )
    open_output(run.layout, run.inputs.deciding, patterns=prepared.patterns)
    remember(run.layout, prepared.calibrated)


def begun_meanwhile(run: Run) -> OutputError:
    """What to say where the directory is not as it was found any more."""
    return OutputError(
        f"{run.layout.root}: another run has begun here meanwhile. Run the same command again."
    )


def enter(run: Run, siblings: Siblings, prepared: Prepared, part: Part) -> Prepared | None:
    """Join the other parts at work; the first opens the directory for all.

    Returns:
        What the work is to be done with: prepared again where another part has decided otherwise.
        None where another part merges, and this one's shards are done: it need not wait for that.

    Raises:
        OutputError: a run with other settings has begun, or another part keeps this one out for
            longer than `PATIENCE_S`.
    """
    for _ in range(_PREPARATIONS):
        if not _join(run, siblings, prepared, part):
            return None
        if run.is_complete() or prepared.agrees(run):
            return prepared
        siblings.leave()
        log.info("Another part has calibrated otherwise: preparing with what it has decided.")
        prepared.ready.take_assembly()  # two models at once may be too much
        prepared = prepare(run)
    raise begun_meanwhile(run)


def _join(run: Run, siblings: Siblings, prepared: Prepared, part: Part) -> bool:
    """Be at work in a directory that is open; False where there is no work for this part.

    Whoever is alone may open it, and dies perhaps before it has: so it is looked at, not agreed.
    """
    for _ in _patiently(run):
        if siblings.try_alone() and _may_open(run, prepared):
            open_directory(run, prepared)
        if siblings.try_join() and _is_open(run, prepared):
            return True
        siblings.leave()
        if _is_recorded(run, part):
            return False
    return False


def _is_recorded(run: Run, part: Part) -> bool:
    """Whether every shard of a part is done, as far as the ledger tells."""
    if run.changes():
        return False
    recorded = {receipt.shard for scope in run.scopes for receipt in run.recorded(scope)}
    own = {shard for scope in run.scopes for shard in scope.shards if part.holds(shard)}
    return own <= recorded


def _may_open(run: Run, prepared: Prepared) -> bool:
    """Whether what was prepared still holds; what is complete is left as it is."""
    return not run.is_complete() and (prepared.is_as_found(run) or prepared.agrees(run))


def _is_open(run: Run, prepared: Prepared) -> bool:
    """Whether a part with these settings has opened the directory."""
    if not run.changes():
        return run.is_complete() or recall(run.layout) is not None
    if prepared.is_as_found(run):
        return False  # nobody has yet removed what other settings made
    raise begun_meanwhile(run)


def _patiently(run: Run) -> Iterator[None]:
    """Try after try, each after a moment of its own length, so that no two stay in step."""
    begun, told = time.monotonic(), False
    while (waited_s := time.monotonic() - begun) < PATIENCE_S:
        yield
        if waited_s > _TELL_AFTER_S and not told:
            told = True
            log.info("Waiting for another part, which opens the directory or merges.")
        time.sleep(random.uniform(0.1, 1) * _LONGEST_PAUSE_S)
    raise OutputError(
        f"{run.layout.root}: other parts keep this one out for {waited_s / 60:.0f} minutes "
        f"({owner(run.layout.lock)}).\nOnce they have ended, run the same command again."
    )
