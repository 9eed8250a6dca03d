"""What a run on a card is about and what it found: sizes, medians of times, and the report that survives failures.

Imported first by all parts of `benchmarks.gpu`: with `--simulate` Triton must be told before anybody imports it.
"""

import dataclasses
import json
import os
import statistics
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SIMULATE = "--simulate" in sys.argv
if SIMULATE:
    import tests.support.triton_interpreter  # noqa: F401  sets the variable, and mends the interpreter

DEVICE = torch.device("cpu" if SIMULATE else "cuda")
DTYPE = torch.float32 if SIMULATE else torch.bfloat16


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Of the model, and of what is measured: slots of a layer, layers of a chain, tokens of a prompt, repeats."""

    hidden: int = 4096
    width: int = 2048
    experts: int = 256
    active: int = 8
    heads: int = 64
    sliding_kv_heads: int = 8
    global_kv_heads: int = 4
    head: int = 192
    value_head: int = 128
    rotary: int = 64
    window: int = 128
    dense_width: int = 16384
    vocabulary: int = 152576
    layers: int = 8
    offload_layers: int = 8
    prompt: int = 8192
    context: int = 32768
    copy_bytes: int = 1 << 32
    repeats: int = 15


TINY = Sizes(
    hidden=128, width=128, experts=6, active=2, heads=4, sliding_kv_heads=2, global_kv_heads=1, head=24, value_head=16,
    rotary=8, window=6, dense_width=128, vocabulary=64, layers=1, offload_layers=1, prompt=6, context=70,
    copy_bytes=1 << 12, repeats=1,
)  # fmt: skip
SIZES = TINY if SIMULATE else Sizes()


class Skipped(Exception):
    """A section cannot be measured here, and why."""


class Report:
    """What was found so far, in the file that is written again after every section.

    A wrong access leaves a CUDA process unable to go on, and a kernel may hang: the script then starts itself again
    with what is in the file, and goes on behind the section that did it.
    """

    def __init__(self, path: Path | None, seconds: float, only: set[str], began: float | None = None) -> None:
        self.path, self.only = path, only
        self.began = time.time() if began is None else began
        self.deadline = self.began + seconds
        self.facts: dict[str, Any] = {"simulated": SIMULATE, "date": date.today().isoformat()}
        self.rows: list[dict[str, Any]] = []
        self.checks: dict[str, Any] = {}
        self.failures: dict[str, str] = {}
        self.state: dict[str, Any] = {}

    def resume(self) -> None:
        """Go on with what the file holds."""
        if self.path and self.path.exists():
            held = json.loads(self.path.read_text("utf-8"))
            self.rows, self.checks, self.failures = held["rows"], held["checks"], held["failures"]
            self.state = held["state"]

    def say(self, text: str) -> None:
        print(f"[{time.time() - self.began:6.1f} s] {text}", flush=True)

    def row(self, name: str, value: float, floor: float | None, goal: float | None, **more: Any) -> None:
        """Note a figure; of a simulation none is kept."""
        kept = None if SIMULATE else round(value, 4)
        self.rows.append({"id": name, "value": kept, "floor": floor, "goal": goal, **({} if SIMULATE else more)})
        self.say(f"{name}: {kept} (floor {floor}, goal {goal}) {json.dumps(more)}")

    def check(self, name: str, error: float, allowed: float) -> None:
        """Note a relative error; what is above what is allowed, or no number, is wrong."""
        right = error <= allowed  # False for NaN
        self.checks[name] = {"error": error if error == error else "nan", "allowed": allowed, "right": right}
        self.say(f"check {name}: {error:.2e} of {allowed:.0e}{'' if right else '  WRONG'}")

    def wrong(self, *prefixes: str) -> list[str]:
        """Return the checks of these prefixes that failed, or that are not there at all."""
        failed = [name for name, check in self.checks.items() if name.startswith(prefixes) and not check["right"]]
        return failed + [prefix for prefix in prefixes if not any(name.startswith(prefix) for name in self.checks)]

    def need(self, *prefixes: str) -> None:
        """Raise Skipped where a kernel that a row rests on is wrong or was not checked."""
        if bad := self.wrong(*prefixes):
            raise Skipped(f"wrong results, or none, of {', '.join(bad)}")

    def need_near(self, error: float, allowed: float) -> None:
        """Raise ValueError for an error above what is allowed, and for one that is no number."""
        if not error <= allowed:
            raise ValueError(f"the result is wrong by {error:.2e}")

    def fast(self, kind: str) -> bool:
        """Tell whether PTX may decode a format: right where it was checked. Raises Skipped where neither way is."""
        self.need(f"unpack {kind} portable", f"decode {kind} portable")
        return not self.wrong(f"unpack {kind} ptx", f"decode {kind} ptx")

    def section(self, name: str, seconds: float, work: Callable[[], Any]) -> Any:
        """Return what a part that may fail found, None where it did not run; not run where too little time is left."""
        if name in self.state.get("done", ()):
            return self.state.get(name)
        if self.only and name not in self.only and not name.startswith(("machine", "unpack", "experts", "check")):
            return None
        self.say(f"== {name}")
        watch = threading.Timer(3 * seconds + 30, self._restart, (name, "took too long"))
        watch.daemon = True
        if not SIMULATE:
            watch.start()
        found = None
        try:
            if time.time() + seconds > self.deadline and not SIMULATE:
                raise Skipped(f"no time left for about {seconds:.0f} s")
            found = work()
        except Skipped as reason:
            self.failures[name] = f"not measured: {reason}"
            self.say(f"{name} not measured: {reason}")
        except Exception as error:
            self.failures[name] = f"{type(error).__name__}: {str(error)[:500]}"
            self.say(f"{name} FAILED\n{traceback.format_exc(limit=-6)}")
        self._free(name)
        watch.cancel()
        self.state[name] = found
        self._done(name)
        return found

    def _free(self, name: str) -> None:
        if SIMULATE:
            return
        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except Exception as error:
            self._restart(name, f"left the card unusable: {str(error)[:200]}")

    def _restart(self, name: str, reason: str) -> None:
        self.failures[name] = f"{self.failures.get(name, '')} {reason}".strip()
        self._done(name)
        self.say(f"{name} {reason}; starting again behind it")
        if self.path:
            sys.stdout.flush()
            given = [argument for argument in sys.argv[1:] if not argument.startswith("--resumed")]
            own = [f"--resumed={self.began}", f"--out={self.path}"]
            os.execv(sys.executable, [sys.executable, "-m", "benchmarks.gpu", *given, *own])

    def _done(self, name: str) -> None:
        self.state.setdefault("done", []).append(name)
        self.write()

    def write(self) -> None:
        """Write everything to the file."""
        if self.path:
            parts = {"rows": self.rows, "checks": self.checks, "failures": self.failures, "state": self.state}
            self.path.write_text(json.dumps({**self.facts, **parts}, indent=1) + "\n", "utf-8")


Work = Callable[[], object]


HEAD_START_CYCLES = 400_000
"""About 0.2 ms in which the host queues what is timed: the card never waits for it then."""


def once_us(work: Work, queued: bool = True) -> float:
    """Microseconds of one run, by events; queued: without the host's part. Simulated: by the clock."""
    if SIMULATE:
        began = time.perf_counter()
        work()
        return (time.perf_counter() - began) * 1e6
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    if queued:
        torch.cuda._sleep(HEAD_START_CYCLES)
    first.record()
    work()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) * 1e3


def medians_us(works: dict[str, Work], repeats: int | None = None, queued: bool = True) -> dict[str, float]:
    """Median microseconds of each; they take turns. See `once_us`."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range((repeats or SIZES.repeats) + (0 if SIMULATE else 2)):
        for name, work in works.items():
            times[name].append(once_us(work, queued))
    return {name: statistics.median(values if SIMULATE else values[2:]) for name, values in times.items()}


def captured(work: Work) -> Work:
    """Return a replay of `work` as a CUDA graph, warmed up; simulated: work itself."""
    if SIMULATE:
        return work
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
        work()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    graph.replay()
    torch.cuda.synchronize()
    return graph.replay


def relative(result: Tensor, expected: Tensor) -> float:
    """||result - expected|| / ||expected||."""
    return float((result.double() - expected.double()).norm() / expected.double().norm())
