"""Who computes a miss follows from measured times alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.offload.gpu_costs import MissCosts

times = st.floats(1e-5, 1.0)


def seconds(costs: MissCosts, rows: list[int], copied: int) -> float:
    left = sum(costs.cpu_s + count * costs.cpu_row_s for count in rows[copied:])
    return max(copied * costs.copy_s, left)


@given(times, times, times, st.lists(st.integers(1, 50), max_size=12), st.integers(0, 12))
def test_no_other_share_is_done_sooner(copy: float, cpu: float, row: float, rows: list[int], most: int) -> None:
    costs, rows = MissCosts(copy, cpu, row), sorted(rows, reverse=True)
    chosen = costs.copies(rows, most)
    assert 0 <= chosen <= min(most, len(rows))
    best = min(seconds(costs, rows, number) for number in range(min(most, len(rows)) + 1))
    assert seconds(costs, rows, chosen) == pytest.approx(best)


@pytest.mark.parametrize(("copy", "cpu", "expected"), [(1.0, 1.0, 4), (3.0, 1.0, 2), (1.0, 3.0, 6), (100.0, 1.0, 0)])
def test_shares_are_those_of_the_rates(copy: float, cpu: float, expected: int) -> None:
    assert MissCosts(copy, cpu).copies([1] * 8) == expected


@given(times, times, times, st.integers(1, 16))
def test_streaming_begins_at_one_length_and_stays(copy: float, cpu: float, row: float, most: int) -> None:
    costs = MissCosts(copy, cpu, row)
    first = costs.stream_tokens(256, 8, most)
    if first is None:
        return
    for tokens in (first, 4 * first, 64 * first):
        used = 256 * (1 - (1 - 8 / 256) ** tokens)
        assert costs.is_stream_faster([max(1, round(tokens * 8 / used))] * round(used), most)


def test_prompts_are_streamed_from_where_the_processor_becomes_slower() -> None:
    # 14 MB over 50 GB/s against 100 GB/s from memory and 0.3 ms per further row: layers of 256 experts.
    costs = MissCosts(0.3e-3, 0.15e-3, 0.3e-3)
    first = costs.stream_tokens(256, 8, 16)
    assert first is not None and 1 < first < 64
    slow_bus = MissCosts(3e-3, 0.15e-3, 0.3e-3)
    assert (slow_bus.stream_tokens(256, 8, 16) or 1 << 30) > first
    assert MissCosts(1.0, 1e-9).stream_tokens(256, 8, 16) is None


def test_times_follow_what_is_seen_step_by_step() -> None:
    costs = MissCosts(1.0, 1e-3, 1e-4)
    for _ in range(200):
        costs.note_cpu(4 * 3e-3 + 4 * 3e-4, 4, 4)
    assert costs.cpu_s == pytest.approx(3e-3, rel=0.05) and costs.cpu_row_s == pytest.approx(3e-4, rel=0.05)
    before = costs.cpu_s
    costs.note_cpu(0.0, 4, 4)
    assert costs.cpu_s == before
    costs.note_cpu(1e3, 1, 1)  # one that was interrupted says little
    assert costs.cpu_s < 2 * before
