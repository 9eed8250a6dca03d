"""Experts on disk under one memory limit: ours against llama.cpp's mmap, taking turns, each in the same control group.

    python -m benchmarks.slice_gguf slice.gguf --layers 5
    python -m benchmarks.disk_rivals --gguf slice.gguf --llama-bench llama-bench --experts DIR --limit 3.6G

The slice has the sizes of MiMo-V2.5 (5 layers, 4 of them with 256 experts: 14.5 GB in int4, 13.7 GB in MXFP4), a
vocabulary of 8192 and random weights on both sides; DIR keeps our random experts. The limit is that of a memory control
group (version 1 or 2, root needed) and counts page cache on both sides. Decoding only, random tokens, evenly spread
routing. Prints one JSON line for each run and the ratio of the medians; our byte counters stand beside those of
/proc/self/io.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

VOCABULARY = 8192
_ROOT = Path("/sys/fs/cgroup")


def main() -> None:
    """Take turns and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--llama-bench", type=Path)
    parser.add_argument("--experts", type=Path, required=True, help="folder for our random experts, kept")
    parser.add_argument("--limit", default="3.6G", help="of the control group, and our --ram")
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--precision", choices=("exact", "int8"), default="exact")
    parser.add_argument("--experts-format", choices=("int4", "mxfp4"), default="int4")
    parser.add_argument(
        "--llama-options",
        default="-lm mmap --repack 0",
        help="of llama-bench; repacked weights would be a copy in memory",
    )
    parser.add_argument("--own", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.own:
        print(json.dumps(run_own(arguments)))
        return
    limit_bytes = int(float(arguments.limit.removesuffix("G")) * 1e9)
    rates: dict[str, list[float]] = {"ours": [], "llama.cpp": []}
    for _ in range(arguments.rounds):
        for name in rates:
            if name == "llama.cpp" and not arguments.gguf:
                continue
            with memory_limit(limit_bytes) as group:
                command = own_command(sys.argv[1:]) if name == "ours" else llama_command(arguments)
                forget(arguments)
                result = run_limited(command, group)
                result |= {"peak_bytes": group.peak_bytes(), "limit_bytes": limit_bytes}
            rates[name].append(result["decode_tps"])
            print(json.dumps({"name": name, **result}), flush=True)
    if rates["llama.cpp"]:
        medians = {name: statistics.median(values) for name, values in rates.items()}
        print(json.dumps({"medians": medians, "ratio": medians["ours"] / medians["llama.cpp"]}))


class Group:
    """A memory control group of our own, version 1 or 2."""

    def __init__(self, limit_bytes: int) -> None:
        is_first = (_ROOT / "memory").is_dir()
        self.folder = (_ROOT / "memory" if is_first else _ROOT) / f"mimo-bench-{os.getpid()}"
        self.folder.mkdir()
        limit = "memory.limit_in_bytes" if is_first else "memory.max"
        (self.folder / limit).write_text(str(limit_bytes))
        self._peak = "memory.max_usage_in_bytes" if is_first else "memory.peak"

    def enter(self) -> None:
        """Put the calling process inside."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def peak_bytes(self) -> int:
        """Return the most that was in use, page cache included."""
        return int((self.folder / self._peak).read_text())


@contextmanager
def memory_limit(limit_bytes: int) -> Iterator[Group]:
    """Yield a group that is removed afterwards."""
    group = Group(limit_bytes)
    try:
        yield group
    finally:
        for _ in range(50):
            try:
                group.folder.rmdir()
                break
            except OSError:
                time.sleep(0.1)


def run_limited(command: list[str], group: Group) -> dict[str, Any]:
    """Run a command inside a group; returns what it measured."""
    run = subprocess.run(command, capture_output=True, text=True, preexec_fn=group.enter, check=False)
    lines = [line for line in run.stdout.splitlines() if line.startswith(("{", "["))]
    if run.returncode != 0 or not lines:
        sys.exit(f"{' '.join(command)} ended with {run.returncode}: {run.stderr[-2000:]}")
    if command[-1] == "--own":
        found: dict[str, Any] = json.loads(lines[-1])
        return found
    (row,) = json.loads(run.stdout[run.stdout.index("[") :])
    return {"decode_tps": row["avg_ts"], "spread_tps": row["stddev_ts"], "build": row["build_commit"]}


def own_command(arguments: list[str]) -> list[str]:
    """Return this program's command for one run of ours."""
    return [sys.executable, "-m", "benchmarks.disk_rivals", *arguments, "--own"]


def llama_command(arguments: argparse.Namespace) -> list[str]:
    """Return llama-bench's command: decoding only, weights mapped."""
    sizes = ["-p", "0", "-n", str(arguments.tokens), "-r", "2", "-t", str(os.cpu_count() or 1)]
    return [
        str(arguments.llama_bench),
        "-m",
        str(arguments.gguf),
        *sizes,
        *arguments.llama_options.split(),
        "-o",
        "json",
    ]


def forget(arguments: argparse.Namespace) -> None:
    """Drop both sides' files from the system's cache: whoever reads them pays for them."""
    for path in [arguments.gguf, *sorted(arguments.experts.glob("*.bin"))]:
        if path:
            with suppress(OSError), path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run_own(arguments: argparse.Namespace) -> dict[str, Any]:
    """Decode with the engine of every command, experts from files, within the limit."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as every command sets it, before torch is there
    import torch

    from mimo_cli.checkpoint.config import ModelConfig
    from mimo_cli.checkpoint.release_shapes import release_config, slice_config
    from mimo_cli.engine.compute import choose_compute
    from mimo_cli.engine.load import choose_dtype
    from mimo_cli.engine.shape_bench import run_shape_bench
    from mimo_cli.engine.slice import DiskTier, ShapeSpec
    from mimo_cli.offload.budget import parse_ram

    release = release_config("v2.5")
    sliced = slice_config(release, arguments.layers)
    config = ModelConfig.from_dict({**sliced.raw, "vocab_size": VOCABULARY}, "slice")
    spec = ShapeSpec(
        release=release,
        config=config,
        experts=arguments.experts_format,
        prompt_tokens=(1,),
        decode_tokens=arguments.tokens,
        repeats=2,
        disk=DiskTier(parse_ram(arguments.limit), arguments.experts.parent, kept=arguments.experts),
    )
    compute = choose_compute(choose_dtype("auto", config), arguments.precision, torch.get_num_threads())
    before = read_bytes()
    report = run_shape_bench(spec, compute)
    (row,), disk = report.rows, report.disk
    assert row.row.decode_tps and row.disk and disk
    return {
        "decode_tps": row.row.decode_tps.median,
        "spread_tps": row.row.decode_tps.deviation,
        "hit_rate": row.row.hit_rate,
        "disk_bytes_per_token": row.row.bytes_per_token,
        "read_gbps": row.disk.read_gbps,
        "ceiling_gbps": row.disk.ceiling_gbps,
        "ceiling_share": row.disk.ceiling_share,
        "step_over_max": row.disk.overlap,
        "wait_share": row.disk.wait_share,
        "slots": disk.slots,
        "resident_share": disk.resident_share,
        "mode": disk.mode,
        "precision": arguments.precision,
        "peak_rss_bytes": row.row.peak_rss_bytes,
        "read_bytes": disk.read_bytes + disk.probe_bytes,
        "system_read_bytes": read_bytes() - before,
    }


def read_bytes() -> int:
    """Return the bytes this process had fetched from storage, as the system counts."""
    found = re.search(r"^read_bytes: (\d+)$", Path("/proc/self/io").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


if __name__ == "__main__":
    main()
