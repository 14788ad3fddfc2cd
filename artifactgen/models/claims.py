"""What a checkpoint says of one option of a model, beside its weights."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from artifactgen.models.base import Family


@dataclass(frozen=True, slots=True)
class Claim:
    """What a checkpoint says of one option of a family."""

    option: str
    """A field of the family, or one of its mappings: `backbone`, `options.num_heads`."""
    value: Any
    where: str
    """`hyper_parameters.num_heads`."""
    adoptable: bool = True
    """Whether it can be done here; what cannot is only compared."""

    @property
    def key(self) -> str:
        """How a user sets it."""
        section = "data" if self.option == "image_size" else "model"
        return f"{section}.{self.option}"

    def current(self, family: Family) -> Any:
        """What the family has; None where it is open."""
        name, _, key = self.option.partition(".")
        value = getattr(family, name)
        return value.get(key) if key else value

    def put(self, family: Family) -> Family:
        """The family with this value."""
        name, _, key = self.option.partition(".")
        changes: dict[str, Any] = {name: self.value}
        if key:
            changes[name] = {**getattr(family, name), key: self.value}
        return replace(family, **changes)

    def is_met_by(self, family: Family) -> bool:
        """Whether the family has this value."""
        return bool(_comparable(self.current(family)) == _comparable(self.value))

    def __str__(self) -> str:
        """`num_heads 3 (hyper_parameters.num_heads)`."""
        return f"{self.option.rpartition('.')[2]} {shown(self.value)} ({self.where})"


def shown(value: Any) -> str:
    """A value as a command line takes it."""
    if isinstance(value, list | tuple):
        return f"[{','.join(map(shown, value))}]"
    if isinstance(value, bool | None):
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, float):
        return re.sub(r"^(-?\d+)e", r"\1.0e", repr(value))  # without a point, YAML reads a text
    return str(value) if value != "" else "''"


def _comparable(value: Any) -> Any:
    """Lists as tuples, and one number for a tuple that repeats it, as sizes do."""
    if isinstance(value, list | tuple):
        items = tuple(map(_comparable, value))
        return items[0] if items and all(item == items[0] for item in items) else items
    return value
