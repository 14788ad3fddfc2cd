"""A section of `docs/models.md`, written anew by the script that measures it."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def write_section(heading: str, lines: Iterable[str]) -> None:
    """Put lines in place of what stands between a heading and the next of its rank.

    Raises:
        ValueError: the page has no such heading.
    """
    before, found, rest = PAGE.read_text("utf-8").partition(f"\n## {heading}\n")
    if not found:
        raise ValueError(f"{PAGE}: no heading {heading}")
    _, following, after = rest.partition("\n## ")
    body = "\n".join(lines)
    PAGE.write_text(f"{before}{found}\n{body}\n{following}{after}", "utf-8")


def versions(*packages: str) -> str:
    """`torch 2.14.1, timm 1.0.31`."""
    return ", ".join(f"{name} {version(name)}" for name in packages)
