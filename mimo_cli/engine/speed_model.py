"""What a placement would do: tokens per second as a range, from bytes and rates, and what holds it back.

    a decoded token reads the dense part, its experts and the KV cache from memory; experts that memory lacks come from
    disk while those it has are computed
    a prompt visits nearly every expert once for as many of its tokens as memory allows (waves.py)

A model, not a measurement: the optimistic end lets reading and computing overlap and takes the better rates, the other
end adds them up. `measured_machine.py` replaces the rates by measured times. GB are 1e9 bytes.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mimo_cli.engine.context import kv_bytes
from mimo_cli.engine.model_sizes import ModelSizes
from mimo_cli.engine.placement import Placement
from mimo_cli.engine.waves import Wave, budget_wave

Limit: TypeAlias = Literal["disk", "memory", "processor"]

HIT_RATES = (
    (0.0, 0.0, 0.0),
    (0.06, 0.42, 0.52),
    (0.125, 0.60, 0.71),
    (0.19, 0.70, 0.80),
    (0.25, 0.77, 0.86),
    (0.37, 0.87, 0.92),
    (0.5, 0.92, 0.95),
    (0.63, 0.95, 0.97),
    (0.78, 0.98, 0.99),
    (1.0, 1.0, 1.0),
)
"""Share of experts in memory -> share of a token's experts found there, lowest and highest that other engines report
for models of 256 experts, 8 per token (docs/plan.md lists them)."""


@dataclass(frozen=True)
class Span:
    """A range, the pessimistic end first."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """The geometric mean: rates are uncertain by factors."""
        return (self.low * self.high) ** 0.5


@dataclass(frozen=True)
class Rates:
    """What a machine gives.

    memory_gbps     plain reads; disk_gbps reads of whole experts
    kernel_share    of the memory's rate that the kernels reach while decoding
    layer_s         of one layer and token outside the kernels: attention, dispatch
    gmacs           1e9 multiplications per second of the kernels with many tokens
    """

    memory_gbps: Span
    disk_gbps: Span
    kernel_share: Span = Span(0.5, 0.9)
    layer_s: Span = Span(3e-3, 3e-4)
    gmacs: Span = Span(30.0, 100.0)


@dataclass(frozen=True)
class Speed:
    """The forecast of a placement; None for what does not run. Bytes are of a decoded token, at the middle hit rate.

    Prefill is of a prompt as long as the context; `prefill_tokens` of it go through each layer together.
    """

    decode_tps: Span
    prefill_tps: Span
    prefill_tokens: int
    hit_rate: Span
    disk_bytes_per_token: float
    ram_bytes_per_token: float
    decode_limit: Limit
    prefill_limit: Limit


def expected_hits(placement: Placement) -> Span:
    """Return the share of a token's experts that memory is expected to hold, of ordinary text."""
    share = placement.resident_share
    at = min(bisect_right(HIT_RATES, (share, 2.0, 2.0)), len(HIT_RATES) - 1)
    (left, low0, high0), (right, low1, high1) = HIT_RATES[at - 1], HIT_RATES[at]
    along = (share - left) / (right - left)
    low, high = low0 + along * (low1 - low0), high0 + along * (high1 - high0)
    if placement.budget.is_below_cycle:  # experts leave before they are asked for again, unless they are very popular
        low = 0.0
    return Span(low, high)


def forecast_speed(placement: Placement, rates: Rates, hits: Span | None = None) -> Speed:
    """Forecast a placement; `hits` where the hit rate is known better than for ordinary text."""
    hits = hits or expected_hits(placement)
    sizes = placement.sizes
    middle_misses = sizes.experts_per_token * (1 - (hits.low + hits.high) / 2)
    slow, fast = (_decode_times(placement, rates, hits, is_fast) for is_fast in (False, True))
    tokens = placement.context_tokens
    read_slow, read_fast = (_prefill_times(placement, rates, is_fast) for is_fast in (False, True))
    return Speed(
        decode_tps=Span(1 / slow.serial_s, 1 / fast.overlapped_s),
        prefill_tps=Span(tokens / read_slow.serial_s, tokens / read_fast.overlapped_s),
        prefill_tokens=prompt_wave(placement).tokens,
        hit_rate=hits,
        disk_bytes_per_token=middle_misses * sizes.expert_stored_bytes,
        ram_bytes_per_token=_ram_bytes(placement),
        decode_limit=_limit((slow, fast)),
        prefill_limit=_limit((read_slow, read_fast)),
    )


@dataclass(frozen=True)
class _Times:
    """Seconds of one pass by what they are spent on; `shared_s` of the memory's can overlap with the disk."""

    disk_s: float
    memory_s: float
    shared_s: float
    processor_s: float

    @property
    def serial_s(self) -> float:
        return self.disk_s + self.memory_s + self.processor_s

    @property
    def overlapped_s(self) -> float:
        return max(self.disk_s, self.shared_s) + self.memory_s - self.shared_s + self.processor_s


def _decode_times(placement: Placement, rates: Rates, hits: Span, is_fast: bool) -> _Times:
    sizes = placement.sizes
    gbps = _end(rates.memory_gbps, is_fast) * _end(rates.kernel_share, is_fast) * 1e9
    missing = sizes.experts_per_token * (1 - _end(hits, is_fast))
    experts_s = sizes.experts_per_token * sizes.record_bytes / gbps
    return _Times(
        disk_s=missing * sizes.expert_stored_bytes / (_end(rates.disk_gbps, is_fast) * 1e9),
        memory_s=_ram_bytes(placement) / gbps,
        shared_s=experts_s,
        processor_s=sizes.config.num_hidden_layers * _end(rates.layer_s, is_fast),
    )


def prompt_wave(placement: Placement) -> Wave:
    """Return the waves in which a prompt as long as the context is read."""
    sizes = placement.sizes
    return budget_wave(placement.context_tokens, placement.budget, sizes.config, sizes.dtype)


def prompt_reads(placement: Placement) -> float:
    """Return how many experts are read from disk for a prompt as long as the context, spread evenly."""
    wave, sizes = prompt_wave(placement), placement.sizes
    return wave.reads * visited_experts(sizes, wave.tokens) / sizes.num_experts if sizes.num_experts else 0.0


def _prefill_times(placement: Placement, rates: Rates, is_fast: bool) -> _Times:
    sizes = placement.sizes
    config = sizes.config
    per_token = sizes.part("dense").parameters + 3 * sizes.experts_per_token * config.hidden_size * (
        config.moe_intermediate_size
    )
    compute_s = placement.context_tokens * per_token / (_end(rates.gmacs, is_fast) * 1e9)
    disk_s = prompt_reads(placement) * sizes.expert_stored_bytes / (_end(rates.disk_gbps, is_fast) * 1e9)
    hidden_s = min(disk_s, compute_s) if is_fast else 0.0
    return _Times(disk_s, 0.0, 0.0, compute_s - hidden_s)


def visited_experts(sizes: ModelSizes, tokens: int) -> float:
    """Return how many different experts of all layers a chunk of so many tokens visits, spread evenly."""
    experts, active = sizes.config.n_routed_experts, sizes.config.num_experts_per_tok
    if not experts:
        return 0.0
    return sizes.num_experts * (1 - (1 - active / experts) ** tokens)


def _ram_bytes(placement: Placement) -> float:
    """Bytes a decoded token reads from memory: dense part, its experts wherever they came from, half a context."""
    sizes = placement.sizes
    context_bytes = kv_bytes(sizes.config, sizes.dtype, placement.context_tokens // 2)
    return sizes.token_dense_bytes + sizes.experts_per_token * sizes.record_bytes + context_bytes


def _limit(times: Iterable[_Times]) -> Limit:
    sums: dict[Limit, float] = {"disk": 0.0, "memory": 0.0, "processor": 0.0}
    for one in times:
        sums["disk"] += one.disk_s / one.serial_s
        sums["memory"] += one.memory_s / one.serial_s
        sums["processor"] += one.processor_s / one.serial_s
    return max(sums, key=lambda name: sums[name])


def _end(span: Span, is_fast: bool) -> float:
    return span.high if is_fast else span.low
