"""The manual says what is there: settings and defaults, messages, files that it links to."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("slurm/*.md")])
SLURM = (ROOT / "docs" / "slurm.md").read_text("utf-8")
WORDS_LEAST = 2
"""Of a piece of a message, to be looked for: `s` is everywhere."""


def rows(heads: str, page: str = SLURM) -> list[tuple[str, ...]]:
    """The cells of the table of a page with these heads."""
    table = page.partition(f"| {heads} |\n")[2].partition("\n\n")[0]
    lines = table.splitlines()[1:]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]


def documented(heads: str, prefix: str = "") -> dict[str, object]:
    """Names and defaults of a table of settings."""
    names = [(re.findall(r"`([\w.]+)`", row[0]), row[1].strip("`")) for row in rows(heads)]
    return {
        n.removeprefix(prefix): yaml.safe_load(default) for each, default in names for n in each
    }


def settings(file: str) -> dict[str, object]:
    content: dict[str, object] = yaml.safe_load((ROOT / "configs" / file).read_text("utf-8"))
    del content["_target_"]
    return content


def test_settings_of_a_job_are_those_of_the_manual() -> None:
    assert documented("setting | default | meaning") == settings("launcher/submitit_slurm.yaml")


def test_options_of_the_runner_are_those_of_the_manual() -> None:
    theirs = documented("option | default | meaning", prefix="cluster.")
    assert theirs == settings("cluster/slurm.yaml")


def texts() -> Iterator[str]:
    """Every string of the program; what an f-string fills in is a line break."""
    for file in [*ROOT.glob("artifactgen/**/*.py"), *ROOT.glob("distributed/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                constant = (p.value if isinstance(p, ast.Constant) else "\n" for p in node.values)
                yield "".join(map(str, constant))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value.replace("%s", "\n").replace("%d", "\n")


@pytest.mark.parametrize(
    ("name", "least"), [("slurm", 20), ("checkpoints", 10), ("data", 15), ("models", 8)]
)
def test_messages_of_the_manual_are_those_of_the_program(name: str, least: int) -> None:
    page = (ROOT / "docs" / f"{name}.md").read_text("utf-8")
    told = rows("message | what to do", page)
    messages = [m for row in told for m in re.findall(r"`(.+?)`", row[0])]
    assert len(messages) > least
    program = "\0".join(texts())
    for message in messages:
        # Numbers and states stand for what is filled in.
        pieces = [piece.strip(" .") for piece in re.split(r"…|\d+|[A-Z]{4,}", message)]
        long = [piece for piece in pieces if len(piece.split()) >= WORDS_LEAST]
        assert long, message
        assert [piece for piece in long if piece not in program] == [], message


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link, as GitHub makes it."""
    heads = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", head.strip().lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text("utf-8")):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
