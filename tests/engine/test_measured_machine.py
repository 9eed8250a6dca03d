"""A forecast from measured times: layers as their kind, misses as they cost, other formats and disks in proportion."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mimo_cli.checkpoint.release_shapes import release_config, slice_config
from mimo_cli.engine import measured_machine
from mimo_cli.engine.forecast import LayerTimes
from mimo_cli.engine.measured_machine import SPREAD, MeasuredMachine, complete, measure_machine
from mimo_cli.engine.model_sizes import ModelSizes, model_sizes
from mimo_cli.engine.placement import plan_placement
from mimo_cli.engine.speed_model import Rates, Span
from mimo_cli.errors import MimoError
from mimo_cli.offload.reading import Reading
from tests.support.kernels import needs_kernels
from tests.support.tiny_shape import tiny_compute, tiny_release

GB = 10**9
RELEASE = release_config("v2.5")
SLICE = slice_config(RELEASE, 3)
RATES = Rates(Span(40, 50), Span(1.0, 1.0))


def sizes(experts: str = "int4", dense: str = "int8") -> ModelSizes:
    return model_sizes(RELEASE, None, experts, dense)  # type: ignore[arg-type]


def machine(step_ms: float = 10.0, alone_ms: float = 4.0) -> MeasuredMachine:
    """4 ms for a layer of experts, 6 ms for the dense one, 20 ms for the rest; each miss 10 ms more.

    alone_ms: a layer of experts that is a call of its own, as all are where some experts are on disk.
    """
    return MeasuredMachine(
        config=SLICE,
        sizes=model_sizes(SLICE, None, "int4", "int8"),
        decode=LayerTimes((0.006, 0.004, 0.004), 0.020),
        prefill=LayerTimes((1.0, 2.0, 2.0), 0.0),
        prefill_tokens=256,
        step_s=tuple((alone_ms + step_ms * misses) / 1000 for misses in range(9)),
        disk_gbps=1.0,
        disk_ceiling_gbps=1.1,
        mode="direct",
    )


def middle(speed_span: Span) -> float:
    return speed_span.low / (1 - SPREAD)


def test_all_in_memory_is_the_sum_of_the_layers() -> None:
    placement = plan_placement(sizes(), 300 * GB, 1024)
    speed = machine().forecast(placement, RATES, Span(1.0, 1.0))
    assert 1 / middle(speed.decode_tps) == pytest.approx(0.006 + 47 * 0.004 + 0.020)
    assert speed.decode_limit == "memory"


def test_misses_cost_what_they_cost_here() -> None:
    placement = plan_placement(sizes(), 30 * GB, 1024)
    speed = machine().forecast(placement, RATES, Span(0.5, 0.5))
    # Each of 8 experts is missing with one half, independently: 4 on average, at 10 ms, in each of 47 layers.
    assert 1 / middle(speed.decode_tps) == pytest.approx(0.214 + 47 * 4 * 0.010)
    assert speed.decode_limit == "disk"


def test_layers_that_are_calls_of_their_own_cost_more_wherever_an_expert_has_no_slot() -> None:
    slow, plain = machine(alone_ms=5.0), machine()
    everything = plan_placement(sizes(), 300 * GB, 1024)
    assert slow.forecast(everything, RATES, Span(1.0, 1.0)) == plain.forecast(everything, RATES, Span(1.0, 1.0))
    some = plan_placement(sizes(), 30 * GB, 1024)
    for hits in (Span(0.5, 0.5), Span(1.0, 1.0)):  # also where by chance all of them are found
        tokens_s = [1 / middle(one.forecast(some, RATES, hits).decode_tps) for one in (slow, plain)]
        assert tokens_s[0] - tokens_s[1] == pytest.approx(47 * 0.001)


def test_a_faster_disk_and_smaller_experts_shorten_the_misses() -> None:
    placement = plan_placement(sizes(), 30 * GB, 1024)
    fast = machine().forecast(placement, replace(RATES, disk_gbps=Span(4.0, 4.0)), Span(0.5, 0.5))
    assert 1 / middle(fast.decode_tps) == pytest.approx(0.214 + 47 * 4 * 0.010 / 4)
    larger = machine().forecast(plan_placement(sizes("fp8", "keep"), 30 * GB, 1024), RATES, Span(0.5, 0.5))
    assert larger.decode_tps.high < machine().forecast(placement, RATES, Span(0.5, 0.5)).decode_tps.low


def test_more_memory_is_never_slower() -> None:
    speeds = [machine().forecast(plan_placement(sizes(), ram * GB, 1024), RATES) for ram in (12, 16, 24, 48, 96, 200)]
    for before, after in zip(speeds, speeds[1:], strict=False):  # noqa: RUF007
        assert after.decode_tps.low >= before.decode_tps.low and after.decode_tps.high >= before.decode_tps.high
        assert after.prefill_tps.high >= before.prefill_tps.high


def test_reading_a_prompt_is_bound_by_the_slower_of_disk_and_processor() -> None:
    slow_disk = replace(RATES, disk_gbps=Span(0.1, 0.1))  # ten times slower than the one that was measured
    assert machine().forecast(plan_placement(sizes(), 12 * GB, 2048), slow_disk).prefill_limit == "disk"
    everything = machine().forecast(plan_placement(sizes(), 300 * GB, 2048), RATES)
    chunk_s = (1.0 + 47 * 2.0) * 2048 / 256
    assert middle(everything.prefill_tps) == pytest.approx(2048 / chunk_s) and everything.prefill_limit == "processor"


def test_what_was_rarely_seen_is_on_the_line_through_the_rest() -> None:
    samples = {misses: [0.001 + 0.002 * misses] * 5 for misses in (1, 2, 3, 5)} | {8: [99.0]}
    assert complete(samples, 8) == pytest.approx([0.003, *(0.001 + 0.002 * misses for misses in range(1, 9))])
    with pytest.raises(MimoError, match="as many experts"):
        complete({3: [0.1, 0.1]}, 8)


@needs_kernels
def test_a_machine_is_measured_and_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured_machine, "STEPS", 24)
    caches = tmp_path / "caches"
    found = measure_machine(tiny_release(), "int4", "int8", tiny_compute(), caches, Reading(remember=caches))
    assert len(found.step_s) == tiny_release().num_experts_per_tok + 1 and min(found.step_s) > 0
    assert len(found.decode.layer_s) == 3 and min(found.decode.layer_s) > 0
    assert found.disk_gbps > 0 and found.disk_ceiling_gbps > 0
    assert list(caches.iterdir()) == []
    placement = plan_placement(model_sizes(tiny_release(), None, "int4", "int8", torch.float32), GB, 64)
    speed = found.forecast(placement, replace(RATES, disk_gbps=Span(found.disk_gbps, found.disk_gbps)))
    assert 0 < speed.decode_tps.low < speed.decode_tps.high
