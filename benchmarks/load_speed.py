"""How fast a packed store is opened: the rate of loading its dense part over the disk's, and the time to a first token.

    python -m benchmarks.load_speed STORE [--rounds 3] [--cold | --warm]

Cold: before each load the store's dense files are dropped from the system's cache. The ceiling is read past the cache
(O_DIRECT) from the same files in the same pieces by 1, 2 and 4 threads before each load, into memory there is. What
a load needs besides, as much new memory, is timed alone: a virtual machine may get it slower than it reads.
Warm: a new process loads the store and reads five tokens, its files being in the cache if they fit; seconds count
from the start of the process, which begins to read before it imports, as `mimo chat` does.
One JSON line each. benchmarks.slice_store makes a store.
The embedding table is not loaded: it stays in its file, of which a token reads one row. Rates count what is loaded.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mimo_cli.checkpoint.bulk_read import CHUNK_BYTES
from mimo_cli.engine.load import load_engine
from mimo_cli.quant.buffers import HUGE_PAGE_BYTES, allocate_bytes
from mimo_cli.store.manifest import StoreManifest

CEILING_THREADS = (1, 2, 4)

FIRST_TOKEN = """
import json, sys, time
started = time.time()
from pathlib import Path
from mimo_cli.commands.early_start import early_start, end_start
with early_start(Path(sys.argv[1])):
    from mimo_cli.engine.load import load_engine
    from mimo_cli.media.prompt import Prompt
    imported = time.time()
    engine = load_engine(Path(sys.argv[1]))
    end_start()
    loaded = time.time()
    token = int(engine.start_sequence(64).prefill(Prompt(ids=(5, 6, 7, 8, 9))).argmax())
print(json.dumps({"started": started, "imported": imported, "loaded": loaded, "first_token": time.time()}))
"""


def dense_files(folder: Path) -> list[Path]:
    """Return the files of dense tensors."""
    return [folder / name for name in StoreManifest.from_folder(folder).files if name.endswith(".safetensors")]


def forget(paths: list[Path]) -> None:
    """Drop files from the system's cache."""
    for path in paths:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_past_cache(paths: list[Path], threads: int) -> float:
    """Read files in large pieces past the cache; returns bytes per second."""
    buffers = [allocate_bytes(CHUNK_BYTES) for _ in range(threads)]
    pieces = [(path, at) for path in paths for at in range(0, path.stat().st_size, CHUNK_BYTES)]
    files = {path: os.open(path, os.O_RDONLY | os.O_DIRECT) for path in paths}

    def read(thread: int) -> int:
        target = memoryview(buffers[thread].numpy().data)
        return sum(os.preadv(files[path], [target], at) for path, at in pieces[thread::threads])

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(read, range(threads)))
    seconds = time.perf_counter() - started
    for descriptor in files.values():
        os.close(descriptor)
    return total / seconds


def measure_cold(folder: Path, rounds: int) -> dict[str, object]:
    """Loads and reads in turns."""
    paths = dense_files(folder)
    size_bytes = sum(path.stat().st_size for path in paths)
    ceilings: dict[int, list[float]] = {threads: [] for threads in CEILING_THREADS}
    seconds, clearing, mapped_bytes = [], [], 0
    for _ in range(rounds):
        for threads, rates in ceilings.items():
            rates.append(read_past_cache(paths, threads))
        started = time.perf_counter()
        memory = allocate_bytes(size_bytes)
        memory[::HUGE_PAGE_BYTES] = 1
        clearing.append(time.perf_counter() - started)
        del memory
        forget(paths)
        started = time.perf_counter()
        engine = load_engine(folder)
        seconds.append(time.perf_counter() - started)
        mapped_bytes = engine.decoder.embed_tokens.weight.nbytes
        del engine
    ceiling = max(statistics.median(rates) for rates in ceilings.values())
    loaded_bytes = size_bytes - mapped_bytes
    rate = loaded_bytes / statistics.median(seconds)
    return {
        "what": "cold load",
        "dense_bytes": size_bytes,
        "loaded_bytes": loaded_bytes,
        "seconds": [round(value, 3) for value in seconds],
        "gbps": round(rate / 1e9, 3),
        "ceiling_gbps": round(ceiling / 1e9, 3),
        "ceilings_gbps": {threads: [round(rate / 1e9, 3) for rate in rates] for threads, rates in ceilings.items()},
        "over_ceiling": round(rate / ceiling, 3),
        "new_memory_s": [round(value, 3) for value in clearing],
    }


def measure_start(folder: Path, rounds: int, *, is_cold: bool) -> dict[str, object]:
    """New processes, one after the other; the first of them does not count. Cold: their dense files are forgotten."""
    found: dict[str, list[float]] = {"imported": [], "loaded": [], "first_token": []}
    # An installed package is compiled once; a source tree under this variable would be compiled in every process.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for turn in range(rounds + 1):
        if is_cold:
            forget(dense_files(folder))
        started = time.time()
        command = [sys.executable, "-c", FIRST_TOKEN, str(folder)]
        run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        times = json.loads(run.stdout)
        if turn:
            for name, values in found.items():
                values.append(round(times[name] - started, 3))
    medians = {f"{name}_s": statistics.median(values) for name, values in found.items()}
    return {"what": f"first token, {'cold' if is_cold else 'warm'}", **medians, "runs": found}


def main() -> None:
    """Measure what the options name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="only this")
    parser.add_argument("--warm", action="store_true", help="only this")
    options = parser.parse_args()
    if not options.warm:
        print(json.dumps(measure_cold(options.store, options.rounds)), flush=True)
        print(json.dumps(measure_start(options.store, options.rounds, is_cold=True)), flush=True)
    if not options.cold:
        print(json.dumps(measure_start(options.store, options.rounds, is_cold=False)), flush=True)


if __name__ == "__main__":
    main()
