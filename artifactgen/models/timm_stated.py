"""What of a checkpoint's words is about a model of timm."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from artifactgen.errors import ConfigError
from artifactgen.models.building import built
from artifactgen.models.claims import Claim
from artifactgen.models.stated import Said, Stated
from artifactgen.models.timm import Timm
from artifactgen.models.timm_build import RESERVED_OPTIONS, resolve_backbone

_HUB = re.compile(r"^(hf[-_]hub:)?timm/")
_OF_TRAINING = re.compile(
    r".*drop\w*|.*_layer|.*_fn|block\w*|weight_init|fix_init|device|dtype|cfg"
)
"""Arguments that change nothing in a trained model, or are classes."""
_LAYER = re.compile(r"(\w+_)?(act|norm)_layer")
"""Arguments for which timm takes names as well, such as `gelu`; of some architectures."""
_POOLS = ("global_pool", "gp", "pool_type")


def claims(family: Timm, stated: Stated) -> Iterator[Claim]:
    """The architecture, its options and its pooling, as far as timm takes them."""
    said = architecture(stated)
    if said is not None and not _is_same(family.backbone, said.value):
        yield Claim("backbone", said.value, said.where)
    backbone = family.backbone or (None if said is None else str(said.value))
    if backbone is None:
        return
    yield from _options(replace(family, backbone=backbone), stated)
    pool = next((stated.options[name] for name in _POOLS if name in stated.options), None)
    if pool is not None and isinstance(pool.value, str):
        yield Claim("global_pool", pool.value, pool.where, adoptable=bool(pool.value))


def architecture(stated: Stated) -> Said | None:
    """The one architecture that is named; of several, none can be meant for certain."""
    known = [replace(said, value=name) for said in stated.architectures if (name := _known(said))]
    return known[0] if len({_untagged(said.value) for said in known}) == 1 else None


def is_of(backbone: str | None, config: Stated, own: Stated) -> bool:
    """Whether a config is of the architecture that is set, or else of one that the file names.

    Without either, of any that timm knows: the weights will tell.
    """
    said = architecture(config)
    if said is None or backbone is not None:
        return said is not None and _is_same(backbone, said.value)
    named = {_untagged(name) for other in own.architectures if (name := _known(other))}
    return not named or _untagged(said.value) in named


def _known(said: Said) -> str | None:
    """Timm's name of an architecture, without a tag that timm does not know."""
    name = _HUB.sub("", said.value)
    for given in (name, _untagged(name)) if re.fullmatch(r"[\w.]{3,80}", name) else ():
        try:
            return resolve_backbone(given)
        except ConfigError:
            continue
    return None


def _untagged(name: str) -> str:
    return name.partition(".")[0]


def _is_same(backbone: str | None, stated: str) -> bool:
    """Whether two names are of one architecture, whatever it was trained on."""
    return backbone is not None and _untagged(resolve_backbone(backbone)) == _untagged(stated)


def _options(family: Timm, stated: Stated) -> Iterator[Claim]:
    """What is stated of arguments that the architecture's class takes, in their form."""
    if not stated.options:
        return
    module = built(replace(family, options={}, global_pool=None, image_size=None)).module
    for name, parameter in inspect.signature(type(module).__init__).parameters.items():
        said = stated.options.get(name)
        if said is None or name in RESERVED_OPTIONS:
            continue
        if _LAYER.fullmatch(name):
            usable = _is_layer(family, name, said.value)
        else:
            usable = not _OF_TRAINING.fullmatch(name) and _has_form(said.value, parameter.default)
        if usable:
            yield Claim(f"options.{name}", _frozen(said.value), said.where)


def _is_layer(family: Timm, name: str, value: Any) -> bool:
    """Whether timm takes this name of a layer for this argument."""
    if not isinstance(value, str) or not value:
        return False
    try:
        built(replace(family, options={name: value}, global_pool=None, image_size=None))
    except ConfigError:
        return False
    return True


def _has_form(value: Any, default: Any) -> bool:
    """Whether a value could be given for an argument with this default."""
    if value is None or isinstance(value, dict):
        return False
    if isinstance(value, list):
        numbers = all(_is_number(item) or isinstance(item, list) for item in value)
        return bool(value) and numbers and not isinstance(default, bool | str)
    if default is None or default is inspect.Parameter.empty:
        return isinstance(value, bool) or _is_number(value)
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, str):
        return isinstance(value, str)
    return _is_number(value) and isinstance(default, int | float | tuple)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
