"""Measuring prefill and decode at chosen places of a context. Measures and returns rows; never prints.

One row is one pair (depth, prompt): `depth` tokens stand in the KV cache, `prompt` more are read against the clock,
then `decode_tokens` are decoded greedily, ignoring end-of-text. Each repeat starts from the same snapshot, taken
outside the clock. It is the code that chat runs: `generate` on a Sequence.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Literal, TypeAlias

from mimo_cli.engine.engine import Engine
from mimo_cli.engine.generate import generate
from mimo_cli.engine.memory import reset_peak_rss
from mimo_cli.engine.sampling import SamplingParams
from mimo_cli.engine.sequence import Sequence
from mimo_cli.engine.stats import ExpertTraffic, GenerationStats
from mimo_cli.engine.step_meter import StepMeter, StepTimes
from mimo_cli.errors import UsageError
from mimo_cli.media.prompt import Prompt

CacheState: TypeAlias = Literal["cold", "warm"]


def bench_text() -> str:
    """Return the prose that ships with the package for this purpose (143 kB, public domain)."""
    return resources.files("mimo_cli.engine").joinpath("data", "bench_text.txt").read_text("utf-8")


@dataclass(frozen=True)
class BenchSpec:
    """What to measure. `prompt_ids` supplies the tokens of every depth and prompt, from its beginning.

    cache_state "cold" drops the experts held in memory, and what the system will give up of the shards, before each
    repeat; "warm" does one unmeasured run first. `time_limit_s` after the start a row is measured once and at once, so
    that a slow machine ends in time; its `repeats` tell. `decode_ids` are decoded instead of the model's own choices:
    random weights soon repeat themselves, and would then read the same few experts for ever. Every run takes the next
    ones: a cache must not know them from the run before.
    """

    prompt_ids: tuple[int, ...]
    prompt_tokens: tuple[int, ...] = (512,)
    decode_tokens: int = 128
    depths: tuple[int, ...] = (0,)
    repeats: int = 3
    cache_state: CacheState = "warm"
    time_limit_s: float | None = None
    decode_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        sizes = (*self.prompt_tokens, *self.depths, self.decode_tokens)
        if not self.prompt_tokens or not self.depths or min(sizes) < 0 or self.repeats < 1:
            raise UsageError("a benchmark needs prompt sizes and depths of 0 or more tokens, and at least one repeat")
        if max(self.prompt_tokens) + max(self.depths) + self.decode_tokens == 0:
            raise UsageError("a benchmark of no tokens measures nothing")
        if self.decode_ids is not None and len(self.decode_ids) <= self.decode_tokens:
            raise UsageError(f"{self.decode_tokens} tokens to decode need one more to begin with")
        if self.context_tokens > len(self.prompt_ids):
            raise UsageError(
                f"the prompt text has {len(self.prompt_ids):,} tokens, the largest measurement reads "
                f"{self.context_tokens:,}",
                hint="name a longer text, or measure smaller prompts and depths",
            )

    @property
    def context_tokens(self) -> int:
        """Tokens of the longest prompt, depth included."""
        return max(max(self.depths) + max(self.prompt_tokens), 1)


@dataclass(frozen=True)
class Sample:
    """One quantity over the repeats: median, smallest, largest, standard deviation (0 for one repeat)."""

    median: float
    low: float
    high: float
    deviation: float

    @classmethod
    def of(cls, values: list[float]) -> "Sample | None":
        """Summarise the repeats; None for no values."""
        if not values:
            return None
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        return cls(statistics.median(values), min(values), max(values), deviation)


@dataclass(frozen=True)
class BenchRow:
    """What one (depth, prompt) pair gave. Rates are tokens per second; None where nothing of the kind was measured.

    hit_rate and bytes_per_token are of the decoded tokens' experts; kv_bytes is the KV cache at the end; peak_rss_bytes
    the process's peak during the repeats (of its whole life where the system cannot reset it). Of the time of a decoded
    token, non_kernel_share is spent outside the native kernels, attention_share of it in attention computed by torch;
    weight_bytes_per_token are read by the kernels (None and 0 without any).
    """

    context_tokens: int
    depth_tokens: int
    prompt_tokens: int
    decode_tokens: int
    repeats: int
    cache_state: CacheState
    prefill_tps: Sample | None
    decode_tps: Sample | None
    ttft_ms: Sample | None
    hit_rate: float | None
    bytes_per_token: float
    kv_bytes: int
    peak_rss_bytes: int
    non_kernel_share: float | None
    attention_share: float | None
    weight_bytes_per_token: float


@dataclass(frozen=True)
class Run:
    """One repeat: what it cost, and where the time of reading and of decoding went."""

    stats: GenerationStats
    prefill: StepTimes
    decode: StepTimes


@dataclass(frozen=True)
class Measured:
    """A row and the repeats it sums up."""

    row: BenchRow
    runs: tuple[Run, ...]


def run_bench(engine: Engine, spec: BenchSpec, on_row: Callable[[BenchRow], None] | None = None) -> list[BenchRow]:
    """Measure every pair of the spec, shallow ones first; `on_row` hears of each as it is done.

    Raises what Engine.start_sequence and Sequence.prefill raise.
    """
    rows = []
    with StepMeter(engine) as meter:
        for measured in measure_rows(engine, spec, meter):
            rows.append(measured.row)
            if on_row:
                on_row(measured.row)
    return rows


def measure_rows(
    engine: Engine, spec: BenchSpec, meter: StepMeter, before_run: Callable[[], object] | None = None
) -> Iterator[Measured]:
    """Yield every row as it is done; `meter` is attached to the engine. `before_run` is called before every repeat."""
    sequence = engine.start_sequence(spec.context_tokens + spec.decode_tokens)
    deadline = time.monotonic() + (math.inf if spec.time_limit_s is None else spec.time_limit_s)
    number = 0
    for depth in sorted(set(spec.depths)):
        if depth:
            sequence.prefill(Prompt(spec.prompt_ids[:depth]))
        base = sequence.snapshot()
        for prompt_tokens in sorted(set(spec.prompt_tokens)):
            runs: list[Run] = []
            if spec.cache_state == "warm" and time.monotonic() < deadline:
                _run(sequence, spec, depth + prompt_tokens, meter, number)
                number += 1
            reset_peak_rss()
            while len(runs) < spec.repeats and not (runs and time.monotonic() > deadline):
                sequence.restore(base)
                if spec.cache_state == "cold":
                    engine.drop_experts()
                if before_run:
                    before_run()
                runs.append(_run(sequence, spec, depth + prompt_tokens, meter, number))
                number += 1
            sequence.restore(base)
            yield Measured(_row(spec, depth, prompt_tokens, runs), tuple(runs))


def _run(sequence: Sequence, spec: BenchSpec, context_tokens: int, meter: StepMeter, number: int) -> Run:
    # One token comes out of the prompt itself; `decode_tokens` more are decoded.
    params = SamplingParams(temperature=0, max_tokens=spec.decode_tokens + 1)
    ids, first = spec.decode_ids, number * (spec.decode_tokens + 1)
    force = (lambda tokens: (ids[(first + len(tokens)) % len(ids)],)) if ids else None
    generation = generate(sequence, Prompt(spec.prompt_ids[: max(context_tokens, 1)]), params, force=force)
    before = meter.read()
    next(generation)
    between = meter.read()
    for _ in generation:
        pass
    return Run(generation.stats, between - before, meter.read() - between)


def _row(spec: BenchSpec, depth: int, prompt_tokens: int, runs: list[Run]) -> BenchRow:
    stats = [run.stats for run in runs]
    traffic = sum((run.decode_experts for run in stats), ExpertTraffic())
    decoded = spec.decode_tokens * len(runs)
    decode_s = sum(run.decode_s for run in stats)
    kernels_s = sum(run.decode.kernels.seconds for run in runs)
    weight_bytes = sum(run.decode.kernels.weight_bytes for run in runs)
    attention_s = sum(run.decode.attention_s for run in runs)
    has_kernels = bool(decode_s and kernels_s)
    return BenchRow(
        context_tokens=depth + prompt_tokens,
        depth_tokens=depth,
        prompt_tokens=prompt_tokens,
        decode_tokens=spec.decode_tokens,
        repeats=len(runs),
        cache_state=spec.cache_state,
        prefill_tps=Sample.of([run.prefill_tps for run in stats if prompt_tokens]),
        decode_tps=Sample.of([run.decode_tps for run in stats if spec.decode_tokens]),
        ttft_ms=Sample.of([run.first_token_s * 1000 for run in stats if prompt_tokens]),
        hit_rate=traffic.hit_rate,
        bytes_per_token=traffic.bytes_read / decoded if decoded else 0.0,
        kv_bytes=stats[-1].kv_bytes,
        peak_rss_bytes=max(run.peak_rss_bytes for run in stats),
        non_kernel_share=1 - kernels_s / decode_s if has_kernels else None,
        attention_share=attention_s / decode_s if has_kernels else None,
        weight_bytes_per_token=weight_bytes / decoded if decoded else 0.0,
    )
