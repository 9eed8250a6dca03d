"""Experts on disk: how near reading comes to what the disk can give, and a step to the slower of reading and computing.

    python -m benchmarks.offload make DIR [--layers 4] [--format mxfp4]
    python -m benchmarks.offload memory DIR [--ram 3.2G] [--cgroup 4G]
    python -m benchmarks.offload run DIR [--resident 0.125] [--rounds 6] [--tokens 6] [--threads 4] [--cgroup 3.4G]

`make` writes experts of MiMo-V2.5's sizes with random weights: files as `mimo quantize` makes them. `run` decodes with
them through the engine of every command (vocabulary and dense layer cut). In every round the disk's ceiling (plain
O_DIRECT reads of whole records, the best of several numbers of threads), decoding with misses and decoding the same
tokens again with everything in memory take turns, because a shared disk changes speed within seconds: only the ratios
of one run mean something. Random routers prefer some experts, so their rows are shuffled before every token: then
each expert is as likely as any other, and as many are found in memory as there is room for. `step_share` compares a
step with all it reads, `needed_share` with what it had to read. `--cgroup` enters a memory control group (version 1)
of so many bytes. GB are 1e9 bytes.
"""

import argparse
import json
import os
import random
import statistics
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.contents import Contents
from mimo_cli.checkpoint.release_shapes import release_config, slice_config
from mimo_cli.engine.bind import Loader, build_empty, module_bytes
from mimo_cli.engine.budgeting import divide_memory
from mimo_cli.engine.compute import choose_compute, open_experts, pack_linears
from mimo_cli.engine.embeddings import MediaEncoder
from mimo_cli.engine.engine import Engine
from mimo_cli.engine.expert_memory import ExpertMemory
from mimo_cli.engine.lookahead import next_experts
from mimo_cli.engine.memory import reset_peak_rss
from mimo_cli.engine.model_sizes import expert_shapes
from mimo_cli.engine.random_weights import RandomReader, RandomRecords
from mimo_cli.media.prompt import Prompt
from mimo_cli.model.binding import text_bindings
from mimo_cli.model.decoder import TextModel
from mimo_cli.model.moe import MoE
from mimo_cli.offload.budget import parse_ram
from mimo_cli.offload.counters import OffloadCounters
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.offload.reading import Reading
from mimo_cli.quant.buffers import allocate_bytes, round_up
from mimo_cli.quant.packed import PackedFormat
from mimo_cli.quant.random_streams import RandomStreams
from mimo_cli.store.manifest import RecordLayout, layer_file
from mimo_cli.store.records import StoreRecords
from mimo_cli.units import parse_size

VOCABULARY = 4096
DENSE_WIDTH = 2048
"""Of the one layer without experts. With the vocabulary it is cut so that a token is what it is in the whole model,
where 47 of 48 layers have experts and the head is 3 % of the bytes."""

PROBE_THREADS = (2, 4, 8)
_CGROUP = Path("/sys/fs/cgroup/memory/mimo_bench")


def describe(folder: Path) -> tuple[ModelConfig, RecordLayout]:
    """Return the slice that a folder holds experts of."""
    spec = json.loads((folder / "slice.json").read_text())
    config = slice_config(release_config("v2.5"), spec["layers"] + 1)
    config = replace(config, vocab_size=VOCABULARY, intermediate_size=DENSE_WIDTH)
    group = expert_shapes(config, spec["format"])[0].group
    sizes = config.hidden_size, config.moe_intermediate_size, config.n_routed_experts, config.moe_layers
    return config, RecordLayout(spec["format"], group, *sizes)


def make(folder: Path, layers: int, kind: PackedFormat) -> None:
    """Write `layers` files of random experts, past the cache."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "slice.json").write_text(json.dumps({"layers": layers, "format": kind}))
    config, layout = describe(folder)
    records = RandomRecords(config, kind, RandomStreams())
    slot = allocate_bytes(layout.record_bytes)
    for layer in layout.layers:
        descriptor = os.open(folder / layer_file(layer), os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
        for expert in range(layout.experts):
            records.place(layer, expert, (), slot[: records.record_bytes])
            os.pwrite(descriptor, slot.numpy().data, expert * layout.record_bytes)
        os.fsync(descriptor)
        os.close(descriptor)


def probe(folder: Path, layout: RecordLayout, threads: int, count: int) -> float:
    """Read `count` records at random places by some threads, each into huge pages of its own; returns GB/s."""
    files = [os.open(folder / layer_file(layer), os.O_RDONLY | os.O_DIRECT) for layer in layout.layers]
    draw = random.Random(time.time_ns())
    jobs = [(draw.choice(files), draw.randrange(layout.experts) * layout.record_bytes) for _ in range(count)]
    left = iter(jobs)
    lock = threading.Lock()
    buffers = [allocate_bytes(layout.record_bytes).fill_(1).numpy().data for _ in range(threads)]

    def work(buffer: memoryview) -> None:
        while True:
            with lock:
                job = next(left, None)
            if job is None:
                return
            os.preadv(job[0], [buffer], job[1])

    workers = [threading.Thread(target=work, args=(buffer,)) for buffer in buffers]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - started
    for descriptor in files:
        os.close(descriptor)
    return count * layout.record_bytes / seconds / 1e9


def build(folder: Path, resident: float, reading: Reading, ahead: bool = True) -> tuple[Engine, RecordLayout]:
    """Return an engine over random dense weights and the experts of a folder, a share of them in memory."""
    config, layout = describe(folder)
    compute = choose_compute(torch.bfloat16)
    reader = RandomReader(config, "int8", "uniform", RandomStreams())
    experts_total = layout.experts * len(layout.layers)
    budget = int(resident * experts_total) * round_up(layout.record_bytes, 4096)
    experts = open_experts(reader, config, compute, budget, StoreRecords(folder, layout), reading)
    decoder = build_empty(lambda: TextModel(config, experts, compute.dtype))
    bindings = pack_linears(decoder, text_bindings(decoder), reader, compute)
    Loader(module_bytes([decoder]), None, compute.kernels).bind(decoder, reader, bindings)
    assert isinstance(experts, ExpertStore)
    experts.guess = next_experts(decoder) if ahead else None
    contents = Contents((), 0, False, False)
    media = MediaEncoder(None, None, None, hidden_size=config.hidden_size, dtype=compute.dtype)
    return Engine(folder, config, compute, contents, reader, decoder, experts, media, list), layout


def process_read_bytes() -> int:
    """Return what the system says this process has fetched from disks."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def run(folder: Path, args: argparse.Namespace) -> None:
    """Measure; one JSON line per round, then medians."""
    reading = Reading(mode=args.io, threads=args.threads)
    engine, layout = build(folder, args.resident, reading, args.ahead)
    store = engine.experts
    assert isinstance(store, ExpertStore)
    sequence = engine.start_sequence(4096)
    draw = random.Random(7)
    for _ in range(args.warm):
        spread_routing(engine, draw)
        sequence.decode(draw.randrange(VOCABULARY))
    rounds: list[dict[str, float]] = []
    for number in range(args.rounds):
        ceiling = {t: probe(folder, layout, t, args.probe_reads) for t in PROBE_THREADS}
        row = step_round(engine, store, args.tokens, draw)
        after = {t: probe(folder, layout, t, args.probe_reads) for t in PROBE_THREADS}
        best = max((ceiling[t] + after[t]) / 2 for t in PROBE_THREADS)
        io_s = row["disk_bytes"] / best / 1e9
        row |= {"round": number, "ceiling_gbps": best} | {f"ceiling_{t}_threads": rate for t, rate in ceiling.items()}
        row |= {"read_share": row["read_gbps"] / best, "step_share": row["step_s"] / max(io_s, row["compute_s"])}
        needed_s = (1 - row["resident_share"]) * row["asked_bytes"] / best / 1e9
        row["needed_share"] = row["step_s"] / max(needed_s, row["compute_s"])
        rounds.append(row)
        print(json.dumps(row), flush=True)
    names = "ceiling_gbps read_gbps read_share step_share needed_share hit_rate resident_share right_guesses"
    names += " step_s compute_s read_s wait_s disk_bytes io_share"
    print(json.dumps({name: round(statistics.median(row[name] for row in rounds), 4) for name in names.split()}))
    print(json.dumps({"peak": memory_peaks(), "counters": asdict(store.counters)}))
    engine.close()


def memory(folder: Path, args: argparse.Namespace) -> None:
    """Read prompts and decode under a budget; the peaks of the process and of its group over that budget."""
    engine, _ = build(folder, 0.0, Reading(mode=args.io, threads=args.threads))
    store, setting = engine.experts, parse_ram(args.ram)
    assert isinstance(store, ExpertStore)
    sizes = {"slot_bytes": store.expert_bytes, "reading_bytes": store.reading_bytes, "context_tokens": args.context}
    loaded = module_bytes([engine.decoder])
    budget = divide_memory(setting, engine.config, [], dtype=engine.dtype, **sizes)  # dense weights are there already
    store.allot(budget.slots_bytes)
    engine.memory = ExpertMemory(store, budget, engine.config, engine.dtype)
    sequence, draw = engine.start_sequence(args.context), random.Random(5)
    reset_peak_rss()
    rows: dict[str, float] = {
        "budget": budget.total_bytes,
        "dense": loaded,
        "slots": budget.slots_bytes,
        "buffers": budget.buffer_bytes,
    }
    for name, prompt in (("decode", 16), ("prompt", args.context - 64)):
        started = time.perf_counter()
        if name == "decode":
            for _ in range(prompt):
                sequence.decode(draw.randrange(VOCABULARY))
        else:
            sequence.prefill(Prompt(tuple(draw.randrange(VOCABULARY) for _ in range(prompt))))
        peaks = memory_peaks()
        rows[f"{name}_s"] = round(time.perf_counter() - started, 2)
        rows |= {f"{name}_{key}": value for key, value in peaks.items()}
        rows |= {f"{name}_{key}_share": round(value / budget.total_bytes, 4) for key, value in peaks.items()}
    print(json.dumps(rows))
    engine.close()


def spread_routing(engine: Engine, draw: random.Random) -> None:
    """Shuffle the rows of every router: no expert stays popular."""
    source = torch.Generator().manual_seed(draw.getrandbits(32))
    for gate in (layer.mlp.gate for layer in engine.decoder.layers if isinstance(layer.mlp, MoE)):
        gate.weight.copy_(gate.weight[torch.randperm(len(gate.weight), generator=source)])


def step_round(engine: Engine, store: ExpertStore, tokens: int, draw: random.Random) -> dict[str, float]:
    """Decode some random tokens with misses, each also a second time with all of its experts in memory.

    resident_share is what lay in memory when the token began: `hit_rate` also counts what was read ahead in time.
    """
    sequence = engine.start_sequence(4096)
    sequence.decode(1)
    spent = OffloadCounters()
    step_s = compute_s = io_bytes = 0.0
    for _ in range(tokens):
        token = draw.randrange(VOCABULARY)
        spread_routing(engine, draw)
        before, io_before = store.counters.snapshot(), process_read_bytes()
        started = time.perf_counter()
        sequence.decode(token)
        step_s += time.perf_counter() - started
        while not store.cache.is_idle:  # what is still read ahead belongs to the step
            time.sleep(0.001)
        io_bytes += process_read_bytes() - io_before
        spent = spent - (before - store.counters)
        guess, store.guess = store.guess, None
        for _ in range(3):  # reading ahead may have pushed out experts of this token: they come back unmeasured
            sequence.trim(sequence.length - 1)
            misses, started = store.misses, time.perf_counter()
            sequence.decode(token)
            seconds = time.perf_counter() - started
            if store.misses == misses:
                break
        compute_s += seconds
        store.guess = guess
    asked = tokens * len(engine.config.moe_layers) * engine.config.num_experts_per_tok
    record_bytes = store.records.record_bytes
    needed = spent.disk_bytes / record_bytes - (spent.prefetched - spent.used_prefetch)
    return {
        "step_s": step_s,
        "compute_s": compute_s,
        "disk_bytes": spent.disk_bytes,
        "read_gbps": spent.read_gbps or 0.0,
        "read_s": spent.read_s,
        "wait_s": spent.wait_s,
        "hit_rate": 1 - spent.misses / asked,
        "resident_share": 1 - needed / asked,
        "right_guesses": spent.used_prefetch / max(1, spent.prefetched),
        "asked_bytes": asked * record_bytes,
        "io_share": spent.disk_bytes / io_bytes if io_bytes else 0.0,
    }


def memory_peaks() -> dict[str, int]:
    """Return the peak of this process, and of its group if it has one of ours."""
    lines = Path("/proc/self/status").read_text().splitlines()
    peaks = {"rss": next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))}
    if _CGROUP.is_dir():
        peaks["group"] = int((_CGROUP / "memory.max_usage_in_bytes").read_text())
    return peaks


def enter_group(size_bytes: int) -> None:
    """Put this process into a memory control group of its own."""
    _CGROUP.mkdir(exist_ok=True)
    (_CGROUP / "memory.limit_in_bytes").write_text(str(size_bytes))
    (_CGROUP / "memory.max_usage_in_bytes").write_text("0")
    (_CGROUP / "cgroup.procs").write_text(str(os.getpid()))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("make", "run", "memory"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--format", default="mxfp4")
    parser.add_argument("--resident", type=float, default=0.125)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=6)
    parser.add_argument("--warm", type=int, default=6)
    parser.add_argument("--probe-reads", type=int, default=40)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--ahead", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--io", default="direct", choices=("auto", "direct", "buffered"))
    parser.add_argument("--ram", default="3.2G")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--cgroup", type=parse_size, default=None)
    args = parser.parse_args()
    if args.cgroup:
        enter_group(args.cgroup)
    if args.action == "make":
        make(args.folder, args.layers, args.format)
        return
    with torch.inference_mode():
        (memory if args.action == "memory" else run)(args.folder, args)


if __name__ == "__main__":
    main()
