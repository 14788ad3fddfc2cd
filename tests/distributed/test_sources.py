"""Sources, kinds and pages of the user's own that do what they should not: an error, and told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.workspace import CKPT, EXPERIMENT, Workspace, assert_exact, entries

import artifactgen.patience

SOURCE = """\
from __future__ import annotations
import errno, os, sys, threading
from dataclasses import dataclass, replace
from pathlib import Path
from artifactgen.data.hdf5 import Hdf5

@dataclass(frozen=True, slots=True, kw_only=True)
class Odd(Hdf5):
    how: str = ""
    marks: str = ""
    where: str = "shards"

    def scan(self):
        if self.where == "the scan":
            list(self.at_row_3(None))
        return replace(Hdf5.scan(self), dtype=None)

    def is_here(self):
        thread = threading.current_thread()
        if thread is threading.main_thread():
            return self.where == "the first look"
        return self.where == ("shards" if thread.name.startswith("reader") else "a sheet")

    def read(self, catalog, split, start, stop):
        for item in Hdf5.read(self, catalog, split, start, stop):
            if split == "test" and item.row == 3 and self.is_here():
                done = yield from self.at_row_3(item)
                if done:
                    return
            else:
                yield item

    def at_row_3(self, item):
        if self.how == "exit":
            sys.exit(0)
        elif self.how == "stop":
            return True
        elif self.how == "skip":
            pass
        elif self.how == "raise":
            raise OddError("a", "b")
        elif self.how in ("stale once", "stale"):
            mark = Path(self.marks, "tried")
            with mark.open("a") as file:
                file.write("x")
            if self.how == "stale" or mark.stat().st_size == 1:
                raise OSError(errno.ESTALE, "Stale file handle", "/data/x.h5")
            yield item
        elif self.how == "wide":
            yield replace(item, image_CHW=item.image_CHW.astype("uint16"))
        return False

class OddError(Exception):
    def __init__(self, one, two):
        super().__init__(one)
"""

STALE_CHECKPOINT = """
import artifactgen.worker
def assemble(job, before=artifactgen.worker.assemble):
    mark = Path(job.source.marks, "tried")
    if not mark.exists():
        mark.write_text("x")
        raise OSError(errno.ESTALE, "Stale file handle", "/data/model.ckpt")
    return before(job)
artifactgen.worker.assemble = assemble
"""


@pytest.fixture
def project(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A user's folder, with a source that is like ours but for row 3 of `test`."""
    (workspace.root / "odd_source.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(workspace.root)
    monkeypatch.setenv("PYTHONPATH", str(workspace.root), prepend=":")
    return workspace


def odd(project: Workspace, how: str, *options: str, where: str = "shards") -> list[str]:
    target = "data._target_=odd_source.Odd"
    own = [f"+data.how={how}", f"+data.marks={project.root}", f"+data.where={where}"]
    return [EXPERIMENT, CKPT, target, *own, "splits=[val,test]", "page=[]", *options]


WRONG = {
    "exit": r"Odd called sys\.exit\(0\) while reading row 3 of test \(odd_source\.py, line \d+\)",
    "stop": r"Odd was to read row 3 of test: it gave 0 of 1",
    "skip": r"Odd was to read row 3 of test: it gave 0 of 1",
    "raise": r"Odd raised OddError while reading row 3 of test \(odd_source\.py, line \d+\): a",
    "wide": r"Odd was to read row 3 of test: row 3: the image of 'test_003' is uint16",
}


@pytest.mark.parametrize(("how", "reason"), WRONG.items(), ids=WRONG)
def test_a_source_that_does_wrong_ends_the_run(project: Workspace, how: str, reason: str) -> None:
    outcome = project.run(*odd(project, how))
    assert outcome.exit_code == 1, outcome.text
    assert re.search(rf"Shard test-000001: {reason}", outcome.text), outcome.text
    assert "Resume with" in outcome.text
    assert "Traceback" not in outcome.text
    assert "Trying again" not in outcome.text
    assert not (project.output / "_SUCCESS.json").exists()
    assert not (project.output / "embeddings/test_embeddings.pt").exists()


@pytest.mark.ray
@pytest.mark.parametrize("how", ["exit", "raise", "skip"])
def test_on_ray_too(project: Workspace, how: str) -> None:
    started = project.start(*odd(project, how, "cluster=ray", "cluster.workers=2"))
    outcome = started.finish()
    assert outcome.exit_code == 1, outcome.text
    assert re.search(rf"Shard test-000001: {WRONG[how]}", outcome.text), outcome.text
    assert "Traceback" not in outcome.text


@pytest.mark.parametrize("how", ["raise", "wide"])
def test_a_source_that_does_wrong_where_the_first_look_reads_is_refused(
    project: Workspace, how: str
) -> None:
    refused = project.run(*odd(project, how, where="the first look"))
    assert refused.exit_code == 2, refused.text
    assert re.search(WRONG[how], refused.text), refused.text


def test_a_source_that_does_wrong_from_the_first_record_on_is_refused(project: Workspace) -> None:
    (project.root / "odd_source.py").write_text(SOURCE.replace("item.row == 3", "item.row < 9"))
    options = odd(project, "exit", "splits=[test]", where="the first look")
    refused = project.start(*options).finish()
    assert refused.exit_code == 2, refused.text
    assert "Odd called sys.exit(0) while reading row 0 of test" in refused.text
    assert not project.output.exists()


def test_a_reading_error_that_passes_is_tried_again(
    project: Workspace, finished: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifactgen.patience, "PAUSES_S", (0.01, 0.02))
    outcome = project.run(*odd(project, "stale once", "splits=[train,val,test]", "page=[overview]"))
    assert outcome.exit_code == 0, outcome.text
    told = r"Shard test-000001: OSError: \[Errno 116\] Stale file handle .*Trying again in 0\.01 s"
    assert re.search(told, outcome.text), outcome.text
    assert_exact(project.output, finished.output)


def test_a_reading_error_that_stays_fails_the_shard_and_no_record(
    project: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifactgen.patience, "PAUSES_S", (0.01, 0.02))
    outcome = project.run(*odd(project, "stale"))
    assert outcome.exit_code == 1, outcome.text
    told = "Shard test-000001: OSError: [Errno 116] Stale file handle (Odd, reading row 3 of test)"
    assert told in outcome.text
    assert "It was tried 3 times." in outcome.text
    assert "Resume with" in outcome.text
    assert (project.root / "tried").read_text() == "xxx"
    names = [path.stem for path in entries(project.output, "test")]
    assert names == ["test-000000"]
    assert all('"failures": []' in path.read_text() for path in entries(project.output))
    resumed = project.run(*odd(project, "stale once"))
    assert resumed.exit_code == 2, "another option of the source is another setting"
    (project.root / "odd_source.py").write_text(SOURCE.replace('self.how == "stale" or', ""))
    healed = project.start(*odd(project, "stale")).finish()
    assert healed.exit_code == 0, healed.text
    assert "0 failed" in healed.text


OUTSIDE = ["the scan", "the first look", "a sheet"]


@pytest.mark.parametrize("where", OUTSIDE)
def test_outside_of_shards_too_a_reading_error_is_tried_again(
    project: Workspace, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(artifactgen.patience, "PAUSES_S", (0.01, 0.02))
    once = odd(project, "stale once", "page=[overview]", where=where)
    outcome = project.run(*once)
    assert outcome.exit_code == 0, outcome.text
    told = r"The data set: OSError: .* Stale file handle \(Odd, .*Trying again in 0\.01 s"
    assert len(re.findall(told, outcome.text)) == 1, outcome.text


@pytest.mark.parametrize("where", OUTSIDE)
def test_outside_of_shards_too_a_reading_error_that_stays_can_be_resumed(
    project: Workspace, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(artifactgen.patience, "PAUSES_S", (0.01, 0.02))
    outcome = project.run(*odd(project, "stale", "page=[overview]", where=where))
    assert outcome.exit_code == 1, outcome.text
    assert re.search(r"The data set: OSError: \[Errno 116\] Stale file handle \(Odd", outcome.text)
    assert "It was tried 3 times." in outcome.text
    assert "Resume with" in outcome.text
    assert "Traceback" not in outcome.text
    assert (project.root / "tried").read_text() == "xxx"


def test_memory_that_is_short_where_no_record_is_read_has_words(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def merge(*_: Any) -> None:
        bytearray(2**62)

    monkeypatch.setattr("distributed.execute.merge", merge)
    outcome = workspace.run(EXPERIMENT, CKPT, "splits=[val]")
    assert outcome.exit_code == 1, outcome.text
    assert "There is not enough memory on this machine.\nFree some, or" in outcome.text
    assert "Resume with" in outcome.text


def test_a_mistake_in_code_is_told_at_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(*_: Any, **__: Any) -> Any:
        raise RuntimeError("size of tensor a must match the size of tensor b")

    monkeypatch.setattr("artifactgen.worker.make_view", draw)
    outcome = workspace.run(EXPERIMENT, CKPT, "splits=[val]")
    assert outcome.exit_code == 1, outcome.text
    told = r"Shard val-000000: RuntimeError: size of tensor .* \(test_sources\.py, line \d+\)"
    assert re.search(told, outcome.text), outcome.text
    assert "Trying again" not in outcome.text
    assert "Resume with" in outcome.text


@pytest.mark.ray
def test_a_model_that_cannot_be_loaded_for_a_while_is_tried_again_on_ray(
    project: Workspace,
) -> None:
    """The checkpoint is read by each worker, as its first shard begins."""
    (project.root / "odd_source.py").write_text(SOURCE + STALE_CHECKPOINT)
    outcome = project.start(
        *odd(project, "", "splits=[val]", "cluster=ray", "cluster.workers=1")
    ).finish()
    assert outcome.exit_code == 0, outcome.text
    assert (project.root / "tried").read_text() == "x"


def test_pauses_grow_to_many_seconds() -> None:
    pauses = artifactgen.patience.PAUSES_S
    assert len(pauses) == 2
    assert 1 <= pauses[0] < pauses[1] <= 60


class Exits:
    """Stands for a piece of somebody's code that leaves."""

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise SystemExit(0)


PLACES = {
    "artifactgen.data.hdf5.source.scan_files": (2, "Hdf5 called {} while scanning the data set"),
    "artifactgen.artifacts.embedding.BoundEmbedding.compute": (1, "{} while the job was running"),
    "artifactgen.worker.make_view": (1, "{} while shard val-000000 was done"),
    "artifactgen.pages.overview.Overview.write": (
        1,
        "The page overview called {} while drawing val",
    ),
    "distributed.execute.finish": (1, "{} while the job was running"),
}


@pytest.mark.parametrize("place", PLACES)
def test_nothing_that_leaves_makes_a_run_complete(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    code, reason = PLACES[place]
    monkeypatch.setattr(place, Exits())
    outcome = workspace.run(EXPERIMENT, CKPT, "splits=[val]")
    assert outcome.exit_code == code, outcome.text
    assert reason.format("sys.exit(0)") in outcome.text
    assert "(test_sources.py, line " in outcome.text
    assert not (workspace.output / "_SUCCESS.json").exists()


def test_workers_that_end_early_are_no_complete_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some(self: Any, job: Any, tasks: Any, *arguments: Any) -> Any:
        from distributed.runners.inline import Inline

        yield from Inline().run(job, tasks[:2], *arguments)

    monkeypatch.setattr("distributed.runners.local.Local.run", some)
    outcome = workspace.run(EXPERIMENT, CKPT, "splits=[val]")
    assert outcome.exit_code == 1, outcome.text
    assert (
        "The workers ended without an error, but 2 shards are not done: val-000002, val-000003."
        in outcome.text
    )
    monkeypatch.undo()
    assert workspace.run(EXPERIMENT, CKPT, "splits=[val]").exit_code == 0


def test_a_file_that_is_no_hdf5_is_named_on_the_command_line(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "images.h5").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    outcome = workspace.run(EXPERIMENT, CKPT, f"data.path={tmp_path / 'images.h5'}")
    assert outcome.exit_code == 2
    assert "images.h5 is a PNG image; data=hdf5 reads HDF5." in outcome.text
