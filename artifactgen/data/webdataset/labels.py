"""What the members of a tar shard say of the class of a record."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from artifactgen.data.webdataset.tar import Archive, Member
from artifactgen.errors import DataError

_MAX_BYTES = 1 << 20
_KEY = "label"


def read_label(archive: Archive, member: Member, extension: str) -> str | int | None:
    """The label that a member holds: a number, or a name; None where it holds none.

    Args:
        archive: that the member lies in.
        member: text, or JSON: an object with `label`, or the label alone.
        extension: of its name.

    Raises:
        DataError: it is too long, or no JSON.
    """
    if member.size > _MAX_BYTES:
        raise DataError(f"{archive.path}: {member.name} has {member.size:,} bytes; no label does.")
    text = archive.read(member.offset, member.size).decode("utf-8", "replace").strip()
    value: Any = text or None
    if extension.endswith("json"):
        value = _in_json(text, archive, member)
    if isinstance(value, str) and re.fullmatch(r"-?\d{1,9}", value):
        return int(value)
    return value if isinstance(value, (str, int, type(None))) else str(value)


def _in_json(text: str, archive: Archive, member: Member) -> Any:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"{archive.path}: {member.name} cannot be read as JSON: {error}") from error
    return content.get(_KEY) if isinstance(content, Mapping) else content
