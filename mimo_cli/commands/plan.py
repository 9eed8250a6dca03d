"""`mimo plan`: what a model would do on this machine, from sizes alone. The arithmetic is engine's."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimo_cli.commands.model_choice import choose_model
from mimo_cli.commands.options import ActivationPrecision, GeneralOptions, ModelOptions, read_size
from mimo_cli.commands.shape_bench import ShapeOptions, only_typed_model
from mimo_cli.errors import CapacityError, UsageError
from mimo_cli.terminal.console import Terminal

if TYPE_CHECKING:
    from mimo_cli.commands.plan_report import PlanReport
    from mimo_cli.commands.plan_subject import PlanSubject
    from mimo_cli.engine.advice import Scenario
    from mimo_cli.engine.measured_machine import MeasuredMachine
    from mimo_cli.engine.model_sizes import ExpertsFormat
    from mimo_cli.engine.placement import Placement
    from mimo_cli.engine.speed_model import Rates, Speed
    from mimo_cli.store.plan import DenseFormat

EXAMPLES = (
    "mimo plan",
    "mimo plan --shape v2.6-flash --ram 64G --ctx 128k",
    "mimo plan --shape v2.5 --experts-format int4 --measure",
    "mimo plan --experts-format int4 --vram 24G --ram 128G",
    "mimo plan -m ~/models/MiMo-V2.5 --json",
)
DEFAULT_SHAPE = "v2.5"


def plan(
    call: typer.Context,
    general: GeneralOptions,
    model: ModelOptions,
    shape: ShapeOptions,
    disk: Annotated[
        int | None,
        typer.Option("--disk", metavar="SIZE", parser=read_size, help="Disk space for the files [enough]."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Run random experts of the real size from RAM and disk here (1-2 min).")
    ] = False,
    as_json: Annotated[bool, typer.Option("-j", "--json", help="One JSON object.")] = False,
) -> int:
    """Say where a model's parts would lie here, how fast it would run, and what would help most.

    Reads no weights and needs no download: a folder with a config.json will do, or the name of a release's shape
    (without either: v2.5). --experts-format and --dense-format plan for a store that `mimo quantize` would write.
    The forecast is a range; with --measure it rests on experts of the real size, with random weights, that are run on
    this machine from memory and from disk. How often memory has a token's experts is what other engines report for
    ordinary text; --trace FILE takes a recorded routing instead, --routing uniform none at all.
    --vram places the dense part, the KV cache and experts on a graphics card of that size; no speed is forecast then.
    Exits with 4 where no placement works, and with 0 where it is only slow.
    """
    terminal = general.terminal()
    model.limit_threads()
    from mimo_cli.commands.plan_report import plan_json, write_plan

    if shape.shape is not None:
        model = only_typed_model(call, model)
    report = _plan(terminal, model, shape, disk, measure)
    if as_json:
        terminal.write(json.dumps(plan_json(report), ensure_ascii=False) + "\n")
    else:
        write_plan(terminal, report)
    return 0 if report.placement.fits else CapacityError.exit_code


def _plan(
    terminal: Terminal, model: ModelOptions, shape: ShapeOptions, disk: int | None, measure: bool
) -> "PlanReport":
    from mimo_cli.commands.plan_report import PlanReport, measured_json
    from mimo_cli.engine.advice import Forecast, helpful_changes, judge
    from mimo_cli.engine.machine_rates import around
    from mimo_cli.engine.routed_hits import routed_hits
    from mimo_cli.engine.speed_model import forecast_speed

    subject = _subject(model, shape)
    scenario, source = _scenario(subject, model, shape, disk)
    if scenario.vram_bytes is not None and measure:
        raise UsageError("--measure runs on the processor, --vram plans for a card", hint="leave one of them away")
    placement = scenario.place()
    hits = routed_hits(shape.routing.value if shape.routing else None, Path(shape.trace) if shape.trace else None)
    base: Forecast = forecast_speed
    measured = None
    if measure and placement.fits:
        machine = _measure(terminal, scenario, model)
        scenario = replace(scenario, rates=replace(scenario.rates, disk_gbps=around(machine.disk_gbps)))
        source = "layers and experts of the real size, run here from memory and from disk"
        base, measured = machine.forecast, measured_json(machine)

    def forecast(placement: "Placement", rates: "Rates") -> "Speed":
        return base(placement, rates, hits(placement))

    is_forecast = placement.fits and scenario.vram_bytes is None  # nothing was ever measured on a card
    speed = forecast(placement, scenario.rates) if is_forecast else None
    changes = helpful_changes(scenario, forecast) if scenario.vram_bytes is None else []
    return PlanReport(subject.name, scenario, placement, speed, judge(placement, speed), changes, source, measured)


def _measure(terminal: Terminal, scenario: "Scenario", model: ModelOptions) -> "MeasuredMachine":
    """Run random experts in the formats that are planned for."""
    from mimo_cli.commands.loading import disk_tier
    from mimo_cli.engine.compute import choose_compute
    from mimo_cli.engine.measured_machine import measure_machine

    sizes = scenario.sizes
    precision = "int8" if model.precision is ActivationPrecision.int8 else "exact"
    compute = choose_compute(sizes.dtype, precision, model.threads)  # type: ignore[arg-type]
    tier = disk_tier(model, None)
    if sizes.experts_format not in ("int4", "mxfp4", "fp8"):
        raise UsageError(f"--measure cannot make up experts in {sizes.experts_format}", hint="--experts-format int4")
    try:
        return measure_machine(
            sizes.config, sizes.experts_format, sizes.dense_format, compute, tier.parent, tier.reading, terminal.status
        )
    finally:
        terminal.clear_status()


def _subject(model: ModelOptions, shape: ShapeOptions) -> "PlanSubject":
    from mimo_cli.commands.plan_subject import folder_subject, shape_subject

    if shape.shape is not None and model.model is not None:
        raise UsageError("--shape and -m exclude each other", hint=f"mimo plan --shape {shape.shape}")
    if model.model is not None:
        if shape.layers is not None:
            raise UsageError("--layers goes with --shape", hint="mimo plan --shape v2.5 --layers 3")
        return folder_subject(choose_model(model.model), model.dtype.value)
    return shape_subject(shape.shape or DEFAULT_SHAPE, shape.layers, model.dtype.value)


def _scenario(
    subject: "PlanSubject", model: ModelOptions, shape: ShapeOptions, disk: int | None
) -> tuple["Scenario", str]:
    from mimo_cli.engine.advice import Scenario
    from mimo_cli.engine.card import planned_vram_bytes
    from mimo_cli.engine.context import DEFAULT_CONTEXT_TOKENS
    from mimo_cli.engine.machine_rates import planned_ram_bytes, rates_here
    from mimo_cli.settings import models_folder

    limit = subject.config.max_position_embeddings
    context = model.ctx or min(DEFAULT_CONTEXT_TOKENS, limit)
    if not 0 < context <= limit:
        raise UsageError(f"a context of {context:,} tokens was asked for, 1 to {limit:,} are possible")
    experts: ExpertsFormat | None = shape.experts_format.value if shape.experts_format else None  # type: ignore[assignment]
    dense: DenseFormat | None = shape.dense_format.value if shape.dense_format else None  # type: ignore[assignment]
    rates, source = rates_here(subject.folder or models_folder(), model.threads)
    scenario = Scenario(
        sizes=subject.sizes(experts, dense),
        resize=subject.sizes,
        rates=rates,
        ram_bytes=planned_ram_bytes(model.ram),
        context_tokens=context,
        disk_bytes=disk,
        vram_bytes=planned_vram_bytes(model.device, model.vram),
        card_dense=model.gpu_dense.value,
    )
    return scenario, source
