"""How well a checkpoint fits a model: what is there, what is missing, what was ignored."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from artifactgen.models.naming import NamedWeights

OPTIONAL_BUFFERS = ("num_batches_tracked",)
"""Of no use in eval mode; torch itself loads checkpoints without them."""

_ABSENT = object()

Mismatch = tuple[str, tuple[int, ...], tuple[int, ...]]
"""(name, shape in the checkpoint, shape in the model)."""


@dataclass(frozen=True, slots=True)
class LoadAudit:
    """What came of matching a checkpoint to a model, by names of the model.

    `total`, `matched`, `missing`, `mismatched` count the encoder's parameters and buffers; the
    classifier stands apart in `head`.
    """

    prefix: str
    """What stands before the model's names in the checkpoint, such as `model.`."""
    container: str
    """Key of the file under which the weights lie, such as `state_dict`."""
    naming: str
    """`timm`, or `dinov2` where names were translated."""
    matched: int
    total: int
    head: str
    """`loaded`, `absent` (not in the checkpoint), `unused` (not asked for), or what is wrong."""
    missing: tuple[str, ...] = ()
    mismatched: tuple[Mismatch, ...] = ()
    surplus: tuple[str, ...] = ()
    """Weights inside of the encoder that the model has no place for: another architecture."""
    unexpected: tuple[str, ...] = ()
    """Ignored, under the names of the checkpoint: decoders, mask tokens, optimizers' copies."""
    rivals: tuple[str, ...] = ()
    """Other prefixes that would have fitted as well, such as `student.` beside `teacher.`."""
    head_from: str = ""
    """What the head is and is fed with, where it lay beside the encoder, and what is assumed."""
    head_note: str = ""
    """What lies beside the encoder and could be a head, and why it is not taken for one."""
    taken: tuple[str, ...] = ()
    """Options that nobody set and that the checkpoint states, as `num_heads 3 (where)`."""
    adapted: tuple[str, ...] = ()
    """What was done to weights of another shape, for the size or the channels that were set."""
    refuted: tuple[str, ...] = ()
    """What the checkpoint states and its weights do not fit."""
    aside: str = ""
    """What the `config.json` beside it is of, where that is another model: it is not believed."""

    @property
    def share(self) -> float:
        """Part of the encoder that the checkpoint fills, 0 to 1."""
        return self.matched / max(self.total, 1)

    @property
    def fits(self) -> bool:
        """Whether the checkpoint fills the whole encoder and holds no more of it."""
        return self.matched == self.total > 0 and not self.surplus

    def as_dict(self) -> dict[str, Any]:
        """All of it in plain types, equal after a round trip through JSON."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields["mismatched"] = [[name, list(a), list(b)] for name, a, b in self.mismatched]
        lists = {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}
        return {**lists, "share": self.share}

    def summary(self) -> str:
        """One line for a person."""
        percent = int(100 * self.share)
        place = f" under {self.container}" if self.container else ""
        parts = [f"{percent} % of the encoder ({self.matched} of {self.total} tensors)"]
        head = f"{self.head} from {self.head_from}" if self.head_from else self.head
        parts.append(f"prefix {self.prefix or 'none'}{place}, head {head}")
        if self.head_note:
            parts.append(f"no head is taken: {self.head_note}")
        if self.taken:
            parts.append(f"stated in the checkpoint and taken: {', '.join(self.taken)}")
        parts += self.adapted
        if self.refuted:
            parts.append(f"stated, but its weights do not fit it: {', '.join(self.refuted)}")
        if self.aside:
            parts.append(f"config.json beside it is of {self.aside}, left aside")
        if self.unexpected:
            parts.append(f"ignored {len(self.unexpected)}: {_grouped(self.unexpected)}")
        if self.rivals:
            parts.append(f"as well under {', '.join(self.rivals)}")
        return "; ".join(parts)


def audit_load(
    model: nn.Module,
    weights: NamedWeights,
    *,
    container: str,
    classifiers: tuple[str, ...],
    beside: frozenset[str],
) -> LoadAudit:
    """Compare names and shapes; touches no data.

    Args:
        model: as it will be used, with or without a head.
        weights: the checkpoint under the model's names.
        container: key of the file under which the weights lie.
        classifiers: module paths of the model's classifier(s).
        beside: parts of which the checkpoint may hold more than the model.
    """
    own = model.state_dict()
    expected = {k: v for k, v in own.items() if not k.endswith(OPTIONAL_BUFFERS)}
    encoder = {k: v for k, v in expected.items() if not within(k, classifiers)}
    missing = tuple(name for name in encoder if name not in weights.tensors)
    mismatched = tuple(_mismatches(encoder, weights))
    extra = [name for name in weights.tensors if name not in own]
    surplus = tuple(
        name
        for name in extra
        if not within(f"{name}.", beside) and _is_surplus(name, weights.tensors[name], model)
    )
    of_head = [name for name in extra if within(name, classifiers)]
    ignored = (weights.prefix + name for name in extra if name not in surplus)
    return LoadAudit(
        prefix=weights.prefix,
        container=container,
        naming=weights.naming,
        matched=len(encoder) - len(missing) - len(mismatched),
        total=len(encoder),
        head=_head_state({k: v for k, v in expected.items() if k not in encoder}, weights, of_head),
        missing=missing,
        mismatched=mismatched,
        surplus=surplus,
        unexpected=(*ignored, *weights.outside),
        rivals=weights.rivals,
    )


def within(name: str, modules: Iterable[str]) -> bool:
    """Whether a parameter's name lies in one of the modules."""
    return any(name.startswith(f"{module}.") for module in modules)


def _mismatches(expected: dict[str, Tensor], weights: NamedWeights) -> Iterable[Mismatch]:
    for name, tensor in expected.items():
        found = weights.tensors.get(name)
        if found is not None and found.shape != tensor.shape:
            yield name, tuple(found.shape), tuple(tensor.shape)


def _head_state(head: dict[str, Tensor], weights: NamedWeights, extra: list[str]) -> str:
    """See `LoadAudit.head`; what is `extra`, such as an adapter, would be left out of it."""
    if not head:
        return "absent"
    missing = [name for name in head if name not in weights.tensors]
    if len(missing) == len(head):
        return "absent"
    wrong = [*missing, *(name for name, *_ in _mismatches(head, weights)), *extra]
    return f"incomplete ({', '.join(wrong)})" if wrong else "loaded"


def _is_surplus(name: str, tensor: Tensor, model: nn.Module) -> bool:
    """Whether an unexpected weight belongs to a part of the architecture that the model names.

    `blocks.12.…` for a model of 12 blocks, `layer1.0.se.…` for one without squeeze-excitation,
    `reg_token` for a ViT without registers: the model would load in full and compute another
    function. A decoder or a mask token is no part of it.
    """
    top = name.partition(".")[0]
    part = getattr(model, top, _ABSENT)
    if part is not None and not isinstance(part, nn.Module | Tensor):
        return False
    computed = {key for key, _ in model.named_buffers()}
    is_buffer = name in computed or name.endswith(("attn_mask", *OPTIONAL_BUFFERS))
    return torch.is_floating_point(tensor) and not is_buffer


def _grouped(names: Iterable[str]) -> str:
    """`decoder_blocks.* (96), mask_token` for a list of names."""
    groups = Counter(n if "." not in n else n.partition(".")[0] + ".*" for n in names)
    shown = [f"{group} ({count})" if count > 1 else group for group, count in groups.items()]
    return ", ".join(shown[:6]) + (", …" if len(shown) > 6 else "")
