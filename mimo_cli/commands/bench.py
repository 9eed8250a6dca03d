"""`mimo bench`: options to a BenchSpec, measured rows to a table, JSON or CSV. The measuring is engine/bench.py."""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimo_cli.commands.model_choice import ModelChoice, choose_model
from mimo_cli.commands.options import GeneralOptions, ModelOptions
from mimo_cli.commands.replay import DEFAULT_SLOTS, write_replay
from mimo_cli.commands.shape_bench import (
    ShapeOptions,
    measure_shape,
    only_typed_model,
    shape_json,
    write_shape_table,
)
from mimo_cli.commands.sources import read_text_file
from mimo_cli.errors import UsageError
from mimo_cli.terminal.console import Terminal
from mimo_cli.units import format_bytes, parse_count

if TYPE_CHECKING:
    from mimo_cli.engine.bench import BenchRow, Sample

EXAMPLES = (
    "mimo bench",
    "mimo bench -p 512-4096+512 -n 64 -r 5",
    "mimo bench -m ~/models/MiMo-V2.5 -d 0,8192 --json",
    "mimo bench --shape v2.5 --layers 3 --experts-format mxfp4",
    "mimo bench --shape v2.5 --ram 8G",
)

_COLUMNS = ("prompt", "depth", "prefill t/s", "decode t/s", "first token", "expert hits", "read/tok", "KV", "peak RAM")
_HARDWARE = ("cpu", "cores", "threads", "memory_bytes", "system")
_COMPUTE = ("dtype", "kernels")


def bench(
    call: typer.Context,
    general: GeneralOptions,
    model: ModelOptions,
    shape: ShapeOptions,
    prompt: Annotated[
        str | None,
        typer.Option(
            "-p",
            "--prompt-tokens",
            metavar="N,N",
            help="Prompt sizes: numbers, ranges a-b+step [512,4096; with --shape 512,2048].",
        ),
    ] = None,
    decode: Annotated[
        str | None,
        typer.Option("-n", "--decode-tokens", metavar="N", help="Tokens decoded after each [128; with --shape 64]."),
    ] = None,
    depth: Annotated[
        str, typer.Option("-d", "--depth", metavar="N,N", help="Tokens already in the context, as with -p.")
    ] = "0",
    repeats: Annotated[int, typer.Option("-r", "--repeats", metavar="N", min=1, help="Runs of each.")] = 3,
    cold: Annotated[
        bool, typer.Option("--cold/--warm", help="Drop experts held in memory before each run, or warm up once [warm].")
    ] = False,
    text: Annotated[
        str | None, typer.Option("--text", metavar="FILE", help="Text to read instead of the one inside mimo.")
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option(
            "--replay",
            metavar="FILE",
            help="No model: hit rates that caches would have on recorded routing.",
            hidden=True,
        ),
    ] = None,
    slots: Annotated[
        str,
        typer.Option("--slots", metavar="N,N", help="With --replay: slots, as numbers or as 12.5%.", hidden=True),
    ] = DEFAULT_SLOTS,
    as_json: Annotated[bool, typer.Option("-j", "--json", help="One JSON object.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values.")] = False,
) -> None:
    """Measure how fast prompts are read and tokens are written, at chosen places of a context.

    It runs the code that chat runs, on real text. Each row gives the median of the repeats and the standard
    deviation; first token is the time from the request to the first token. With --json or --csv the machine and the
    versions stand beside the numbers.

    With --shape no model is needed: some layers of a release in their real sizes, with random weights, in memory as a
    whole. Then one layer of experts is also measured alone, against what plain reads of memory reach. With --ram the
    experts are on disk instead, in memory as many as that leaves room for, and reading is measured against plain reads.
    --record-routing FILE writes which experts were visited; --replay FILE computes what caches would make of that.
    """
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other")
    terminal = general.terminal()
    if replay is not None or shape.shape is not None:
        model = only_typed_model(call, model)
    if replay is not None:
        if shape.shape is not None or model.model is not None or as_csv:
            raise UsageError("--replay goes with none of --shape, -m and --csv")
        write_replay(terminal, Path(replay), slots, as_json)
        return
    model.limit_threads()
    usual_prompt, usual_decode = ("512,4096", "128") if shape.shape is None else ("512,2048", "64")
    sizes = (parse_sizes(prompt or usual_prompt), parse_sizes(depth), parse_sizes(decode or usual_decode))
    if len(sizes[2]) != 1:
        raise UsageError(f"-n takes one number, found `{decode}`")
    if shape.shape is not None:
        _bench_shape(terminal, shape, model, sizes, repeats, cold or text is not None or as_csv, as_json)
        return
    shape.require_unused()
    choice = choose_model(model.model)
    rows, machine = _measure(terminal, choice, model, sizes, repeats, cold, text)
    if as_json:
        terminal.write(json.dumps(json_report(choice, machine, rows), ensure_ascii=False) + "\n")
    elif as_csv:
        terminal.write(csv_report(choice, machine, rows))
    else:
        _write_table(terminal, choice, machine, rows)


def parse_sizes(text: str) -> tuple[int, ...]:
    """Read `512,4096`, ranges `512-2048+512` (both ends) and counts like `32k`; raises UsageError."""
    return tuple(size for item in text.split(",") for size in _range(item.strip()))


def _range(item: str) -> Iterator[int]:
    match = re.fullmatch(r"(\w+)-(\w+)(?:([+*])(\w+))?", item)
    if not match:
        yield parse_count(item)
        return
    low, high = parse_count(match[1]), parse_count(match[2])
    step = parse_count(match[4]) if match[4] else 0
    if low > high or (match[3] == "+" and step < 1) or (match[3] == "*" and (step < 2 or low < 1)) or not match[3]:
        raise UsageError(
            f"range `{item}` is not `low-high+step` or `low-high*factor`", hint="write for example 512-2048+512"
        )
    while low <= high:
        yield low
        low = low + step if match[3] == "+" else low * step


def _bench_shape(
    terminal: Terminal,
    shape: ShapeOptions,
    model: ModelOptions,
    sizes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
    repeats: int,
    is_other: bool,
    as_json: bool,
) -> None:
    if is_other:
        raise UsageError("--shape goes with none of --cold, --text and --csv")
    report = measure_shape(terminal, shape, model, (sizes[0], sizes[1], sizes[2][0]), repeats)
    from mimo_cli.engine.machine import describe_machine

    values = shape_json(shape.shape or "", report, describe_machine())
    if as_json:
        terminal.write(json.dumps(values, ensure_ascii=False) + "\n")
    else:
        write_shape_table(terminal, values)


def _measure(
    terminal: Terminal,
    choice: ModelChoice,
    model: ModelOptions,
    sizes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
    repeats: int,
    cold: bool,
    text: str | None,
) -> tuple[list["BenchRow"], dict[str, Any]]:
    from mimo_cli.chat.tokenizer import Tokenizer
    from mimo_cli.commands.loading import announce, load_model
    from mimo_cli.engine.bench import BenchSpec, bench_text, run_bench
    from mimo_cli.engine.machine import describe_machine

    prose = read_text_file(text) if text else bench_text()
    ids = Tokenizer.from_folder(choice.folder).encode(prose, added_tokens=False)
    prompts, depths, (decode_tokens,) = sizes
    spec = BenchSpec(tuple(ids), prompts, decode_tokens, depths, repeats, "cold" if cold else "warm")
    with load_model(choice, model, terminal) as loaded:
        announce(terminal, loaded, spec.context_tokens + spec.decode_tokens)
        total = len(set(prompts)) * len(set(depths))
        terminal.status(f"measuring 1 of {total}")
        done: list[BenchRow] = []

        def show(row: "BenchRow") -> None:
            done.append(row)
            if len(done) < total:
                terminal.status(f"measuring {len(done) + 1} of {total}")

        rows = run_bench(loaded.engine.core, spec, on_row=show)
        compute = {"dtype": loaded.dtype_name, "kernels": loaded.engine.core.compute.name}
    terminal.clear_status()
    return rows, {**describe_machine(), **compute}


def json_report(choice: ModelChoice, machine: dict[str, Any], rows: Sequence["BenchRow"]) -> dict[str, Any]:
    """Return everything measured, with the machine and the versions, for programs."""
    known = {*_HARDWARE, *_COMPUTE}
    return {
        "schema": 1,
        "model": {"name": choice.name, "folder": str(choice.folder), "is_miniature": choice.notice is not None},
        "compute": {name: machine[name] for name in _COMPUTE},
        "rows": [_flat(asdict(row)) for row in rows],
        "hardware": {name: machine[name] for name in _HARDWARE},
        "versions": {name: value for name, value in machine.items() if name not in known},
    }


def csv_report(choice: ModelChoice, machine: dict[str, Any], rows: Sequence["BenchRow"]) -> str:
    """Return one line for each row; the machine stands in every line."""
    out = io.StringIO()
    flat = [{"model": choice.name, **_flat(asdict(row)), **machine} for row in rows]
    writer = csv.DictWriter(out, fieldnames=list(dict.fromkeys(key for line in flat for key in line)))
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue().replace("\r\n", "\n")


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Spread a sample over four columns: the median under its own name, then `_low`, `_high`, `_deviation`."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat |= {key if name == "median" else f"{key}_{name}": part for name, part in value.items()}
        else:
            flat[key] = value
    return flat


def _write_table(terminal: Terminal, choice: ModelChoice, machine: dict[str, Any], rows: Sequence["BenchRow"]) -> None:
    from mimo_cli.terminal.tables import write_table

    write_table(terminal, _COLUMNS, [_cells(row) for row in rows], numbers=range(len(_COLUMNS)))
    state = rows[0].cache_state
    terminal.write(
        f"\nmedian ± standard deviation of {rows[0].repeats} {state} runs, {rows[0].decode_tokens} tokens decoded\n"
        f"{choice.name}, {machine['dtype']}, kernels: {machine['kernels']}; torch {machine['torch']}\n"
        f"{machine['cpu']}, {machine['cores']} cores, {format_bytes(machine['memory_bytes'])}\n"
    )


def _cells(row: "BenchRow") -> list[str]:
    return [
        f"{row.prompt_tokens:,}",
        f"{row.depth_tokens:,}",
        _spread(row.prefill_tps),
        _spread(row.decode_tps),
        f"{row.ttft_ms.median / 1000:.2f} s" if row.ttft_ms else "-",
        "-" if row.hit_rate is None else f"{row.hit_rate * 100:.0f} %",
        format_bytes(row.bytes_per_token) if row.bytes_per_token else "-",
        format_bytes(row.kv_bytes),
        format_bytes(row.peak_rss_bytes),
    ]


def _spread(sample: "Sample | None") -> str:
    if sample is None:
        return "-"
    digits = 0 if sample.median >= 100 else 1 if sample.median >= 10 else 2
    return f"{sample.median:,.{digits}f} ± {sample.deviation:,.{digits}f}"
