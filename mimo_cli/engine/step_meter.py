"""Where the time of a pass goes: kernels, the rest of attention, each layer. Watches from outside, by hooks.

A hook costs about a microsecond. Times are wall-clock seconds, summed up since the meter was attached.
"""

import time
from collections import Counter
from dataclasses import dataclass
from types import TracebackType

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from mimo_cli.engine.engine import Engine
from mimo_cli.model.decoder import DecoderLayer
from mimo_cli.model.moe import MoE
from mimo_cli.quant.kernels import KernelUse


@dataclass(frozen=True)
class StepTimes:
    """Seconds: `layer_s` in each layer; `attention_s` in attention outside the kernels. `kernels` is what those did."""

    layer_s: tuple[float, ...]
    attention_s: float
    kernels: KernelUse

    def __sub__(self, earlier: "StepTimes") -> "StepTimes":
        layers = tuple(a - b for a, b in zip(self.layer_s, earlier.layer_s, strict=True))
        return StepTimes(layers, self.attention_s - earlier.attention_s, self.kernels.since(earlier.kernels))


class StepMeter:
    """Attached to an engine's decoder while the `with` block lasts.

    `chosen[layer]` counts, for every layer with experts, how often single tokens were routed to each expert.
    """

    def __init__(self, engine: Engine) -> None:
        self.chosen: dict[int, Counter[int]] = {}
        self._kernels = engine.compute.kernels
        self._layers = [layer for layer in engine.decoder.layers if isinstance(layer, DecoderLayer)]
        self._layer_s = [0.0] * len(self._layers)
        self._attention_s = 0.0
        self._started: list[float] = []
        self._handles: list[RemovableHandle] = []
        self._native = engine.decoder.native
        self._known: set[int] = set()  # hooks that are not needed where layers are run in one call

    def read(self) -> StepTimes:
        """Return the sums so far."""
        return StepTimes(tuple(self._layer_s), self._attention_s, self._kernel_use())

    def __enter__(self) -> "StepMeter":
        for i, layer in enumerate(self._layers):
            feed_forward = layer.mlp
            watching: list[RemovableHandle] = [
                layer.register_forward_pre_hook(lambda *_: self._started.append(time.perf_counter())),
                layer.register_forward_hook(lambda *_, i=i: self._end_layer(i)),
            ]
            for attention in filter(None, (layer.self_attn, layer.native)):  # one of them runs
                self._handles += [
                    attention.register_forward_pre_hook(lambda *_: self._started.append(self._outside_kernels())),
                    attention.register_forward_hook(lambda *_: self._end_attention()),
                ]
            if isinstance(feed_forward, MoE):
                chosen = self.chosen.setdefault(i, Counter())
                hook = feed_forward.gate.register_forward_hook(lambda _m, _i, out, to=chosen: _count(out[0], to))
                watching.append(hook)
            self._handles += watching
            self._known |= {handle.id for handle in watching}
        if self._native is not None:
            self._native.watchers.append(self)
            self._native.known_hooks |= self._known
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._handles:
            self._handles.pop().remove()
        if self._native is not None:
            self._native.watchers.remove(self)
            self._native.known_hooks -= self._known

    def layer_done(self, layer: int, seconds: float, expert_ids: Tensor | None) -> None:
        """Take note of a layer that was run with others, in one call of the kernels."""
        self._layer_s[layer] += seconds
        if expert_ids is not None:
            _count(expert_ids, self.chosen[layer])

    def _kernel_use(self) -> KernelUse:
        return self._kernels.use if self._kernels else KernelUse()

    def _outside_kernels(self) -> float:
        return time.perf_counter() - self._kernel_use().seconds

    def _end_layer(self, layer: int) -> None:
        self._layer_s[layer] += time.perf_counter() - self._started.pop()

    def _end_attention(self) -> None:
        self._attention_s += self._outside_kernels() - self._started.pop()


def _count(expert_ids: Tensor, chosen: Counter[int]) -> None:
    if len(expert_ids) == 1:
        chosen.update(expert_ids[0].tolist())
