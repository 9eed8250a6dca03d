"""How good `mimo plan --measure` foretells: its forecast of a slice that it has not seen, beside what the slice does.

    python -m benchmarks.forecasts SCRATCH [--ram 4.5G,6G,8G] [--rounds 3] [--layers 5]

Every round measures this machine as the plan does (three layers of 32 experts), forecasts the slice (five layers of
256) for every budget, and runs it with every budget by `mimo bench`. SCRATCH keeps the slice's experts, 13.7 GB. Both
follow one made-up routing (benchmarks/synthetic_traces.py, `mixed`). One JSON line for each pair, then the medians:
where the machine's speed changes between the two, `dense_layer` shows it, a layer without experts in the one over the
other.
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.synthetic_traces import synthetic_trace
from mimo_cli.commands.plan_subject import PlanSubject, shape_subject
from mimo_cli.engine.advice import Scenario
from mimo_cli.engine.compute import choose_compute
from mimo_cli.engine.machine_rates import around, rates_here
from mimo_cli.engine.measured_machine import MeasuredMachine, measure_machine
from mimo_cli.engine.routed_hits import routed_hits
from mimo_cli.engine.speed_model import Rates
from mimo_cli.offload.reading import Reading
from mimo_cli.units import parse_size

EXPERTS: Literal["mxfp4"] = "mxfp4"
DENSE: Literal["int8"] = "int8"
PROMPT_TOKENS, DECODE_TOKENS, REPEATS = 8, 24, 4
CONTEXT_TOKENS = 128


def measure(subject: PlanSubject, folder: Path) -> MeasuredMachine:
    """Measure this machine as `mimo plan --measure` does."""
    sizes = subject.sizes(EXPERTS, DENSE)
    compute = choose_compute(sizes.dtype, "exact")
    return measure_machine(sizes.config, EXPERTS, DENSE, compute, folder, Reading(remember=folder))


def forecast(
    machine: MeasuredMachine, subject: PlanSubject, rates: Rates, ram_bytes: int, trace: Path
) -> dict[str, Any]:
    """Forecast the slice with a budget: tokens per second and the share of experts found in memory."""
    sizes = subject.sizes(EXPERTS, DENSE)
    placement = Scenario(sizes, subject.sizes, rates, ram_bytes, CONTEXT_TOKENS).place()
    hits = routed_hits(None, trace)(placement)
    speed = machine.forecast(placement, rates, hits)
    return {"decode_tps": speed.decode_tps.middle, "hit_rate": hits.middle if hits else None}


def run(layers: int, ram: str, trace: Path, scratch: Path) -> dict[str, Any]:
    """Run the slice with a budget in a process of its own; returns the row of `mimo bench`, and how it read."""
    sizes = ["-p", str(PROMPT_TOKENS), "-n", str(DECODE_TOKENS), "-r", str(REPEATS)]
    shape = ["--shape", "v2.5", "--layers", str(layers), "--experts-format", EXPERTS, "--dense-format", DENSE]
    files = ["--ram", ram, "--trace", str(trace), "--scratch", str(scratch), "--json"]
    command = [sys.executable, "-m", "mimo_cli", "bench", *shape, *sizes, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    return {**report["rows"][-1], "mode": report["disk"]["mode"]}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--ram", default="4.5G,6G,8G")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=5)
    arguments = parser.parse_args()
    folder = arguments.scratch.with_name(arguments.scratch.name + "-plan")
    folder.mkdir(parents=True, exist_ok=True)
    trace = folder / "mixed.jsonl"
    synthetic_trace("mixed", layers=arguments.layers - 1).write(trace)
    ratios: dict[str, list[float]] = {}
    subject = shape_subject("v2.5", arguments.layers, "auto")
    for number in range(arguments.rounds):
        machine = measure(subject, folder)
        rates, _ = rates_here(folder, None)
        rates = replace(rates, disk_gbps=around(machine.disk_gbps))
        for ram in arguments.ram.split(","):
            foretold = forecast(machine, subject, rates, parse_size(ram), trace)
            row = run(arguments.layers, ram, trace, arguments.scratch)
            ratio = foretold["decode_tps"] / row["decode_tps"]
            ratios.setdefault(ram, []).append(ratio)
            line = {
                "round": number + 1,
                "ram": ram,
                "foretold_tps": foretold["decode_tps"],
                "decode_tps": row["decode_tps"],
                "ratio": ratio,
                "hits_foretold": foretold["hit_rate"],
                "hits": row["hit_rate"],
                "modes": [machine.mode, row["mode"]],
                "dense_layer": row["layer_decode_ms"][0] / (1000 * machine.decode.layer_s[0]),
            }
            rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()}
            print(json.dumps(rounded), flush=True)
    print(json.dumps({"median_ratio": {ram: round(statistics.median(values), 3) for ram, values in ratios.items()}}))


if __name__ == "__main__":
    main()
