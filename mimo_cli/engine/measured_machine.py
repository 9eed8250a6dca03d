"""`mimo plan --measure`: what experts of the real size take on this machine, from memory and from disk.

    a slice of three layers with 32 experts in each, in memory -> time of every kind of layer, reading and decoding
    the same engine, memory for half of the experts            -> time of a layer of experts by the number of misses

From these a forecast of any number of layers and any hit rate: each layer takes what its kind took, and experts that
are missing cost what they cost here, reading and computing side by side as they really ran. A minute or two and a
gigabyte of disk, which is given back.
"""

import random
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import comb
from pathlib import Path

import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.release_shapes import slice_config
from mimo_cli.engine.bench import Run, measure_rows
from mimo_cli.engine.compute import Compute
from mimo_cli.engine.disk_experts import disk_experts, expert_files
from mimo_cli.engine.disk_probe import probe_reads
from mimo_cli.engine.engine import Engine
from mimo_cli.engine.forced_routing import forced_routing
from mimo_cli.engine.forecast import LayerTimes, extrapolate
from mimo_cli.engine.generate import generate
from mimo_cli.engine.model_sizes import ModelSizes, model_sizes
from mimo_cli.engine.placement import Placement
from mimo_cli.engine.random_weights import RandomReader, RandomRecords
from mimo_cli.engine.routing_trace import RoutingTrace, TracedPass
from mimo_cli.engine.sampling import SamplingParams
from mimo_cli.engine.shape_bench import mean_pass
from mimo_cli.engine.slice import RecordFormat, ShapeSpec, build_slice, require_room
from mimo_cli.engine.speed_model import Rates, Span, Speed, expected_hits, forecast_speed, prompt_reads
from mimo_cli.engine.step_meter import StepMeter
from mimo_cli.errors import MimoError
from mimo_cli.media.prompt import Prompt
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.offload.reading import Reading, open_source
from mimo_cli.quant.kernels import missing_reason
from mimo_cli.quant.random_streams import RandomStreams
from mimo_cli.store.plan import DenseFormat

EXPERTS = 32
"""Of each layer that is measured: with 16 of 32 in memory a token misses anything from none to all."""

PROMPT_TOKENS, DECODE_TOKENS, RUNS = 256, 10, 5
"""256 tokens to 8 of 32 experts are as many for each as 2048 tokens to 8 of 256."""

STEPS = 96
SPREAD = 0.12
"""How far a forecast from measured times may be off: what a repetition differs by on a busy machine."""


@dataclass(frozen=True)
class MeasuredMachine:
    """Times of one machine and one pair of formats, in seconds; rates in GB/s.

    decode, prefill     a pass of the slice `config`, all experts in memory
    step_s              a whole layer with experts, for one token, by the number of its experts that were missing
    """

    config: ModelConfig
    sizes: ModelSizes
    decode: LayerTimes
    prefill: LayerTimes
    prefill_tokens: int
    step_s: tuple[float, ...]
    disk_gbps: float
    disk_ceiling_gbps: float
    mode: str

    def forecast(self, placement: Placement, rates: Rates, hits: Span | None = None) -> Speed:
        """Forecast a placement from what was measured; another disk or format scales what it has to do with."""
        hits = hits or expected_hits(placement)
        plain = forecast_speed(placement, rates, hits)
        slow, fast = (self._token_s(placement, rates, rate) for rate in (hits.low, hits.high))
        tokens = placement.context_tokens
        compute_s, io_s = self._prefill_s(placement, rates)
        miss_s = self._token_s(placement, rates, (hits.low + hits.high) / 2) - self._token_s(placement, rates, 1.0)
        is_disk = miss_s > self._token_s(placement, rates, 1.0)
        return replace(
            plain,
            decode_tps=Span((1 - SPREAD) / slow, (1 + SPREAD) / fast),
            prefill_tps=Span((1 - SPREAD) * tokens / (compute_s + io_s), (1 + SPREAD) * tokens / max(compute_s, io_s)),
            decode_limit="disk" if is_disk else "memory",
            prefill_limit="disk" if io_s > compute_s else "processor",
        )

    def _token_s(self, placement: Placement, rates: Rates, hit_rate: float) -> float:
        release = placement.sizes.config
        resident_s = extrapolate(self.config, release, self.decode)
        if resident_s is None:
            raise MimoError("the model has a kind of layer that was not measured")
        base_s = resident_s * self._compute_factor(placement)
        if placement.resident_share >= 1.0:
            return base_s
        # With a slot for every expert the layers are one native call; otherwise each is some calls, which cost, too.
        alone_s = max(0.0, self.step_s[0] - statistics.fmean(self.decode.layer_s[i] for i in self.config.moe_layers))
        active = release.num_experts_per_tok
        late_s = 0.0
        for misses in range(1, active + 1):
            chance = comb(active, misses) * (1 - hit_rate) ** misses * hit_rate ** (active - misses)
            late_s += chance * max(0.0, self.step_s[misses] - self.step_s[0])
        return base_s + len(release.moe_layers) * (alone_s + late_s * self._disk_factor(placement, rates))

    def _prefill_s(self, placement: Placement, rates: Rates) -> tuple[float, float]:
        """Return the seconds of computing and of reading for a prompt as long as the context."""
        sizes = placement.sizes
        chunk_s = extrapolate(self.config, sizes.config, self.prefill) or 0.0
        io_s = (
            prompt_reads(placement)
            * self.sizes.expert_stored_bytes
            / (self.disk_gbps * 1e9)
            * self._disk_factor(placement, rates)
        )
        return chunk_s * placement.context_tokens / self.prefill_tokens, io_s

    def _compute_factor(self, placement: Placement) -> float:
        """Weights of the wanted formats over those measured, as far as a token reads them."""
        wanted, own = placement.sizes, model_sizes_like(self.sizes, placement.sizes.config)
        return _token_bytes(wanted) / _token_bytes(own)

    def _disk_factor(self, placement: Placement, rates: Rates) -> float:
        faster = rates.disk_gbps.middle / self.disk_gbps
        return placement.sizes.expert_stored_bytes / self.sizes.expert_stored_bytes / faster


def model_sizes_like(sizes: ModelSizes, config: ModelConfig) -> ModelSizes:
    """Return the sizes of a model in the formats that others have."""
    return model_sizes(config, None, sizes.experts_format, sizes.dense_format, sizes.dtype)  # type: ignore[arg-type]


def measure_machine(
    release: ModelConfig,
    experts: RecordFormat,
    dense: DenseFormat,
    compute: Compute,
    folder: Path,
    reading: Reading,
    on_stage: Callable[[str], None] | None = None,
) -> MeasuredMachine:
    """Measure; files go below `folder` and are deleted.

    Raises MimoError without native kernels or where the disk refuses, CapacityError where memory or disk is short.
    """
    if compute.kernels is None:
        raise MimoError(f"--measure runs the native kernels, and there are none: {missing_reason()}")
    tell = on_stage or (lambda stage: None)
    config = _small(release)
    sizes = model_sizes(config, None, experts, dense, compute.dtype)
    streams = RandomStreams()
    reader, records = RandomReader(config, dense, "uniform", streams), RandomRecords(config, experts, streams)
    spec = ShapeSpec(
        release,
        config,
        experts,
        dense,
        prompt_tokens=(PROMPT_TOKENS,),
        decode_tokens=DECODE_TOKENS,
        repeats=RUNS,
        probe_bytes=0,
    )
    require_room(spec, reader, records, compute)
    tell("writing experts to measure the disk")
    with disk_experts(folder, config, records) as stored:
        source = open_source(stored, reading, config.moe_layers, config.n_routed_experts)  # finds out how to read
        source.close()
        own = replace(reading, mode=source.mode, remember=None)  # these experts are popular nowhere else
        tell("measuring layers in memory")
        with build_slice(spec, reader, stored, compute, reading=own) as engine:
            return _measured(engine, spec, sizes, expert_files(stored), tell)


def _measured(
    engine: Engine, spec: ShapeSpec, sizes: ModelSizes, files: list[Path], tell: Callable[[str], None]
) -> MeasuredMachine:
    config, store = engine.config, engine.experts
    assert isinstance(store, ExpertStore)
    with StepMeter(engine) as meter:
        (measured,) = list(measure_rows(engine, spec.bench, meter))
    # The median run: other programs disturb single ones, and a plan is for a machine that is free.
    decoded, read = (sorted(measured.runs, key=key)[RUNS // 2] for key in (_decode_s, _prefill_s))
    decode = mean_pass([decoded.decode.layer_s], [decoded.stats.decode_s], DECODE_TOKENS)
    prefill = mean_pass([read.prefill.layer_s], [read.stats.prefill_s], 1)
    if decode is None or prefill is None:
        raise MimoError("nothing was measured")
    tell("measuring experts from disk")
    store.resize(len(config.moe_layers) * config.n_routed_experts // 2)
    before = store.counters.snapshot()
    step_s = measure_steps(engine, store, STEPS)
    disk_gbps = (store.counters - before).read_gbps or 0.0
    ceiling = probe_reads(files, store.records.record_bytes, 1.0, store.source.threads)
    return MeasuredMachine(
        config=config,
        sizes=sizes,
        decode=decode,
        prefill=prefill,
        prefill_tokens=PROMPT_TOKENS,
        step_s=step_s,
        disk_gbps=disk_gbps,
        disk_ceiling_gbps=ceiling.gbps if ceiling else 0.0,
        mode=store.source.mode,
    )


def measure_steps(engine: Engine, store: ExpertStore, steps: int) -> tuple[float, ...]:
    """Decode so many tokens; returns the seconds of a layer with experts by its number of misses, 0 to A.

    What did not happen often is taken from a line through what did.
    """
    config = engine.config
    ids = torch.randint(config.vocab_size, (steps + 9,), generator=torch.Generator().manual_seed(5)).tolist()
    samples: dict[int, list[float]] = {}
    began: list[tuple[float, int]] = []

    def begin(*_: object) -> None:
        began.append((time.perf_counter(), store.misses))

    def end(*_: object) -> None:
        at, misses = began.pop()
        samples.setdefault(store.misses - misses, []).append(time.perf_counter() - at)

    generation = generate(
        engine.start_sequence(steps + 16),
        Prompt(tuple(ids[:8])),
        SamplingParams(temperature=0, max_tokens=steps + 1),
        force=lambda tokens: (ids[8 + len(tokens)],),
    )
    with forced_routing(engine.decoder, _visits(config, steps)), ExitStack() as hooks:
        for token, _ in enumerate(generation):  # the first one comes out of the prompt
            if token == max(1, steps // 8):  # the slots are full by then
                for layer in (engine.decoder.layers[i] for i in config.moe_layers):
                    hooks.callback(layer.register_forward_pre_hook(begin).remove)
                    hooks.callback(layer.register_forward_hook(end).remove)
    return complete(samples, config.num_experts_per_tok)


def _visits(config: ModelConfig, steps: int) -> RoutingTrace:
    """A routing whose tokens keep none, half, most or all of the experts of the token before, so that few miss, too."""
    draw = random.Random(5)
    experts, active = config.n_routed_experts, config.num_experts_per_tok
    last = [tuple(draw.sample(range(experts), active)) for _ in config.moe_layers]
    passes = []
    for step in range(steps):
        kept = (0, active, active // 2, active - active // 4)[step % 4]
        for place, chosen in enumerate(last):
            stay = draw.sample(chosen, kept)
            others = [expert for expert in range(experts) if expert not in stay]
            last[place] = (*stay, *draw.sample(others, active - kept))
        passes.append(TracedPass(1, tuple(last)))
    return RoutingTrace("made up", tuple(config.moe_layers), experts, active, tuple(passes))


def complete(samples: dict[int, list[float]], active: int, enough: int = 3) -> tuple[float, ...]:
    """Return the median of every number of misses, from a line where there are fewer than `enough` samples.

    Raises MimoError where not even a line can be drawn.
    """
    known = {misses: statistics.median(seconds) for misses, seconds in samples.items() if len(seconds) >= enough}
    known = known if len(known) > 1 else {misses: statistics.median(seconds) for misses, seconds in samples.items()}
    if len(known) < 2:
        raise MimoError("the disk could not be measured: every token missed as many experts")
    slope, start = statistics.linear_regression(list(known), list(known.values()))
    least = min(known.values())
    return tuple(known.get(misses, max(least, start + slope * misses)) for misses in range(active + 1))


def _small(release: ModelConfig) -> ModelConfig:
    """Return three layers of a release, one of each kind, with few experts."""
    layers = min(3, release.num_hidden_layers)
    few = slice_config(release, layers)
    count = min(EXPERTS, release.n_routed_experts)
    return ModelConfig.from_dict({**few.raw, "n_routed_experts": count}, f"{layers} layers, {count} experts")


def _decode_s(run: Run) -> float:
    return run.stats.decode_s


def _prefill_s(run: Run) -> float:
    return run.stats.prefill_s


def _token_bytes(sizes: ModelSizes) -> int:
    return sizes.token_dense_bytes + sizes.experts_per_token * sizes.record_bytes
