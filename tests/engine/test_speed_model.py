"""The forecast follows bytes and rates, never gets slower with more, and names what holds it back."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.checkpoint.release_shapes import release_config
from mimo_cli.engine.model_sizes import model_sizes
from mimo_cli.engine.placement import Placement, plan_placement
from mimo_cli.engine.speed_model import HIT_RATES, Rates, Span, expected_hits, forecast_speed, visited_experts

GB = 10**9
SIZES = model_sizes(release_config("v2.5"))
SMALL = model_sizes(release_config("v2.5"), None, "int4", "int8")
RATES = Rates(memory_gbps=Span(40.0, 50.0), disk_gbps=Span(2.0, 3.0))


def place(ram_gb: float, sizes: object = SMALL) -> Placement:
    return plan_placement(sizes, int(ram_gb * GB), 32_768)  # type: ignore[arg-type]


@given(st.floats(10, 300), st.floats(0, 100))
def test_more_memory_is_never_slower(ram_gb: float, more_gb: float) -> None:
    small, large = (forecast_speed(place(size), RATES) for size in (ram_gb, ram_gb + more_gb))
    assert large.decode_tps.low >= small.decode_tps.low * (1 - 1e-9)
    assert large.decode_tps.high >= small.decode_tps.high * (1 - 1e-9)
    assert large.prefill_tps.middle >= small.prefill_tps.middle * (1 - 1e-9)
    assert large.disk_bytes_per_token <= small.disk_bytes_per_token + 1


@given(st.sampled_from(["memory_gbps", "disk_gbps", "kernel_share", "gmacs"]), st.floats(1, 10), st.floats(12, 250))
def test_a_faster_machine_is_never_slower(name: str, factor: float, ram_gb: float) -> None:
    span = getattr(RATES, name)
    faster = replace(RATES, **{name: Span(span.low * factor, span.high * factor)})
    before, after = (forecast_speed(place(ram_gb), rates) for rates in (RATES, faster))
    assert after.decode_tps.low >= before.decode_tps.low and after.prefill_tps.high >= before.prefill_tps.high


@given(st.floats(10, 300))
def test_a_range_has_its_ends_in_order(ram_gb: float) -> None:
    speed = forecast_speed(place(ram_gb), RATES)
    for span in (speed.decode_tps, speed.prefill_tps, speed.hit_rate):
        assert 0 <= span.low <= span.high * (1 + 1e-9)


def test_all_in_memory_is_bytes_over_bandwidth() -> None:
    rates = Rates(Span(50.0, 50.0), Span(1.0, 1.0), kernel_share=Span(1.0, 1.0), layer_s=Span(0.0, 0.0))
    speed = forecast_speed(plan_placement(SMALL, 250 * GB, 1024), rates)
    token_bytes = SMALL.token_dense_bytes + 376 * SMALL.record_bytes
    assert speed.decode_tps.low == pytest.approx(speed.decode_tps.high) == pytest.approx(50e9 / token_bytes, rel=0.01)
    assert speed.disk_bytes_per_token == 0 and speed.decode_limit == "memory"


def test_a_slow_disk_is_what_holds_a_small_memory_back() -> None:
    speed = forecast_speed(place(20), replace(RATES, disk_gbps=Span(0.5, 0.6)))
    assert speed.decode_limit == "disk" and speed.disk_bytes_per_token > 2e9


def test_hit_rates_are_those_of_the_table() -> None:
    placement = place(0.125 * SMALL.num_experts * SMALL.record_bytes / GB + place(100).budget.fixed_bytes / GB)
    hits = expected_hits(placement)
    assert (hits.low, hits.high) == pytest.approx((0.60, 0.71), abs=0.005)
    assert all(low <= high for _, low, high in HIT_RATES)


def test_below_one_token_the_worst_case_finds_nothing() -> None:
    placement = place(place(100).budget.fixed_bytes / GB + 2)
    assert placement.budget.is_below_cycle and expected_hits(placement).low == 0


def test_known_hits_replace_the_expected_ones() -> None:
    speed = forecast_speed(place(30), RATES, Span(1.0, 1.0))
    assert speed.disk_bytes_per_token == 0


def test_a_long_prompt_visits_nearly_every_expert_once() -> None:
    assert visited_experts(SIZES, 1) == pytest.approx(376)
    assert visited_experts(SIZES, 2048) == pytest.approx(SIZES.num_experts, rel=1e-6)
