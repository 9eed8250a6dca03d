"""`mimo bench --shape`: options to a ShapeSpec, its report to a table or JSON. Measured by engine/shape_bench.py."""

from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimo_cli.commands.command import was_typed
from mimo_cli.commands.options import ActivationPrecision, ModelOptions
from mimo_cli.errors import UsageError
from mimo_cli.terminal.console import Terminal
from mimo_cli.units import format_bytes

if TYPE_CHECKING:
    from mimo_cli.engine.disk_tier import DiskRow
    from mimo_cli.engine.shape_bench import ShapeReport, ShapeRow

TIME_LIMIT_S = 120.0
"""After so long every row left is measured once: a slow machine still ends within minutes."""

DEFAULT_LAYERS = 3

_PANEL = "shape"
_DISK_KEYS = (
    *("disk_read_gbps", "disk_ceiling_gbps", "disk_ceiling_share"),
    *("io_ms", "compute_ms", "overlap", "wait_share"),
)
_DISK_COLUMNS = (
    "prompt",
    "depth",
    "decode t/s",
    "hits",
    "disk/token",
    "disk",
    "of ceiling",
    "step over max",
    "waiting",
)
_SAMPLES = ("prefill_tps", "decode_tps", "ttft_ms")
_ROW_COLUMNS = ("prompt", "depth", "prefill t/s", "decode t/s", "first token", "weights", "of ceiling")
_COLUMNS = (*_ROW_COLUMNS, "no kernel", "of it attention", "KV", "peak RAM")


class RecordFormat(StrEnum):
    """Formats of experts that can be made up."""

    int4 = "int4"
    mxfp4 = "mxfp4"
    fp8 = "fp8"


class DenseFormat(StrEnum):
    """Formats of the other matrices."""

    keep = "keep"
    int8 = "int8"
    int4 = "int4"


class RoutingKind(StrEnum):
    """How tokens spread over experts."""

    uniform = "uniform"
    skewed = "skewed"


@dataclass(frozen=True)
class ShapeOptions:
    """A slice of a release's architecture with random weights, in place of a model."""

    shape: Annotated[
        str | None,
        typer.Option(
            "--shape",
            metavar="NAME",
            help="No model: random weights in the sizes of v2.5, v2.5-pro or v2.6-flash.",
            rich_help_panel=_PANEL,
        ),
    ] = None
    layers: Annotated[
        int | None,
        typer.Option("--layers", metavar="N", min=1, help="Layers of the shape [3].", rich_help_panel=_PANEL),
    ] = None
    experts_format: Annotated[
        RecordFormat | None,
        typer.Option(
            "--experts-format",
            metavar="F",
            help="int4, mxfp4, fp8 [int4; v2.6-flash: mxfp4].",
            hidden=True,
            rich_help_panel=_PANEL,
        ),
    ] = None
    dense_format: Annotated[
        DenseFormat | None,
        typer.Option(
            "--dense-format",
            metavar="F",
            help="keep (as released), int8, int4 [int8].",
            hidden=True,
            rich_help_panel=_PANEL,
        ),
    ] = None
    routing: Annotated[
        RoutingKind | None,
        typer.Option(
            "--routing",
            metavar="KIND",
            help="uniform, or skewed: few experts popular [uniform].",
            hidden=True,
            rich_help_panel=_PANEL,
        ),
    ] = None

    scratch: Annotated[
        str | None,
        typer.Option(
            "--scratch",
            metavar="DIR",
            help="With --ram: keep the random experts here and use them again [a temporary folder].",
            hidden=True,
            rich_help_panel=_PANEL,
        ),
    ] = None
    trace: Annotated[
        str | None,
        typer.Option(
            "--trace",
            metavar="FILE",
            help="Decoded tokens go where this recorded routing says.",
            hidden=True,
            rich_help_panel=_PANEL,
        ),
    ] = None

    def require_unused(self) -> None:
        """Raise UsageError where an option says how to build a shape, but none is asked for."""
        for flag, value in (
            ("--layers", self.layers),
            ("--experts-format", self.experts_format),
            ("--dense-format", self.dense_format),
            ("--routing", self.routing),
            ("--scratch", self.scratch),
            ("--trace", self.trace),
        ):
            if value is not None:
                raise UsageError(f"{flag} goes with --shape", hint=f"mimo bench --shape v2.5 {flag} {value}")


def only_typed_model(call: typer.Context, model: ModelOptions) -> ModelOptions:
    """Return the options without a model that was not typed: what needs none must not conflict with the usual one."""
    return model if was_typed(call, "model") else replace(model, model=None)


def measure_shape(
    terminal: Terminal,
    options: ShapeOptions,
    model: ModelOptions,
    sizes: tuple[tuple[int, ...], tuple[int, ...], int],
    repeats: int,
) -> "ShapeReport":
    """Build the slice and measure it; `sizes` are prompts, depths and the number of decoded tokens.

    Raises UsageError for a shape that is none, and what run_shape_bench raises.
    """
    from mimo_cli.checkpoint.release_shapes import release_config, slice_config
    from mimo_cli.commands.loading import disk_tier
    from mimo_cli.engine.card import require_cpu
    from mimo_cli.engine.compute import choose_compute
    from mimo_cli.engine.load import choose_dtype
    from mimo_cli.engine.routing_trace import read_trace
    from mimo_cli.engine.shape_bench import run_shape_bench
    from mimo_cli.engine.slice import ShapeSpec

    if model.model is not None:
        raise UsageError("--shape and -m exclude each other", hint=f"mimo bench --shape {options.shape}")
    if options.scratch is not None and model.ram is None:
        raise UsageError("--scratch goes with --ram", hint="mimo bench --shape v2.5 --ram 8G --scratch DIR")
    require_cpu(model.device)
    name = options.shape or ""
    release = release_config(name)
    experts = options.experts_format or (RecordFormat.mxfp4 if name == "v2.6-flash" else RecordFormat.int4)
    spec = ShapeSpec(
        release=release,
        config=slice_config(release, options.layers or DEFAULT_LAYERS),
        experts=experts.value,
        dense=(options.dense_format or DenseFormat.int8).value,
        routing=(options.routing or RoutingKind.uniform).value,
        prompt_tokens=sizes[0],
        depths=sizes[1],
        decode_tokens=sizes[2],
        repeats=repeats,
        time_limit_s=TIME_LIMIT_S,
        disk=disk_tier(model, options.scratch) if model.ram is not None else None,
        trace=read_trace(Path(options.trace)) if options.trace is not None else None,
        record=Path(model.record_routing) if model.record_routing is not None else None,
    )
    precision = "int8" if model.precision is ActivationPrecision.int8 else "exact"
    compute = choose_compute(choose_dtype(model.dtype.value, spec.config), precision, model.threads)  # type: ignore[arg-type]
    try:
        return run_shape_bench(spec, compute, on_stage=terminal.status)
    finally:
        terminal.clear_status()


def shape_json(name: str, report: "ShapeReport", machine: dict[str, Any]) -> dict[str, Any]:
    """Return everything measured, for programs; docs/bench.md says what the keys mean."""
    spec, compute = report.spec, report.compute
    hardware = {key: machine[key] for key in ("cpu", "cores", "memory_bytes", "system")}
    kernels = compute.kernels
    return {
        "schema": 1,
        "shape": {
            "name": name,
            "layers": [_layer_kind(spec.config, layer) for layer in range(spec.config.num_hidden_layers)],
            "experts_format": spec.experts,
            "dense_format": spec.dense,
            "bits_per_weight": report.bits_per_weight,
            "weights": "random",
            "tokens": "random, read and decoded; none is sampled",
        },
        "compute": {
            "dtype": str(compute.dtype).removeprefix("torch."),
            "precision": compute.precision,
            "lossy": list(report.losses),
        },
        "routing": asdict(report.routing),
        "moe_layer": asdict(report.moe_layer) if report.moe_layer else None,
        "disk": asdict(report.disk) if report.disk else None,
        "rows": [_row(row) for row in report.rows],
        "extrapolated": {
            "is_measured": False,
            "method": "mean time of the measured layers of each kind, times their number in the release, and the rest; "
            "all weights in memory; of a disk tier none, mimo plan --measure forecasts that",
            "rows": [asdict(row) for row in report.extrapolated],
        },
        "hardware": {
            **hardware,
            "isa": kernels.isa if kernels else None,
            "threads": kernels.threads if kernels else machine["threads"],
        },
        "versions": {key: value for key, value in machine.items() if key not in {*hardware, "threads"}},
    }


def _layer_kind(config: Any, layer: int) -> str:
    attention = "sliding" if config.is_sliding(layer) else "global"
    return f"{attention} {'moe' if config.is_moe(layer) else 'dense'}"


def _row(measured: "ShapeRow") -> dict[str, Any]:
    values = asdict(measured.row)
    row: dict[str, Any] = {}
    for key, value in values.items():
        if key in _SAMPLES:
            row[key] = value["median"] if value else None
            row |= {f"{key}_{part}": value[part] if value else None for part in ("low", "high", "deviation")}
        elif key not in ("bytes_per_token", "weight_bytes_per_token"):
            row[key] = value
    tiers = {"ram": values["weight_bytes_per_token"], "disk": values["bytes_per_token"]}
    ceiling = measured.read_ceiling_gbps
    outside, attention = row["non_kernel_share"], row["attention_share"]
    return {
        **row,
        "dispatch_share": None if outside is None else outside - attention,
        "bytes_per_token": sum(tiers.values()),
        "bytes_per_token_by_tier": tiers,
        "weights_gbps": measured.weights_gbps,
        "read_ceiling_gbps": ceiling,
        "ceiling_share": measured.weights_gbps / ceiling if measured.weights_gbps and ceiling else None,
        "layer_decode_ms": list(measured.layer_decode_ms),
        **_disk_fields(measured.disk),
    }


def _disk_fields(disk: "DiskRow | None") -> dict[str, Any]:
    if disk is None:
        return dict.fromkeys(_DISK_KEYS)
    return {
        "disk_read_gbps": disk.read_gbps,
        "disk_ceiling_gbps": disk.ceiling_gbps,
        "disk_ceiling_share": disk.ceiling_share,
        "io_ms": disk.io_s * 1000,
        "compute_ms": disk.compute_s * 1000,
        "overlap": disk.overlap,
        "wait_share": disk.wait_share,
    }


def write_shape_table(terminal: Terminal, report: dict[str, Any]) -> None:
    """Write what `shape_json` returned as tables for people."""
    from mimo_cli.terminal.tables import write_table

    shape, compute, routing = report["shape"], report["compute"], report["routing"]
    terminal.write(
        f"{shape['name']}, random weights: {len(shape['layers'])} layers ({', '.join(shape['layers'])}), "
        f"experts {shape['experts_format']}, dense {shape['dense_format']}, {compute['dtype']}, "
        f"activations {compute['precision']}\n"
        f"routing {routing['kind']}: {', '.join(map(str, routing['experts_used']))} experts used, "
        f"the most popular ones by {', '.join(f'{share:.0%}' for share in routing['top_share'])}, "
        f"{format_bytes(routing['working_set_bytes'])} touched\n\n"
    )
    if report["moe_layer"]:
        terminal.write(_moe_text(report["moe_layer"]))
    write_table(terminal, _COLUMNS, [_cells(row) for row in report["rows"]], numbers=range(len(_COLUMNS)))
    if report["disk"]:
        terminal.write(_disk_text(report["disk"]))
        write_table(terminal, _DISK_COLUMNS, [_disk_cells(row) for row in report["rows"]], range(len(_DISK_COLUMNS)))
    for row in report["extrapolated"]["rows"]:
        terminal.write(_forecast_text(row))
    hardware = report["hardware"]
    terminal.write(
        f"\n{hardware['cpu']}, {hardware['cores']} cores, {hardware['isa']}, {hardware['threads']} threads, "
        f"{format_bytes(hardware['memory_bytes'])}; torch {report['versions']['torch']}\n"
    )


def _moe_text(layer: dict[str, Any]) -> str:
    return (
        f"one layer of experts: {layer['decode_ms']:.2f} ms a token, {layer['weights_gbps']:.1f} of "
        f"{layer['read_ceiling_gbps']:.1f} GB/s ({layer['ceiling_share']:.0%}), "
        f"{layer['prefill_tps']:,.0f} t/s of {layer['prefill_tokens']} tokens\n\n"
    )


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['prompt_tokens']:,}",
        f"{row['depth_tokens']:,}",
        _spread(row, "prefill_tps"),
        _spread(row, "decode_tps"),
        f"{row['ttft_ms'] / 1000:.2f} s" if row["ttft_ms"] else "-",
        f"{row['weights_gbps']:.1f} GB/s" if row["weights_gbps"] else "-",
        _percent(row["ceiling_share"]),
        _percent(row["non_kernel_share"]),
        _percent(row["attention_share"]),
        format_bytes(row["kv_bytes"]),
        format_bytes(row["peak_rss_bytes"]),
    ]


def _disk_text(disk: dict[str, Any]) -> str:
    return (
        f"\nexperts on disk: {format_bytes(disk['files_bytes'])} in files, {disk['slots']} slots "
        f"({disk['resident_share']:.1%}) within {format_bytes(disk['ram_bytes'])}, read {disk['mode']} "
        f"by {disk['threads']} threads\n\n"
    )


def _disk_cells(row: dict[str, Any]) -> list[str]:
    return [
        f"{row['prompt_tokens']:,}",
        f"{row['depth_tokens']:,}",
        _spread(row, "decode_tps"),
        _percent(row["hit_rate"]),
        format_bytes(row["bytes_per_token_by_tier"]["disk"]),
        f"{row['disk_read_gbps']:.2f} GB/s" if row["disk_read_gbps"] else "-",
        _percent(row["disk_ceiling_share"]),
        f"{row['overlap']:.2f}" if row["overlap"] else "-",
        _percent(row["wait_share"]),
    ]


def _spread(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:,.1f} ± {row[f'{key}_deviation']:,.1f}" if row[key] else "-"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _forecast_text(row: dict[str, Any]) -> str:
    layers = f"{row['global_layers']} global + {row['sliding_layers']} sliding"
    if not row["decode_tps"] and not row["prefill_tps"]:
        return f"no estimate of all {row['layers']} layers: the slice lacks a kind of them\n"
    decode = f"{row['decode_tps']:.2f} t/s decoded" if row["decode_tps"] else "decoding not measured"
    prefill = f"{row['prefill_tps']:.1f} t/s read" if row["prefill_tps"] else "reading not measured"
    return f"estimate of {row['layers']} layers ({layers}) at {row['context_tokens']:,} tokens: {prefill}, {decode}\n"
