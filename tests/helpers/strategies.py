"""What anything may look like: strategies of hypothesis, and how many examples are tried.

The same examples every time, in a few seconds for each test. `ARTIFACTGEN_FUZZ=100` tries a
hundred times as many, and others each time.
"""

from __future__ import annotations

import os
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from artifactgen.data.base import Source
from artifactgen.data.reading import read_range, scan_source
from artifactgen.errors import DataError
from artifactgen.types import Failure

TIMES = int(os.environ.get("ARTIFACTGEN_FUZZ", "1"))
Test = TypeVar("Test", bound=Callable[..., Any])

_ODD_IDS = (
    *("", ".", "..", "...", "../../x", "/etc/passwd", "a/b", "a\\b", "\0", "a\0b", "\n", " ", "x."),
    *("CON", "con", "con.txt", "COM1", ".con", "-rf", "$(id)", "~", "%2F", "%", "é", "e\u0301"),
    *("\ud800", "\udcff", "🫀" * 100, "a" * 300, "a" * 301, "é" * 512, "\u202eabc", "A", "a"),
)


def fuzzed(examples: int) -> Callable[[Test], Test]:
    """Settings of a test: so many examples, bounded and the same each time unless more are asked
    for."""
    return settings(
        max_examples=examples * TIMES,
        derandomize=TIMES == 1,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one example."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        yield Path(folder)


def any_text(most: int = 300) -> st.SearchStrategy[str]:
    """Any text, lone surrogates and NUL among it."""
    return st.text(st.characters(codec=None, exclude_categories=()), max_size=most)


def record_ids() -> st.SearchStrategy[str]:
    """An id of a record, mostly an odd one."""
    near = st.text("aA.%~/\\0é🫀\ud800 \ncon1", max_size=8)
    return st.one_of(st.sampled_from(_ODD_IDS), near, any_text())


@st.composite
def ids_of_a_data_set(draw: st.DrawFn, *, least: int = 1, most: int = 12) -> list[str]:
    """Distinct ids, with twins that differ in case alone, or in what file systems may fold."""
    ids = draw(st.lists(record_ids(), min_size=least, max_size=most, unique=True))
    twins = [name.swapcase() for name in ids[:2]] + [f"{name}." for name in ids[:1]]
    return list(dict.fromkeys([*ids, *twins]))[:most]


def looks(name: str) -> str:
    """What ids are compared by: two that look the same are the same."""
    return unicodedata.normalize("NFC", name)


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """A file of which some bytes are others, and perhaps the end is missing."""
    change = st.tuples(st.integers(0, max(len(whole) - 1, 0)), st.integers(0, 255))
    stop = st.one_of(st.just(len(whole)), st.integers(0, len(whole)))

    def apply(changes: list[tuple[int, int]], end: int) -> bytes:
        broken = bytearray(whole)
        for place, value in changes:
            broken[place] = value
        return bytes(broken[:end])

    return st.builds(apply, st.lists(change, min_size=1, max_size=6), stop)


def scalars() -> st.SearchStrategy[Any]:
    """A value that a YAML or a command line may give to an option."""
    single = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(-3, 3),
        st.floats(),
        any_text(20),
        st.sampled_from(["auto", "null", "nan", "inf", "1e999", "../x", "cls", "[1,2]", ""]),
    )
    return st.recursive(
        single,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.text("ab_", max_size=3), inner)
        ),
        max_leaves=6,
    )


def refused_or_read(source: Source) -> None:
    """A data set of 8 × 8 pixels is refused in words, or every row of its catalog reads."""
    try:
        catalog = scan_source(source)
    except DataError as error:
        if " raised " in str(error):
            raise AssertionError("a mistake of the program") from error
        return
    for split, index in catalog.splits.items():
        found = read_range(source, catalog, split, 0, len(index))
        assert len(found) == len(index)
        for record in found:
            assert isinstance(record, Failure) or record.image_CHW.shape[1:] == (8, 8)
