"""LayerRun: decoder layers one after the other in one native call, for the few tokens of a decoding step.

Norms, attention, routing, experts and residual sums, from the first layer to the last norm. Computed as the calls of
`Kernels` one after the other would, bit for bit. Letters: T tokens, H hidden size, E experts, A experts per token.
"""

import time
from typing import NamedTuple

import torch
from torch import Tensor

from mimo_cli.quant.kernels import (
    FEW_TOKENS,
    Heads,
    Kernels,
    Norm,
    Precision,
    Product,
    expect_tensor,
    precision_number,
    product_numbers,
    sink_logits,
)
from mimo_cli.quant.packed import FORMATS, PackedShape


class AttentionPart(NamedTuple):
    """The attention half of a layer: its two norms, fused and output projection, and the rest of `attention_block`.

    turn: which of the rotations given to `run` it takes; half: R/2.
    """

    norms: tuple[Norm, Norm]
    products: tuple[Product, Product]
    heads: Heads
    half: int
    turn: int
    value_scale: float
    window: int | None
    sinks: Tensor | None


class DensePart(NamedTuple):
    """down(silu(gate x) * up x)."""

    gate: Product
    up: Product
    down: Product


class ExpertSlots(NamedTuple):
    """Where the packed experts of a layer lie: gate and up (`up_shape`), then down, at the begin of a slot.

    numbers int32 [E]: the slot of each expert, negative where it is in none; looked up by every run. address: slot 0.
    """

    numbers: Tensor
    address: int
    slot_bytes: int
    up_shape: PackedShape
    precision: Precision


class RoutedPart(NamedTuple):
    """The experts half of a layer: router weight float32 [E, H] and bias [E] as in `Kernels.route`, and the experts."""

    weight: Tensor
    bias: Tensor
    active: int
    normalizes: bool
    factor: float
    experts: ExpertSlots


class Place(NamedTuple):
    """Keys [1, K, S, D] and values [1, K, S, Dv] that a layer's tokens see, the last T places theirs, to be written."""

    keys: Tensor
    values: Tensor


class LayerRun:
    """Layers in their order, given by `add`, and the norm behind the last. Holds on to every tensor given.

    After `run`, up to where it stopped: `ids` int64 [layers, T, A], `used` (different experts of each layer) and
    `seconds` of each; of the layer it stopped at, `ids` and `weights` float32 [T, A].
    """

    def __init__(self, kernels: Kernels, last: Norm) -> None:
        self.hidden = len(last.weight)
        self.dtype = last.weight.dtype
        self.parts: list[tuple[AttentionPart, DensePart | RoutedPart]] = []
        self._kernels = kernels
        self._last = last
        self._kept: list[Tensor | None] = []
        self._costs: list[tuple[int, int, int]] = []
        self._layers = kernels.no_layers(last)
        self._active = 1

    def __len__(self) -> int:
        return len(self.parts)

    def add(self, attention: AttentionPart, feed_forward: DensePart | RoutedPart) -> None:
        """Append a layer. Raises ValueError where its parts do not fit one another."""
        self._add_attention(attention)
        if isinstance(feed_forward, DensePart):
            self._add_dense(feed_forward)
        else:
            self._add_routed(feed_forward)
        self.parts.append((attention, feed_forward))
        self._costs.append(_costs(attention, feed_forward))
        layers = len(self.parts)
        self.ids = torch.zeros(layers * FEW_TOKENS * self._active, dtype=torch.int64)
        self.weights = torch.zeros(FEW_TOKENS * self._active)
        self.used = torch.zeros(layers, dtype=torch.int32)
        self.seconds = torch.zeros(layers, dtype=torch.float64)

    def run(
        self,
        first: int,
        total: Tensor,
        normed: Tensor,
        turns: tuple[Tensor, Tensor, Tensor, Tensor],
        places: list[Place],
    ) -> int:
        """Run from layer `first` on: total [T, H], the residual stream, in place; its norm goes into normed [T, H].

        turns: cos and sin of T * R/2 elements of the first rotation and of the second. places: of all layers.
        Returns where it stopped: behind the last layer, after the last norm; or at one whose experts are chosen but not
        all in memory, everything before them done.
        """
        tokens = len(total)
        if not 0 < tokens <= FEW_TOKENS or len(places) != len(self.parts):
            raise ValueError(f"{tokens} tokens for {len(places)} of {len(self.parts)} layers")
        for rows in (total, normed):
            expect_tensor(rows, self.dtype, (tokens, self.hidden), "rows")
        for angles in turns:
            if angles.dtype != torch.float32 or not angles.is_contiguous():
                raise ValueError("contiguous float32 angles expected")
        seen = torch.tensor([_numbers(place, tokens) for place in places], dtype=torch.int64)
        started = time.perf_counter()
        stop = self._kernels.run_layers(
            self._layers,
            *(first, tokens, total.data_ptr(), normed.data_ptr(), *(angles.data_ptr() for angles in turns)),
            *(seen.data_ptr(), self.ids.data_ptr(), self.weights.data_ptr(), self.used.data_ptr()),
            self.seconds.data_ptr(),
        )
        self._count(first, stop, started)
        return stop

    def chosen(self, layer: int, tokens: int) -> tuple[Tensor, Tensor]:
        """Return ids [T, A] that a layer chose in the last run, and the weights, which are those of the last layer."""
        count = tokens * self._active
        return self.ids[layer * count : (layer + 1) * count].view(tokens, -1), self.weights[:count].view(tokens, -1)

    def _add_attention(self, part: AttentionPart) -> None:
        (before, after), (qkv, output), heads = part.norms, part.products, part.heads
        for norm in (before, after, self._last):
            expect_tensor(norm.weight, self.dtype, (self.hidden,), "norm")
        _expect_product(qkv, heads.columns, self.hidden)
        _expect_product(output, self.hidden, heads.queries * heads.value_width)
        if part.turn not in (0, 1) or 2 * part.half > heads.width:
            raise ValueError(f"rotation {part.turn} of {2 * part.half} in heads of {heads.width}")
        logits = sink_logits(part.sinks, heads.queries)
        self._kept.append(logits)
        self._layers.attention(
            *(part.turn, before.weight.data_ptr(), after.weight.data_ptr(), before.eps, after.eps),
            *(*product_numbers(qkv), *product_numbers(output), *heads, part.half, part.value_scale),
            *(-1 if part.window is None else part.window, heads.width**-0.5),
            0 if logits is None else logits.data_ptr(),
        )

    def _add_dense(self, part: DensePart) -> None:
        width = part.gate.shape.rows
        _expect_product(part.gate, width, self.hidden)
        _expect_product(part.up, width, self.hidden)
        _expect_product(part.down, self.hidden, width)
        self._layers.feed_forward(width, *(number for product in part for number in product_numbers(product)))

    def _add_routed(self, part: RoutedPart) -> None:
        experts = part.experts
        count, shape = len(part.weight), experts.up_shape
        expect_tensor(part.weight, torch.float32, (count, self.hidden), "weight")
        expect_tensor(part.bias, torch.float32, (count,), "bias")
        expect_tensor(experts.numbers, torch.int32, (count,), "slots")
        if not 0 < part.active <= count or shape.cols != self.hidden or shape.streams != 2:
            raise ValueError(f"{part.active} of {count} experts of {shape} for rows of {self.hidden}")
        if self._active not in (1, part.active):
            raise ValueError(f"{part.active} experts for a token, {self._active} in another layer")
        self._active = part.active
        self._layers.experts(
            *(part.weight.data_ptr(), part.bias.data_ptr(), count, part.active, part.normalizes, part.factor),
            *(FORMATS.index(shape.format), shape.group, shape.rows, precision_number(experts.precision)),
            *(experts.numbers.data_ptr(), experts.address, experts.slot_bytes),
        )

    def _count(self, first: int, stop: int, started: float) -> None:
        """Count what the calls one after the other would have counted."""
        products, weight_bytes, used = 0, 0, self.used.tolist()
        for layer in range(first, stop):
            calls, fixed_bytes, expert_bytes = self._costs[layer]
            products += calls
            weight_bytes += fixed_bytes + used[layer] * expert_bytes
        if stop < len(self.parts):  # attention only
            products += 2
            weight_bytes += self._costs[stop][1]
        self._kernels.count(started, weight_bytes, products)


def _costs(attention: AttentionPart, feed_forward: DensePart | RoutedPart) -> tuple[int, int, int]:
    """Return products of a layer, the bytes of its weights without experts, and those of one expert."""
    attention_bytes = sum(product.shape.nbytes for product in attention.products)
    if isinstance(feed_forward, DensePart):
        return 5, attention_bytes + sum(product.shape.nbytes for product in feed_forward), 0
    up = feed_forward.experts.up_shape
    return 3, attention_bytes, up.nbytes + PackedShape(up.format, up.group, up.cols, up.rows).nbytes


def _expect_product(product: Product, rows: int, cols: int) -> None:
    shape = product.shape
    if (shape.rows, shape.cols, shape.streams) != (rows, cols, 1):
        raise ValueError(f"{shape} where {rows} x {cols} is expected")
    expect_tensor(product.data, torch.uint8, (shape.nbytes,), "packed stream")


def _numbers(place: Place, tokens: int) -> tuple[int, int, int, int, int]:
    keys, values = place
    return keys.data_ptr(), values.data_ptr(), keys.stride(1), values.stride(1), keys.shape[2] - tokens
