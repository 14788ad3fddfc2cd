"""Record ids as text that every kind of file can hold."""

from __future__ import annotations


def storable(text: str) -> str:
    r"""Valid UTF-8 without NUL: what reports and tables show of any id or message.

    Lone surrogates (ids that were no UTF-8 where they came from) and NUL become `\ud800` and
    `\x00`; everything else stays.
    """
    return text.replace("\0", r"\x00").encode("utf-8", "backslashreplace").decode("utf-8")
