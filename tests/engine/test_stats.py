"""Counters: rates from counts and seconds, and nothing where nothing was measured."""

import pytest

from mimo_cli.engine.stats import ExpertTraffic, GenerationStats


def test_traffic_adds_and_subtracts() -> None:
    later, earlier = ExpertTraffic(10, 4, 400, 2.5, 1.0), ExpertTraffic(7, 1, 100, 0.5, 0.25)
    assert later - earlier == ExpertTraffic(3, 3, 300, 2.0, 0.75)
    assert later - earlier + earlier == later


def test_the_hit_rate_is_a_share_and_none_without_experts() -> None:
    assert ExpertTraffic(3, 1).hit_rate == 0.75
    assert ExpertTraffic().hit_rate is None


def test_rates_leave_out_what_was_cached_and_the_first_token() -> None:
    stats = GenerationStats(
        prompt_tokens=100,
        cached_tokens=60,
        prefill_s=2.0,
        generated_tokens=11,
        decode_s=5.0,
        decode_experts=ExpertTraffic(0, 5, 1000),
    )
    assert stats.prefill_tps == pytest.approx(20)
    assert stats.decode_tps == pytest.approx(2)
    assert stats.bytes_per_token == pytest.approx(100)


def test_rates_are_zero_before_anything_was_measured() -> None:
    stats = GenerationStats()
    assert (stats.prefill_tps, stats.decode_tps, stats.bytes_per_token) == (0, 0, 0)
    assert GenerationStats(generated_tokens=1, decode_s=1.0).decode_tps == 0
