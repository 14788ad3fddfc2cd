"""Any `nn.Module` or LightningModule of the user's own, by its dotted name.

https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from artifactgen.errors import ConfigError, did_you_mean
from artifactgen.models.claims import Claim
from artifactgen.models.foreign import attempt, reason
from artifactgen.models.hooked import HookedFamily, HookedNetwork, hook_up
from artifactgen.models.recognise import as_options

if TYPE_CHECKING:
    from artifactgen.models.audit import LoadAudit
    from artifactgen.models.base import Network
    from artifactgen.models.checkpoint import Checkpoint
    from artifactgen.models.stated import Stated

_SIZES = ("img_size", "image_size", "input_size")
"""Attributes in which networks keep the size of their images."""
_CONFIGS = ("pretrained_cfg", "default_cfg", "hparams", "config")
"""Attributes in which they keep more of the same."""
_HYPER_PARAMETERS = "hyper_parameters"


@dataclass(frozen=True, kw_only=True)
class Module(HookedFamily):
    """A network of the user's own."""

    target: str | None = None
    """Dotted name of a class of `nn.Module`, or of a function that makes one."""
    kwargs: Mapping[str, Any] | None = None
    """Its arguments; a mapping with `_target_` is made into an object first. None = those of the
    checkpoint's `hyper_parameters`, where it is one of Lightning and they name nothing to call,
    else none."""
    classifier: str | None = None
    """Module path of the classifier; None = the linear layer that gives the logits."""

    @property
    def name(self) -> str:
        return (self.target or "module").rpartition(".")[2]

    def build(self) -> HookedNetwork:
        module = self._make()
        size = self.image_size or _told_size(module) or self._unknown_size()
        named = (self.classifier,) if self.classifier else ()
        network = hook_up(replace(self, image_size=size), module, classifiers=named)
        return replace(network, family=self)

    def input_size(self) -> tuple[int, int]:
        """What is asked for, else what an attribute of the network says: it is made for that."""
        return self.image_size or _told_size(self._make()) or self._unknown_size()

    def claims(self, stated: Stated) -> tuple[Claim, ...]:
        """Also the arguments that Lightning's `save_hyperparameters` has kept.

        None of them where one names a class to make: that would run what the checkpoint chooses.
        """
        said = {
            name: said.value
            for name, said in stated.options.items()
            if said.where == f"{_HYPER_PARAMETERS}.{name}" and self._takes(name)
        }
        plain = said and not any(_targets(said))
        of_class = (Claim("kwargs", said, _HYPER_PARAMETERS),) if plain else ()
        return (*of_class, *HookedFamily.claims(self, stated))

    def lacks(self, checkpoint: Checkpoint) -> str:
        """Arguments that the checkpoint has, if making them would run what it chooses."""
        said = checkpoint.meta.get(_HYPER_PARAMETERS)
        if self.kwargs is not None or not isinstance(said, Mapping):
            return ""
        named = {name: value for name, value in said.items() if self._takes(name)}
        if not (targets := sorted(set(_targets(named)))):
            return ""
        return (
            f"its hyper_parameters name what to call ({', '.join(targets)}), which a checkpoint "
            "alone does not decide, and nothing of it was run.\n"
            f"Set model.kwargs ({', '.join(named)}) to what it was trained with, each _target_ in "
            "it one that you trust."
        )

    def hint(self, audit: LoadAudit, checkpoint: Checkpoint, network: Network) -> str:
        """How the network is made, as that decides its weights."""
        return (
            f"It was made with {self._given()}, and takes {self._signature()}. Set model.kwargs to "
            "what it was trained with, or model.target to another class."
        )

    def _make(self) -> nn.Module:
        if self.target is None:
            raise ConfigError("model.target is not set: which class? Add model.target=mypkg.MyNet.")
        kwargs = self.kwargs or {}
        for name in kwargs:
            if not self._takes(name):
                hint = did_you_mean(name, self._parameters())
                raise ConfigError(
                    f"model.kwargs.{name}: {self.name} takes no such argument. {hint}"
                )
        made = attempt(lambda: _made({"_target_": self.target, **kwargs}), self._refuse)
        if not isinstance(made, nn.Module):
            kind = type(made).__name__
            raise ConfigError(f"model.target={self.target}: gives a {kind}, no torch.nn.Module.")
        return made

    def doubt_of_normalization(self) -> str:
        return (
            f"Nothing says how the images of {self.name} are normalised, so ImageNet's mean and "
            "std are used. Set model.mean and model.std to those of its training."
        )

    def _refuse(self, error: Exception) -> ConfigError:
        return ConfigError(
            f"model.target={self.target}: cannot be made with {self._given()} ({reason(error)}).\n"
            f"It takes: {self._signature()}."
        )

    def _given(self) -> str:
        """The arguments as a shell takes them."""
        return as_options(self.kwargs or {}).replace("model.options", "model.kwargs")

    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        try:
            return inspect.signature(find(self.target)).parameters if self.target else {}
        except (TypeError, ValueError):  # a class of C has none that could be read
            return {}

    def _takes(self, name: str) -> bool:
        parameters = self._parameters()
        kinds = {parameter.kind for parameter in parameters.values()}
        return name in parameters or inspect.Parameter.VAR_KEYWORD in kinds

    def _signature(self) -> str:
        return ", ".join(str(p) for p in self._parameters().values()) or "no arguments"

    def _unknown_size(self) -> tuple[int, int]:
        raise ConfigError(
            f"data.image_size is not set, and {self.name} does not say which images it takes.\n"
            "Add data.image_size=[224,224], or what it was trained with."
        )


def find(target: str) -> Callable[..., Any]:
    """The class or function of a dotted name.

    Raises:
        ConfigError: there is none.
    """
    path, _, name = target.rpartition(".")

    def refuse(error: Exception) -> ConfigError:
        return ConfigError(
            f"model.target={target}: cannot be imported ({reason(error)}).\nModules are looked for "
            "in the folder given as --config-dir, in the one that it lies in, and on PYTHONPATH."
        )

    if not path:
        raise ConfigError(f"model.target={target}: name the module as well, as in mypkg.{target}.")
    module = attempt(lambda: importlib.import_module(path), refuse)
    found: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if _is_network_class(value)]
        hint = did_you_mean(name, known) if known else "It has no class of torch.nn.Module."
        raise ConfigError(f"model.target={target}: {path} has no class {name}. {hint}")
    return found


def _is_network_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _made(value: Any) -> Any:
    """A mapping with `_target_` as the object that it describes, those in it first."""
    if isinstance(value, Mapping):
        inner = {key: _made(item) for key, item in value.items() if key != "_target_"}
        return find(value["_target_"])(**inner) if "_target_" in value else inner
    return [_made(item) for item in value] if isinstance(value, list | tuple) else value


def _targets(value: Any) -> Iterator[str]:
    """What `_made` would call to make a value."""
    if isinstance(value, Mapping):
        yield from [str(value["_target_"])] if "_target_" in value else []
        value = list(value.values())
    for item in value if isinstance(value, list | tuple) else ():
        yield from _targets(item)


def _told_size(module: nn.Module) -> tuple[int, int] | None:
    """The size of images that a network, or the first part of it that does, says it takes."""
    return next((size for part in module.modules() for size in _sizes(part)), None)


def _sizes(part: nn.Module) -> Iterator[tuple[int, int]]:
    configs = (getattr(part, name, None) for name in _CONFIGS)
    places = [vars(part), *(config for config in configs if isinstance(config, Mapping))]
    for place in places:
        for name in _SIZES:
            if size := _as_size(place.get(name)):
                yield size


def _as_size(value: Any) -> tuple[int, int] | None:
    """(H, W) of one side, of both, or of (C, H, W)."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value, value
    if isinstance(value, list | tuple) and len(value) in (2, 3):
        sides = value[-2:]
        if all(isinstance(side, int) and side > 0 for side in sides):
            return sides[0], sides[1]
    return None
