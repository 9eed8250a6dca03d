"""Counters: rates that say nothing where nothing happened, and what happened between two moments."""

from mimo_cli.offload.counters import OffloadCounters


def test_rates_are_none_before_anything_happened() -> None:
    assert OffloadCounters().hit_rate is None and OffloadCounters().read_gbps is None


def test_what_happened_between_two_moments_is_their_difference() -> None:
    counters = OffloadCounters(hits=3, misses=1, disk_bytes=10**9, read_s=1.0)
    before = counters.snapshot()
    counters.hits += 6
    counters.misses += 2
    counters.disk_bytes += 4 * 10**9
    counters.read_s += 2.0
    spent = counters - before
    assert (spent.hits, spent.misses, spent.hit_rate, spent.read_gbps) == (6, 2, 0.75, 2.0)
    assert before.hits == 3 and counters.hit_rate == 0.75
