"""Measuring a slice of a release without a checkpoint: real sizes, random weights, the engine of every other command.

configuration -> memory needed against memory free (of a disk tier: divided as the budget says)
one layer of experts, alone: bytes per second against the read ceiling      (its memory is given back)
the slice: an Engine over random weights -> rows as bench.py measures them -> estimate of the whole release
with a disk tier, before every repeat: plain reads of the experts' files, the ceiling of what reading can reach
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mimo_cli.engine.bench import BenchRow, Measured, measure_rows
from mimo_cli.engine.bind import OnLoad
from mimo_cli.engine.compute import Compute
from mimo_cli.engine.disk_experts import disk_experts
from mimo_cli.engine.disk_tier import DiskCeiling, DiskReport, DiskRow, disk_report, disk_row
from mimo_cli.engine.engine import Engine
from mimo_cli.engine.forced_routing import forced_routing
from mimo_cli.engine.forecast import Forecast, LayerTimes, forecast
from mimo_cli.engine.moe_bench import MoeLayerRow, fill_layer, measure_moe_layer, resident_bytes
from mimo_cli.engine.random_weights import RandomReader, RandomRecords
from mimo_cli.engine.read_ceiling import ReadCeiling, as_bytes
from mimo_cli.engine.routing_trace import RoutingRecorder
from mimo_cli.engine.slice import ShapeSpec, build_slice, require_room
from mimo_cli.engine.step_meter import StepMeter
from mimo_cli.errors import MimoError
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.offload.record_source import RecordSource
from mimo_cli.quant.kernels import Kernels, missing_reason
from mimo_cli.quant.random_streams import RandomStreams
from mimo_cli.store.records import StoreRecords

RoutingKind: TypeAlias = Literal["uniform", "skewed", "trace"]


@dataclass(frozen=True)
class ShapeRow:
    """A row of the slice; `weights_gbps` is what the kernels read while decoding, over all of its time."""

    row: BenchRow
    layer_decode_ms: tuple[float, ...]
    weights_gbps: float | None
    read_ceiling_gbps: float
    disk: DiskRow | None = None


@dataclass(frozen=True)
class RoutingReport:
    """What the routers did with decoded tokens: per layer, experts used and the share of the A most popular ones."""

    kind: RoutingKind
    experts_used: tuple[int, ...]
    top_share: tuple[float, ...]
    working_set_bytes: int


@dataclass(frozen=True)
class ShapeReport:
    """Everything measured. `moe_layer` is None where the slice has no experts.

    bits_per_weight by kind of matrix (`experts`, `qkv_proj`, `o_proj`, `mlp`, `lm_head`), scales included.
    """

    spec: ShapeSpec
    compute: Compute
    bits_per_weight: dict[str, float]
    moe_layer: MoeLayerRow | None
    rows: tuple[ShapeRow, ...]
    routing: RoutingReport
    extrapolated: tuple[Forecast, ...]
    losses: tuple[str, ...]
    disk: DiskReport | None = None


def run_shape_bench(
    spec: ShapeSpec, compute: Compute, on_load: OnLoad | None = None, on_stage: Callable[[str], None] | None = None
) -> ShapeReport:
    """Measure; `on_stage` hears what is being done.

    Raises MimoError where there are no native kernels, CapacityError before anything is made where memory is short.
    """
    kernels = compute.kernels
    if kernels is None:
        raise MimoError(
            f"`--shape` measures the native kernels, and there are none: {missing_reason()}",
            hint="measure a checkpoint instead: mimo bench -m DIR",
        )
    tell = on_stage or (lambda stage: None)
    streams = RandomStreams()
    reader = RandomReader(spec.config, spec.dense, spec.routing, streams)
    records = RandomRecords(spec.config, spec.experts, streams)
    if spec.disk is not None and spec.config.moe_layers:
        tell("writing random experts")
        with disk_experts(spec.disk.parent, spec.config, records, spec.disk.kept, _writing(tell)) as stored:
            return _measure(spec, compute, kernels, reader, records, stored, on_load, tell)
    require_room(spec, reader, records, compute)
    return _measure(spec, compute, kernels, reader, records, None, on_load, tell)


def _measure(
    spec: ShapeSpec,
    compute: Compute,
    kernels: Kernels,
    reader: RandomReader,
    records: RandomRecords,
    stored: StoreRecords | None,
    on_load: OnLoad | None,
    tell: Callable[[str], None],
) -> ShapeReport:
    moe_layer = None
    if stored is None and spec.config.moe_layers:
        tell("measuring one layer of experts")
        moe_layer = _measure_layer(spec, records, compute, kernels)
    tell("filling the slice")
    with ExitStack() as stack:
        engine = stack.enter_context(build_slice(spec, reader, stored or records, compute, on_load))
        if spec.record is not None:
            stack.enter_context(RoutingRecorder(engine.decoder, spec.record, "random weights"))
        if spec.trace is not None:
            stack.enter_context(forced_routing(engine.decoder, spec.trace))
        meter = stack.enter_context(StepMeter(engine))
        files = DiskCeiling(stored, engine, meter) if stored else None
        measured, rows = _measure_slice(spec, engine, meter, kernels, files, tell)
        losses, expert_bits = engine.losses, records.up_shape.bits_per_weight
        disk = disk_report(engine, stored, files)
    return ShapeReport(
        spec=spec,
        compute=compute,
        bits_per_weight={"experts": expert_bits, **_dense_bits(reader)},
        moe_layer=moe_layer,
        rows=tuple(rows),
        routing=_routing(spec, meter, records.record_bytes),
        extrapolated=tuple(_forecast(spec, one) for one in measured) if stored is None else (),
        losses=losses,
        disk=disk,
    )


def _measure_slice(
    spec: ShapeSpec,
    engine: Engine,
    meter: StepMeter,
    kernels: Kernels,
    files: DiskCeiling | None,
    tell: Callable[[str], None],
) -> tuple[list[Measured], list[ShapeRow]]:
    ceiling = ReadCeiling(kernels, as_bytes(engine.decoder.embed_tokens.weight))
    bench = spec.bench
    total = len(set(bench.prompt_tokens)) * len(set(bench.depths))
    measured: list[Measured] = []
    rows: list[ShapeRow] = []

    def probe() -> None:
        ceiling.probe()
        if files:
            files.probe()

    tell(f"measuring 1 of {total}")
    for one in measure_rows(engine, bench, meter, before_run=probe):
        measured.append(one)
        rows.append(_shape_row(one, ceiling, files))
        if len(rows) < total:
            tell(f"measuring {len(rows) + 1} of {total}")
    return measured, rows


def _writing(tell: Callable[[str], None]) -> Callable[[int, int], None]:
    return lambda done, total: tell(f"writing random experts {done / 1e9:.1f}/{total / 1e9:.1f} GB")


def _dense_bits(reader: RandomReader) -> dict[str, float]:
    """Return the bits per weight by kind of matrix, scales and padding included."""
    bits: dict[str, float] = {}
    for name, shape in reader.shapes.items():
        part = "mlp" if ".mlp." in name else name.removesuffix(".weight").rpartition(".")[2]
        bits.setdefault(part, shape.bits_per_weight)
    return bits


def _measure_layer(spec: ShapeSpec, records: RandomRecords, compute: Compute, kernels: Kernels) -> MoeLayerRow:
    layer = spec.config.moe_layers[0]
    budget_bytes = resident_bytes(records.record_bytes, spec.config.n_routed_experts)
    precision = compute.kernel_precision(records.up_shape.format)  # as the engine chooses it
    experts = spec.config.n_routed_experts
    store = ExpertStore(RecordSource(records), kernels, precision, [layer], experts, budget_bytes)
    fill_layer(store, spec.config, layer, compute.dtype)
    ceiling = ReadCeiling.over(kernels, spec.probe_bytes)
    try:
        return measure_moe_layer(store, spec.config, layer, compute.dtype, ceiling, spec.moe_layer)
    finally:
        store.close()


def _shape_row(measured: Measured, ceiling: ReadCeiling, files: DiskCeiling | None) -> ShapeRow:
    decoded = measured.row.decode_tokens * len(measured.runs)
    decode_s = sum(run.stats.decode_s for run in measured.runs)
    weight_bytes = sum(run.decode.kernels.weight_bytes for run in measured.runs)
    layer_s = [sum(seconds) for seconds in zip(*(run.decode.layer_s for run in measured.runs), strict=True)]
    return ShapeRow(
        measured.row,
        tuple(1000 * seconds / decoded for seconds in layer_s) if decoded else (),
        weight_bytes / decode_s / 1e9 if decode_s else None,
        ceiling.gbps,
        disk_row(measured, files.gbps, decoded, decode_s) if files and decoded else None,
    )


def _forecast(spec: ShapeSpec, measured: Measured) -> Forecast:
    row, runs = measured.row, measured.runs
    decoded = row.decode_tokens * len(runs)
    decode = mean_pass([run.decode.layer_s for run in runs], [run.stats.decode_s for run in runs], decoded)
    prefill = mean_pass([run.prefill.layer_s for run in runs], [run.stats.prefill_s for run in runs], len(runs))
    return forecast(
        spec.config,
        spec.release,
        row.context_tokens,
        (row.prompt_tokens, prefill) if row.prompt_tokens and prefill else None,
        decode,
    )


def mean_pass(layer_s: list[tuple[float, ...]], total_s: list[float], passes: int) -> LayerTimes | None:
    """Return the mean times of some passes from sums over runs: of every layer, and in all. None for no pass."""
    if not passes:
        return None
    layers = tuple(sum(seconds) / passes for seconds in zip(*layer_s, strict=True))
    return LayerTimes(layers, max(0.0, sum(total_s) / passes - sum(layers)))


def _routing(spec: ShapeSpec, meter: StepMeter, record_bytes: int) -> RoutingReport:
    used, shares = [], []
    for chosen in meter.chosen.values():
        used.append(len(chosen))
        best = sum(count for _, count in chosen.most_common(spec.config.num_experts_per_tok))
        shares.append(best / chosen.total() if chosen else 0.0)
    kind: RoutingKind = "trace" if spec.trace else spec.routing
    return RoutingReport(kind, tuple(used), tuple(shares), record_bytes * sum(used))
