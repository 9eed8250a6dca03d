"""NativeLayers: all decoder layers of a step of a few tokens in one call of the kernels, where every expert has a slot.

A way through Python between two products takes 0.15 to 0.3 ms, as their weights push all code out of the caches.
Nothing is computed otherwise than by the modules it stands for, which do it wherever this cannot: with many tokens or
several sequences, where somebody watches a layer by a hook, where a cache must move, where experts come and go.
An expert that has a slot but was not read yet stops the run; its layer is ended by the experts' source.
"""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from mimo_cli.kvcache.cache import KVCache
from mimo_cli.model.mlp import MLP
from mimo_cli.model.moe import MoE
from mimo_cli.model.native_attention import NativeAttention
from mimo_cli.model.norm import RMSNorm
from mimo_cli.model.rope import RotaryTable
from mimo_cli.quant.kernels import Heads, Kernels
from mimo_cli.quant.layer_run import AttentionPart, DensePart, ExpertSlots, LayerRun, Place, RoutedPart
from mimo_cli.quant.linear import packed_product


class SlotSource(Protocol):
    """Experts with slots in memory, as an ExpertSource that may be asked beside it."""

    def layer_slots(self, layer: int) -> ExpertSlots:
        """Return where a layer's experts lie."""
        ...

    def step(self) -> AbstractContextManager[object | None]:
        """Keep the slots as they are while the block lasts; gives what owns them, None where some expert has none."""
        ...

    def count_step(self, layer: int, tokens: int, used: int) -> None:
        """Count a layer that was run from slots, of `used` different experts."""
        ...

    def run(self, layer: int, hidden_states: Tensor, expert_ids: Tensor, expert_weights: Tensor) -> Tensor:
        """Run a layer's experts wherever they are; see model.moe.ExpertSource."""
        ...


class LayerParts(NamedTuple):
    """A decoder layer and what of it is run: its attention half, and what feeds forward."""

    layer: nn.Module
    attention: NativeAttention
    feed_forward: MLP | MoE
    is_sliding: bool


class Watcher(Protocol):
    """Hears of every layer that was run here."""

    def layer_done(self, layer: int, seconds: float, expert_ids: Tensor | None) -> None:
        """Take note of a layer's time, and of the experts int64 [T, A] it chose."""
        ...


class NativeLayers:
    """Stands for all layers and the norm behind them; weights are in their place when it first runs, and stay there.

    watchers hear of layers; `known_hooks` are ids of hooks on modules that may be passed over for it.
    """

    def __init__(self, kernels: Kernels, layers: Sequence[LayerParts], norm: RMSNorm, source: SlotSource) -> None:
        self.watchers: list[Watcher] = []
        self.known_hooks: set[int] = set()
        self._kernels = kernels
        self._norm = norm
        self._source = source
        self._layers = tuple(layers)
        self._routed = [isinstance(parts.feed_forward, MoE) for parts in layers]
        self._slots: object | None = None  # that the run looks into
        self._run = LayerRun(kernels, norm.native)
        watched: list[nn.Module] = []
        for parts in layers:
            part = parts.feed_forward
            watched += [parts.layer, part, *([part.gate] if isinstance(part, MoE) else [])]
        self._hooks = tuple(hooks for part in watched for hooks in (part._forward_hooks, part._forward_pre_hooks))

    @staticmethod
    def knows(part: nn.Module) -> bool:
        """Whether the kernels compute what feeds forward in a layer."""
        if isinstance(part, MoE):
            return part.gate.kernels is not None and part.gate.n_group == 1
        return isinstance(part, MLP) and part.products is not None

    def forward(
        self, hidden_states: Tensor, rotaries: tuple[RotaryTable, RotaryTable], cache: KVCache, start: int
    ) -> Tensor | None:
        """[1, T, H] -> states [1, T, H] behind the last norm; None, and nothing done, where the modules must do it.

        rotaries: of global and of sliding layers.
        """
        batch, tokens, _ = hidden_states.shape
        if batch != 1 or not self._norm.is_native(hidden_states, tokens) or self._is_watched():
            return None
        with self._source.step() as slots:
            if slots is None:
                return None
            if slots is not self._slots:
                self._run, self._slots = self._made(), slots
            places = []
            for layer_cache in cache.layers:
                room = layer_cache.reserve(start, tokens, hidden_states.dtype)
                if room is None:
                    return None
                places.append(Place(*room))
            return self._pass(hidden_states[0], rotaries, places)[None]

    def _made(self) -> LayerRun:
        run = LayerRun(self._kernels, self._norm.native)
        for number, (_, attention, feed_forward, is_sliding) in enumerate(self._layers):
            run.add(_attention(attention, turn=int(is_sliding)), _feed_forward(feed_forward, number, self._source))
        return run

    def _pass(self, rows: Tensor, rotaries: tuple[RotaryTable, RotaryTable], places: list[Place]) -> Tensor:
        run, tokens = self._run, len(rows)
        total = rows.clone(memory_format=torch.contiguous_format)
        normed = torch.empty_like(total)
        one, other = rotaries
        turns = one.cos.contiguous(), one.sin.contiguous(), other.cos.contiguous(), other.sin.contiguous()
        first = 0
        while True:
            stop = run.run(first, total, normed, turns, places)
            self._note(first, stop, tokens)
            if stop == len(places):
                return normed
            started = time.perf_counter()
            total += self._source.run(stop, normed, *run.chosen(stop, tokens))
            for watcher in self.watchers:
                seconds = time.perf_counter() - started + float(run.seconds[stop])
                watcher.layer_done(stop, seconds, run.chosen(stop, tokens)[0])
            first = stop + 1

    def _note(self, first: int, stop: int, tokens: int) -> None:
        used = self._run.used.tolist()
        for layer in range(first, stop):
            if self._routed[layer]:
                self._source.count_step(layer, tokens, used[layer])
        for watcher in self.watchers:
            seconds = self._run.seconds.tolist()
            for layer in range(first, stop):
                ids = self._run.chosen(layer, tokens)[0] if self._routed[layer] else None
                watcher.layer_done(layer, seconds[layer], ids)

    def _is_watched(self) -> bool:
        return any(hooks and not hooks.keys() <= self.known_hooks for hooks in self._hooks)


def _attention(native: NativeAttention, turn: int) -> AttentionPart:
    before, attention, after = native.parts
    a = attention.attention
    return AttentionPart(
        norms=(before.native, after.native),
        products=(packed_product(attention.qkv_proj), packed_product(attention.o_proj)),
        heads=Heads(a.num_heads, a.num_kv_heads, a.head_dim, a.v_head_dim),
        half=a.rotary_dim // 2,
        turn=turn,
        value_scale=attention.value_scale,
        window=a.window,
        sinks=attention.attention_sink_bias,
    )


def _feed_forward(part: MLP | MoE, number: int, source: SlotSource) -> DensePart | RoutedPart:
    if isinstance(part, MoE):
        gate = part.gate
        return RoutedPart(
            gate.weight,
            gate.e_score_correction_bias,
            gate.num_experts_per_tok,
            gate.norm_topk_prob,
            gate.routed_scaling_factor,
            source.layer_slots(number),
        )
    if part.products is None:
        raise TypeError("the kernels read packed layers")
    return DensePart(*part.products)
