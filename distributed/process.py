"""What is set in a process before it does a run, and how a run's end becomes an exit code."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from artifactgen.errors import ArtifactGenError, NoProgressError, RequeuedError, UsageError
from distributed.console import log_error, log_to_stderr

MISUSED, REQUEUED, INTERRUPTED = 2, 75, 130
"""75 is EX_TEMPFAIL of sysexits.h: SLURM will start the job again, and nobody has to act."""
RESUME = "Resume with:"
"""What stands before the command that resumes a run, wherever one ends early."""


def begin_process() -> None:
    """Prepare a process that does runs: what it prints, its signals, what numerics depend on."""
    log_to_stderr()
    signal.signal(signal.SIGTERM, _interrupt)
    # Else MKL rounds by where arrays happen to lie in memory. (COMPATIBLE is five times slower.)
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    _keep_fonts_apart()


def exit_code_of(do: Callable[[], None], *, command: str) -> int:
    """Do something, say what went wrong, and give the exit code.

    0 complete, 1 the run failed, 2 wrong use found before any work, 130 interrupted; 75 where the
    job of a cluster will be started again.

    Args:
        do: raises what went wrong.
        command: that resumes it.
    """
    try:
        do()
    except KeyboardInterrupt as interruption:
        return tell_interruption(interruption, command)
    except ArtifactGenError as error:
        return tell_error(error, command)
    return 0


def tell_interruption(interruption: KeyboardInterrupt, command: str) -> int:
    """Say that a run was interrupted; the exit code."""
    said = str(interruption)
    log_error(said or f"Interrupted. {how_to_resume(command)}")
    return REQUEUED if isinstance(interruption, RequeuedError) else INTERRUPTED


def tell_error(error: ArtifactGenError, command: str) -> int:
    """Say what went wrong; the exit code."""
    log_error(str(error))
    return exit_code(error, command)


def exit_code(error: ArtifactGenError, command: str) -> int:
    """The exit code of an error; where the run can be resumed, it is said how."""
    if not isinstance(error, (UsageError, NoProgressError)):
        log_error(how_to_resume(command))
    return error.exit_code


def how_to_resume(command: str) -> str:
    """What is said of a run that ended early, and can be resumed by a command."""
    return f"What is done stays done. {RESUME}\n  {command}"


def _keep_fonts_apart() -> None:
    """Let matplotlib keep its list of fonts among temporary files: it would write into the home."""
    folder = Path(tempfile.gettempdir()) / f"artifactgen-{os.getuid()}"
    with suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_symlink() and folder.stat().st_uid == os.getuid():
            os.environ.setdefault("MPLCONFIGDIR", str(folder))


def _interrupt(number: int, _frame: FrameType | None) -> None:
    """Once: a scheduler sends it again, and a second one would interrupt the clean-up."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
