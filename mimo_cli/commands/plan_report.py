"""A plan as one object for programs and as a page for people. docs/plan.md says what the keys mean."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mimo_cli.engine.advice import Change, Scenario, Verdict
from mimo_cli.engine.measured_machine import MeasuredMachine
from mimo_cli.engine.placement import Place, Placement
from mimo_cli.engine.speed_model import Span, Speed
from mimo_cli.terminal.console import Terminal
from mimo_cli.terminal.tables import write_table
from mimo_cli.units import format_bytes, format_count

_PLACES: dict[Place, str] = {"vram": "VRAM", "ram": "RAM", "disk": "disk"}
_LIMITS = {
    "disk": "the disk: {disk} GB/s for {bytes} of experts a token",
    "memory": "memory: {memory} GB/s for {ram} a token",
    "processor": "the processor",
}


@dataclass(frozen=True)
class PlanReport:
    """Everything a plan found. `source` says what the rates rest on; `measured` is what `--measure` saw."""

    name: str
    scenario: Scenario
    placement: Placement
    speed: Speed | None
    verdict: Verdict
    changes: Sequence[Change]
    source: str
    measured: dict[str, Any] | None = None


def plan_json(report: PlanReport) -> dict[str, Any]:
    """Return the plan for programs."""
    sizes, budget, rates = report.placement.sizes, report.placement.budget, report.scenario.rates
    return {
        "schema": 1,
        "model": {
            "name": report.name,
            "parameters": sizes.parameters,
            "stored_bytes": sizes.stored_bytes,
            "experts_format": sizes.experts_label,
            "dense_format": sizes.dense_format,
            "is_released": sizes.is_released,
            "experts": sizes.num_experts,
            "experts_per_token": sizes.experts_per_token,
            "expert_bytes": sizes.record_bytes,
            "parts": [asdict(part) for part in sizes.parts],
        },
        "machine": {
            "ram_bytes": report.scenario.ram_bytes,
            "disk_bytes": report.scenario.disk_bytes,
            "vram_bytes": report.scenario.vram_bytes,
            "memory_gbps": asdict(rates.memory_gbps),
            "disk_gbps": asdict(rates.disk_gbps),
            "source": report.source,
        },
        "context_tokens": report.placement.context_tokens,
        "placement": [asdict(row) for row in report.placement.rows],
        "totals": {place: report.placement.total_bytes(place) for place in _places(report)},
        "least_ram_bytes": budget.least_bytes,
        "least_vram_bytes": report.placement.card.least_bytes if report.placement.card else None,
        "expert_slots": budget.slots,
        "card_slots": report.placement.card.slots if report.placement.card else 0,
        "resident_share": report.placement.resident_share,
        "is_below_cycle": budget.is_below_cycle,
        "forecast": _speed(report.speed),
        "verdict": report.verdict,
        "shortage": report.placement.shortage,
        "changes": [asdict(change) for change in report.changes],
        "measured": report.measured,
    }


def measured_json(machine: MeasuredMachine) -> dict[str, Any]:
    """Return what `--measure` saw; times in milliseconds."""
    return {
        "layers": machine.config.num_hidden_layers,
        "experts": machine.config.n_routed_experts,
        "layer_decode_ms": [1000 * seconds for seconds in machine.decode.layer_s],
        "rest_decode_ms": 1000 * machine.decode.rest_s,
        "layer_prefill_ms": [1000 * seconds for seconds in machine.prefill.layer_s],
        "prefill_tokens": machine.prefill_tokens,
        "step_ms_by_misses": [1000 * seconds for seconds in machine.step_s],
        "disk_read_gbps": machine.disk_gbps,
        "disk_ceiling_gbps": machine.disk_ceiling_gbps,
        "io_mode": machine.mode,
    }


def _speed(speed: Speed | None) -> dict[str, Any] | None:
    if speed is None:
        return None
    values = asdict(speed)
    tiers = {"ram": values.pop("ram_bytes_per_token"), "disk": values.pop("disk_bytes_per_token")}
    return {"is_measured": False, **values, "bytes_per_token_by_tier": tiers}


def write_plan(terminal: Terminal, report: PlanReport) -> None:
    """Write the plan for people to stdout."""
    sizes = report.placement.sizes
    terminal.write(
        f"{report.name}: {sizes.parameters / 1e9:,.0f} B parameters, {format_bytes(sizes.stored_bytes)} on disk; "
        f"experts {sizes.experts_label}, dense {_dense_name(sizes.dense_format)}\n\n"
    )
    rows = [
        [row.name, _PLACES[row.place], _gb(row.size_bytes), format_count(row.count) if row.count else ""]
        for row in report.placement.rows
    ]
    for place in _places(report):
        rows.append(["total", _PLACES[place], _gb(report.placement.total_bytes(place)), ""])
    write_table(terminal, ("part", "place", "GB", "experts"), rows, numbers=(2, 3))
    terminal.write("\n" + "".join(f"{line}\n" for line in _lines(report)))


def _places(report: PlanReport) -> list[Place]:
    """Return the places there are: graphics memory only with a card."""
    return [place for place in _PLACES if place != "vram" or report.placement.card is not None]


def _lines(report: PlanReport) -> list[str]:
    placement, speed = report.placement, report.speed
    given = f"{format_bytes(report.scenario.ram_bytes)} of memory, context {format_count(placement.context_tokens)}"
    if placement.card is not None:
        given = f"{format_bytes(placement.card.total_bytes)} of graphics memory, {given}"
    lines = [f"given     {given}"]
    if placement.card is not None:
        lines.append("note      no speed is forecast with a graphics card: running on one is untested")
    if speed is not None:
        lines += [
            f"generate  {_span(speed.decode_tps)} t/s, held back by {_limit_text(report, speed)}",
            f"read      {_span(speed.prefill_tps)} t/s of a prompt, held back by {_read_limit(speed)}",
            f"hits      {speed.hit_rate.low:.0%} to {speed.hit_rate.high:.0%} of a token's "
            f"{placement.sizes.experts_per_token} experts in memory ({placement.resident_share:.1%} of all are there)",
            f"based on  {report.source}",
        ]
    if placement.budget.is_below_cycle and placement.fits:
        lines.append("note      memory holds fewer experts than one token visits: hardly any is found again")
    reason = f": {placement.shortage}" if placement.shortage else ""
    lines.append(f"verdict   {report.verdict.upper()}{reason}")
    for i, change in enumerate(report.changes):
        lines.append(("helps     " if i == 0 else "          ") + _change_text(change))
    return lines


def _limit_text(report: PlanReport, speed: Speed) -> str:
    rates = report.scenario.rates
    return _LIMITS[speed.decode_limit].format(
        disk=_span(rates.disk_gbps),
        memory=_span(rates.memory_gbps),
        bytes=format_bytes(speed.disk_bytes_per_token),
        ram=format_bytes(speed.ram_bytes_per_token),
    )


def _read_limit(speed: Speed) -> str:
    return {"disk": "the disk", "memory": "memory", "processor": "the processor"}[speed.prefill_limit]


def _change_text(change: Change) -> str:
    lossy = ", lossy" if change.is_lossy else ""
    if change.decode_factor is None or change.prefill_factor is None:
        return f"{change.what}: then it runs, at {_span(change.decode_tps)} t/s{lossy}"
    return f"{change.what}: {change.decode_factor:.1f}x (reading {change.prefill_factor:.1f}x){lossy}"


def _span(span: Span) -> str:
    low, high = (f"{value:.0f}" if value >= 20 else f"{value:.2g}" for value in (span.low, span.high))
    return low if low == high else f"{low} to {high}"


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:,.2f}"


def _dense_name(dense: str) -> str:
    return "as released" if dense == "keep" else dense
