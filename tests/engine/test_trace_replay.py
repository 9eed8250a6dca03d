"""Replays count as the run time does, and nothing beats the optimum."""

from functools import cache
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.synthetic_traces import KINDS, synthetic_trace
from mimo_cli.engine.routing_trace import RoutingTrace, TracedPass
from mimo_cli.engine.trace_replay import replay, replay_lru, replay_optimum, replay_ours
from tests.support.kernels import needs_kernels

LAYERS, EXPERTS = 2, 6


@st.composite
def traces(draw: st.DrawFn, with_prompts: bool = False) -> RoutingTrace:
    """Traces of up to 30 passes of two layers of six experts, two of them active."""
    chosen = st.lists(st.integers(0, EXPERTS - 1), min_size=2, max_size=2, unique=True).map(tuple)
    token = st.tuples(chosen, chosen).map(lambda rows: TracedPass(1, rows))
    several = st.lists(st.integers(0, EXPERTS - 1), min_size=1, max_size=6, unique=True).map(lambda i: tuple(sorted(i)))
    prompt = st.tuples(several, several).map(
        lambda rows: TracedPass(4, rows, tuple(tuple([1] * len(row)) for row in rows))
    )
    passes = draw(st.lists(token | prompt if with_prompts else token, min_size=1, max_size=30))
    return RoutingTrace("drawn", (1, 2), EXPERTS, 2, tuple(passes))


@given(traces(with_prompts=True), st.integers(2, 12))
@settings(max_examples=60)
def test_no_policy_beats_the_optimum(trace: RoutingTrace, slots: int) -> None:
    row = replay(trace, slots)
    assert row.lru.asked == row.ours.asked == row.optimum.asked
    assert row.optimum.hits >= row.lru.hits
    assert row.optimum.hits >= row.ours.hits


def best_by_trying(trace: RoutingTrace, slots: int) -> int:
    """The most hits that any choice of victims gives, by trying all of them."""
    groups = [
        frozenset((layer, expert) for expert in row)
        for one in trace.passes
        for layer, row in zip(trace.layers, one.experts, strict=True)
    ]

    @cache
    def best(at: int, resident: frozenset[tuple[int, int]]) -> int:
        if at == len(groups):
            return 0
        asked = groups[at]
        others = sorted(resident - asked)
        room = slots - len(asked)
        if len(others) <= room:
            return len(asked & resident) + best(at + 1, resident | asked)
        kept = {frozenset(k for k, stays in zip(others, mask, strict=True) if stays)
                for mask in product((0, 1), repeat=len(others)) if sum(mask) == room}  # fmt: skip
        return len(asked & resident) + max(best(at + 1, asked | keep) for keep in kept)

    return best(0, frozenset())


@given(traces(), st.integers(2, 5))
@settings(max_examples=40)
def test_the_optimum_is_what_trying_everything_finds(trace: RoutingTrace, slots: int) -> None:
    short = RoutingTrace(trace.model, trace.layers, trace.experts, trace.active, trace.passes[:6])
    assert replay_optimum(short, slots).hits == best_by_trying(short, slots)


def test_lru_is_counted_by_hand() -> None:
    passes = tuple(TracedPass(1, (row,)) for row in [(0, 1), (1, 2), (0, 1), (3, 4), (0, 1)])
    trace = RoutingTrace("hand", (1,), 5, 2, passes)
    assert replay_lru(trace, 3).hits == 1 + 2 + 0 + 1  # 1; 0 and 1; none; of 0 and 1 only the later one
    assert replay_lru(trace, 5).hits == replay_optimum(trace, 5).hits == 1 + 2 + 0 + 2


def test_warm_passes_fill_but_do_not_count() -> None:
    trace = RoutingTrace("hand", (1,), 4, 2, tuple(TracedPass(1, ((0, 1),)) for _ in range(5)))
    for policy in (replay_lru, replay_ours, replay_optimum):
        assert policy(trace, 2, 1).decode_rate == 1.0 and policy(trace, 2).decode_hits == 8


@given(traces(with_prompts=True))
@settings(max_examples=20)
def test_everything_is_found_again_where_everything_fits(trace: RoutingTrace) -> None:
    row = replay(trace, LAYERS * EXPERTS)
    first = {(layer, e) for one in trace.passes for layer, r in zip(trace.layers, one.experts, strict=True) for e in r}
    assert row.lru.hits == row.ours.hits == row.optimum.hits == row.lru.asked - len(first)


def test_more_slots_never_find_less_under_lru_and_the_optimum() -> None:
    trace = synthetic_trace("mixed", tokens=60, layers=3, experts=32, active=4)
    for policy in (replay_lru, replay_optimum):
        found = [policy(trace, slots).hits for slots in (12, 16, 24, 48, 96)]
        assert found == sorted(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.125, 0.25])
def test_our_policy_finds_more_than_lru(kind: str, share: float) -> None:
    trace = synthetic_trace(kind, tokens=300, layers=4)
    row = replay(trace, round(share * 4 * 256), warm_passes=50)
    # Where only recency counts, LRU is already the best that needs no knowledge of the future: half a point of slack.
    assert row.ours.decode_rate >= row.lru.decode_rate - (0.005 if kind == "recent" else 0.0)


@needs_kernels
def test_a_replay_counts_what_the_run_time_counted() -> None:
    from tests.support.offload_runs import run_store

    trace = synthetic_trace("mixed", tokens=40, layers=2, experts=16, active=3)
    prompt = TracedPass(5, ((0, 2, 3, 9, 11), (1, 2, 3)), ((3, 3, 3, 3, 3), (5, 5, 5)))
    trace = RoutingTrace(trace.model, (0, 1), 16, 3, (prompt, *trace.passes))
    for slots in (6, 10, 20):
        counters = run_store(trace, slots)
        replayed = replay_ours(trace, slots)
        assert (counters.hits, counters.hits + counters.misses) == (replayed.hits, replayed.asked)
    assert torch.is_grad_enabled()
