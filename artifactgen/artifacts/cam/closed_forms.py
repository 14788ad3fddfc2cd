"""Closed forms of GradCAM: any number of classes for next to nothing.

Derived in docs/gradcam.md. K classes, B images, C or D channels, N tokens, R rows of the
classifier's weight or features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from timm.layers import Attention
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from artifactgen.artifacts.cam.base import SignedRoute, weighed
from artifactgen.introspect.attention import AttentionCall
from artifactgen.introspect.forward import Pass, eager_graph
from artifactgen.introspect.grid import Grid
from artifactgen.introspect.taps import Taps
from artifactgen.models.base import Network

_CHUNK_BYTES = 256 * 1024**2


class ClosedForm(SignedRoute):
    """A way to GradCAM without a backward pass, for models that are put together in some way."""

    __slots__ = ()

    @abstractmethod
    def is_derived(self) -> bool:
        """Whether the model is put together in the way that the closed form is derived for."""

    @abstractmethod
    def applies(self, forward_pass: Pass) -> bool:
        """Whether a pass agrees with that, as far as can be seen without a comparison."""


@dataclass(frozen=True, slots=True)
class Pooled(ClosedForm):
    """Closed form for a layer whose output goes into global average pooling.

    "Pooled" in docs/gradcam.md: the gradient of the pooled vector, over the number of positions.
    """

    def is_derived(self) -> bool:
        return classifier_weight(self.subject.network) is not None

    def applies(self, forward_pass: Pass) -> bool:
        """Whether the layer's output is what the head of the model is given."""
        output, features = forward_pass.outputs[self.layer], forward_pass.features
        if self.grid(forward_pass).prefix_tokens:
            return False
        if not _classifies_pre_logits(self.subject.network, forward_pass):
            return False
        if not isinstance(features, Tensor):
            return self._is_mean(forward_pass)
        return output.shape == features.shape and torch.equal(output, features)

    def _is_mean(self, forward_pass: Pass) -> bool:
        """Whether the classifier is given the average over positions, and nothing in between."""
        pooled_BC = self.activation(forward_pass).mean((2, 3))
        pre_logits_BD = forward_pass.pre_logits_BD.flatten(1).float()
        same = pooled_BC.shape == pre_logits_BD.shape
        return same and torch.allclose(pooled_BC, pre_logits_BD, rtol=1e-4, atol=1e-5)

    def signed_cams(self, forward_pass: Pass, classes: Tensor) -> Tensor:
        output, grid = forward_pass.outputs[self.layer], self.grid(forward_pass)
        activation_BChw = self.activation(forward_pass)
        pooled_BC = activation_BChw.mean((2, 3))
        rows = _rows(self.subject.network, classes)
        # A linear head has one gradient for all images.
        if isinstance(forward_pass.features, Tensor):
            pre_logits_BD, source_BC = self._head(pooled_BC[:1], grid, like=output)
            if len(rows.start_BRD) > 1 or not _is_linear(pre_logits_BD):
                pre_logits_BD, source_BC = self._head(pooled_BC, grid, like=output)
            gradients = _gradients(pre_logits_BD, source_BC, rows.start_BRD)
        else:
            gradients = iter([rows.start_BRD])  # the classifier's input is the pooled vector
        positions = grid.height * grid.width
        parts = [weighed(weights_BRC / positions, activation_BChw) for weights_BRC in gradients]
        return rows.of_classes(torch.cat(parts, 1))

    def _head(self, pooled_BC: Tensor, grid: Grid, *, like: Tensor) -> tuple[Tensor, Tensor]:
        """The classifier's input with a graph that leads to the pooled vector, and that vector."""
        with eager_graph():
            source_BC = pooled_BC.detach().requires_grad_()
            features = _one_position(source_BC, grid, like=like)
            return self.subject.network.embed(features).flatten(1), source_BC


def _one_position(pooled_BC: Tensor, grid: Grid, *, like: Tensor) -> Tensor:
    """The pooled vector as a map of one position, its dimensions in the order of `like`."""
    if like.ndim == 3:
        return pooled_BC[:, None]
    return pooled_BC[:, None, None] if grid.channels_last else pooled_BC[:, :, None, None]


class _ClassQuery(NamedTuple):
    """What the class token's attention says of the patches; d the width of a head."""

    query_BAd: Tensor
    """Scaled as the softmax takes it."""
    share_BA: Tensor
    """The weight that all patches have together."""
    moment_BAd: Tensor
    """Σⱼ pⱼ (vⱼ - o) over patches, where o = Σ pⱼ vⱼ over all tokens."""


@dataclass(frozen=True, slots=True)
class _ReadClassQuery:
    prefix_tokens: int

    def __call__(self, call: AttentionCall) -> _ClassQuery:
        assert call.query is not None
        assert call.value is not None
        weights_BAN = call.weights(slice(0, 1))[:, :, 0]
        value_BANd = call.value.float()
        patches = slice(self.prefix_tokens, None)
        share_BA = weights_BAN[..., patches].sum(-1)
        seen_BAd = torch.einsum("ban,band->bad", weights_BAN, value_BANd)
        of_patches_BAd = torch.einsum(
            "ban,band->bad", weights_BAN[..., patches], value_BANd[:, :, patches]
        )
        return _ClassQuery(
            call.query[:, :, 0].float() * call.scale,
            share_BA,
            of_patches_BAd - share_BA[..., None] * seen_BAd,
        )


@dataclass(frozen=True, slots=True)
class ClassToken(ClosedForm):
    """Closed form for the norm before the last attention of a ViT that classifies its class token.

    With p the class token's attention, q its query, and g the gradient of a class score by what
    its heads put out, the sums over patches are Σ dV = (Σ p) g and Σ dK = (g · Σ p (v - o)) q.
    """

    @property
    def taps(self) -> Taps:
        block = self.layer.rpartition(".")[0]
        prefix_tokens = self.subject.network.traits.prefix_tokens or 0
        return Taps(
            outputs=(self.layer,),
            inputs=(f"{block}.norm2",),
            attention=((f"{block}.attn", _ReadClassQuery(prefix_tokens)),),
        )

    def is_derived(self) -> bool:
        model = self.subject.model
        if not isinstance(model, VisionTransformer):
            return False
        if classifier_weight(self.subject.network) is None:
            return False
        if self.layer != f"blocks.{len(model.blocks) - 1}.norm1" or model.global_pool != "token":
            return False
        block = model.blocks[-1]
        if type(block) is not Block or type(block.attn) is not Attention:
            return False
        attention = block.attn
        plain = attention.q_norm, attention.k_norm, attention.norm
        # Of unfused attention only the weights are seen, not the queries and values.
        is_read = attention.fused_attn and attention.gate is None
        return is_read and all(isinstance(norm, nn.Identity) for norm in plain)

    def applies(self, forward_pass: Pass) -> bool:
        return _classifies_pre_logits(self.subject.network, forward_pass)

    def signed_cams(self, forward_pass: Pass, classes: Tensor) -> Tensor:
        model: Any = self.subject.model
        block, taps = model.blocks[-1], self.taps
        read: _ClassQuery = forward_pass.attention[taps.attention[0]]
        residual_BD = forward_pass.inputs[taps.inputs[0]][:, 0].float().clone()
        # The class token's way from the attention to the logits, run again with a graph: all
        # that g, the gradient by what the heads put out, depends on.
        with eager_graph():
            residual_BD.requires_grad_()
            token_BD = residual_BD + block.ls2(block.mlp(block.norm2(residual_BD)))
            pre_logits_BD = self.subject.network.embed(model.norm(token_BD)[:, None]).flatten(1)
        patches, grid = self.activation(forward_pass), self.grid(forward_pass)
        positions = grid.height * grid.width
        rows = _rows(self.subject.network, classes)
        parts = [
            weighed(self._weights(block, read, gradient_BRD) / positions, patches)
            for gradient_BRD in _gradients(pre_logits_BD, residual_BD, rows.start_BRD)
        ]
        return rows.of_classes(torch.cat(parts, 1))

    @staticmethod
    def _weights(block: Any, read: _ClassQuery, gradient_BKD: Tensor) -> Tensor:
        """Sum over patches of the gradient by the normed tokens, (B, K, D)."""
        # `class_token` in docs/gradcam.md: g of each head; then the sums over patches of the
        # gradients by values, (sum of p) g, and by keys, (g . sum of p (v - o)) q; then both go
        # back through their projections, to the normed tokens.
        scaled_BKD = gradient_BKD * getattr(block.ls1, "gamma", 1.0)
        heads, width = read.query_BAd.shape[1:]
        heads_BKAd = torch.unflatten(scaled_BKD @ block.attn.proj.weight, -1, (heads, width))
        value_BKAd = heads_BKAd * read.share_BA[:, None, :, None]
        score_BKA = (heads_BKAd * read.moment_BAd[:, None]).sum(-1)
        key_BKAd = score_BKA[..., None] * read.query_BAd[:, None]
        _, of_keys_DD, of_values_DD = block.attn.qkv.weight.chunk(3)
        weights_BKD: Tensor = (
            key_BKAd.flatten(2) @ of_keys_DD + value_BKAd.flatten(2) @ of_values_DD
        )
        return weights_BKD


def classifier_weight(network: Network) -> Tensor | None:
    """(K, D) of a classifier that is one linear layer; None for any other."""
    if len(network.classifiers) != 1:
        return None
    layer = dict(network.module.named_modules()).get(network.classifiers[0])
    is_linear = type(layer) is nn.Linear or (
        type(layer) is nn.Conv2d and layer.kernel_size == (1, 1) and layer.groups == 1
    )
    return layer.weight.flatten(1) if is_linear else None  # type: ignore[union-attr]


def _classifies_pre_logits(network: Network, forward_pass: Pass) -> bool:
    """Whether the classifier's input is as wide as what the head calls so: not if it is an MLP."""
    weight_KD = classifier_weight(network)
    return weight_KD is not None and weight_KD.shape[1] == forward_pass.pre_logits_BD[0].numel()


class _Rows(NamedTuple):
    """Vectors over the classifier's input to start gradients from, R for each image.

    They are the classes' rows of its weight. All that follows is linear in them, up to the ReLU.
    So where there are more classes than features, it is done for each feature instead, and the
    classes are sums over features.
    """

    start_BRD: Tensor
    """B is 1 where they are the same for all images."""
    weight_KD: Tensor | None
    """None where the rows are those of the classes already."""

    def of_classes(self, found_BRhw: Tensor) -> Tensor:
        """What was found for each row as what it is for each class, (B, K, h, w)."""
        return found_BRhw if self.weight_KD is None else weighed(self.weight_KD, found_BRhw)


def _rows(network: Network, classes: Tensor) -> _Rows:
    weight_KD = classifier_weight(network)
    assert weight_KD is not None, "closed forms are for a linear classifier"
    if classes.ndim == 2:
        return _Rows(weight_KD[classes].float(), None)
    chosen_KD = weight_KD[classes].float()
    features = chosen_KD.shape[1]
    if len(chosen_KD) <= features:
        return _Rows(chosen_KD[None], None)
    return _Rows(torch.eye(features, device=chosen_KD.device)[None], chosen_KD)


def _gradients(pre_logits_BD: Tensor, source_BC: Tensor, start_BRD: Tensor) -> Iterator[Tensor]:
    """Gradients by `source_BC` of the sums that each row says, (B, r, C) for a few rows a time."""
    # Some ten times as much is in use at once, the widest being the hidden layer of an MLP.
    row_bytes = 40 * source_BC.numel()
    for rows_BrD in torch.split(start_BRD, max(1, _CHUNK_BYTES // row_bytes), 1):
        start_rBD = rows_BrD.expand(len(source_BC), -1, -1).transpose(0, 1)
        (gradient_rBC,) = torch.autograd.grad(
            pre_logits_BD, source_BC, start_rBD, retain_graph=True, is_grads_batched=True
        )
        yield gradient_rBC.transpose(0, 1)


def _is_linear(output: Tensor) -> bool:
    """Whether no value enters the gradient: no step on the way back has kept a tensor."""
    steps, seen = [output.grad_fn], set()
    while steps:
        step = steps.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        kept = (getattr(step, name) for name in dir(step) if name.startswith("_saved_"))
        if hasattr(step, "saved_tensors") or any(isinstance(value, Tensor) for value in kept):
            return False
        steps += [before for before, _ in step.next_functions]
    return True
