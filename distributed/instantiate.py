"""Objects of the classes that the configuration names, their options checked by type."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from artifactgen.errors import ConfigError
from distributed.settings import explain, unknown_option

Options = TypeVar("Options")


def instantiate(
    target: str, options: Mapping[str, Any], *, section: str, base: type[Options]
) -> Options:
    """Make an object of a class that the configuration names.

    Args:
        target: dotted name of a dataclass.
        options: its fields.
        section: of the configuration, for messages.
        base: what the class has to be; a protocol is not checked.

    Raises:
        ConfigError: there is no such class, or an option does not fit it.
    """
    cls = _find_class(target, section)
    if not getattr(base, "_is_protocol", False) and not issubclass(cls, base):
        where = f"{base.__module__}.{base.__qualname__}"
        raise ConfigError(f"{section}._target_={target}: is no subclass of {where}.")
    names = [field.name for field in fields(cls)]
    unknown = [name for name in options if name not in names]  # pydantic drops them in silence
    if unknown:
        raise ConfigError(unknown_option(f"{section}.{unknown[0]}", names))
    try:
        made: Options = TypeAdapter(cls).validate_python(dict(options))
    except ValidationError as error:
        raise ConfigError(explain(error, prefix=f"{section}.")) from error
    return made


def _find_class(target: str, section: str) -> Any:
    module, _, name = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{section}._target_={target}: cannot be imported ({error}).{_missing(error, target)}"
        ) from error
    if not (isinstance(cls, type) and is_dataclass(cls)):
        raise ConfigError(f"{section}._target_={target}: is not a dataclass of options.")
    return cls


def _missing(error: Exception, target: str) -> str:
    """What to install where a class needs a package that is not there."""
    name = (
        error.name.partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name
        else ""
    )
    return f" Install what it needs: pip install {name}." if name and name not in target else ""
