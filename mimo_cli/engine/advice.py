"""What would help a plan: each change tried in the same arithmetic, and the cheapest one that is worth it.

Formats cost nothing but precision, memory costs money, a faster disk more trouble than both.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from mimo_cli.engine.model_sizes import ExpertsFormat, ModelSizes
from mimo_cli.engine.placement import CardDense, Placement, plan_placement
from mimo_cli.engine.speed_model import Rates, Span, Speed, forecast_speed
from mimo_cli.store.plan import DenseFormat
from mimo_cli.units import format_bytes

Forecast: TypeAlias = Callable[[Placement, Rates, Span | None], Speed]
"""Forecasts a placement on a machine; the span is the hit rate where it is known better than for ordinary text."""

Verdict: TypeAlias = Literal["runs well", "runs slowly", "fits", "does not fit"]

WELL_TPS = 5.0
"""Decoded tokens per second from which a model is pleasant to read along with."""

WORTH_FACTOR = 1.25
"""A change that gives less is not called a help."""

FAST_DISK = Span(5.0, 7.0)
"""GB/s of a good NVMe disk."""

_MORE_RAM_GB = (8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Scenario:
    """A machine and a model in some formats, as far as a plan goes. `resize` gives the sizes in other formats.

    vram_bytes is what may be used of a graphics card (None: there is none), card_dense how dense matrices lie there.
    """

    sizes: ModelSizes
    resize: Callable[[ExpertsFormat, DenseFormat], ModelSizes]
    rates: Rates
    ram_bytes: int
    context_tokens: int
    disk_bytes: int | None = None
    has_towers: bool = True
    vram_bytes: int | None = None
    card_dense: CardDense = "bf16"

    def place(self) -> Placement:
        """Return where everything lies."""
        return plan_placement(
            self.sizes,
            self.ram_bytes,
            self.context_tokens,
            self.disk_bytes,
            has_towers=self.has_towers,
            vram_bytes=self.vram_bytes,
            card_dense=self.card_dense,
        )


@dataclass(frozen=True)
class Change:
    """One change and what it does; the factors are of the middle rates, None where the plan did not run before."""

    what: str
    decode_factor: float | None
    prefill_factor: float | None
    decode_tps: Span
    is_lossy: bool = False


def judge(placement: Placement, speed: Speed | None) -> Verdict:
    """Sum up a plan; with a card it says no more than whether all has a place."""
    if not placement.fits:
        return "does not fit"
    if speed is None:
        return "fits" if placement.card is not None else "does not fit"
    return "runs well" if speed.decode_tps.middle >= WELL_TPS else "runs slowly"


def helpful_changes(scenario: Scenario, forecast: Callable[[Placement, Rates], Speed] = forecast_speed) -> list[Change]:
    """Return the changes that are worth it, the cheapest first; more of the same kind only where it gives more."""
    now = scenario.place()
    before = forecast(now, scenario.rates) if now.fits else None
    found: list[Change] = []
    best_of: dict[str, float] = {}
    for kind, what, is_lossy, changed in _candidates(scenario):
        placement = changed.place()
        if not placement.fits:
            continue
        after = forecast(placement, changed.rates)
        decode = after.decode_tps.middle / before.decode_tps.middle if before else None
        prefill = after.prefill_tps.middle / before.prefill_tps.middle if before else None
        value = after.decode_tps.middle
        if decode is not None and (decode < WORTH_FACTOR or value < WORTH_FACTOR * best_of.get(kind, 0.0)):
            continue
        if decode is None and kind in best_of:
            continue
        best_of[kind] = value
        found.append(Change(what, decode, prefill, after.decode_tps, is_lossy))
    return found


def _candidates(scenario: Scenario) -> Iterator[tuple[str, str, bool, Scenario]]:
    """Yield kind, name, whether it loses precision, and the changed scenario, the cheapest first."""
    sizes = scenario.sizes
    if sizes.experts_format not in ("int4", "mxfp4") and sizes.num_experts:
        smaller = scenario.resize("int4", sizes.dense_format)
        name = f"experts in int4 instead of {sizes.experts_format} (mimo quantize --experts int4)"
        yield "experts", name, True, replace(scenario, sizes=smaller)
    if sizes.dense_format == "keep":
        kept: ExpertsFormat = "as released" if sizes.is_released else sizes.experts_format  # type: ignore[assignment]
        smaller = scenario.resize(kept, "int8")
        yield "dense", "dense matrices in int8 (mimo quantize --dense int8)", True, replace(scenario, sizes=smaller)
        if sizes.experts_format not in ("int4", "mxfp4") and sizes.num_experts:
            both = scenario.resize("int4", "int8")
            yield "both", "int4 experts and int8 dense (mimo quantize --recipe q4)", True, replace(scenario, sizes=both)
    for more_gb in _MORE_RAM_GB:
        more = replace(scenario, ram_bytes=scenario.ram_bytes + more_gb * 10**9)
        yield "ram", f"{more_gb} GB more RAM", False, more
    if scenario.rates.disk_gbps.high < FAST_DISK.low:
        faster = replace(scenario.rates, disk_gbps=FAST_DISK)
        yield "disk", f"a disk of {FAST_DISK.low:g} to {FAST_DISK.high:g} GB/s", False, replace(scenario, rates=faster)
    if scenario.disk_bytes is not None and scenario.disk_bytes < sizes.stored_bytes:
        more_bytes = sizes.stored_bytes - scenario.disk_bytes
        yield "space", f"{format_bytes(more_bytes)} more disk", False, replace(scenario, disk_bytes=None)
