"""The policy: who leaves, who never does, and what is learned from the steps so far."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_cli.offload.policy import SlotPolicy

LAYERS, EXPERTS = (1, 2, 5), 16


def fill(policy: SlotPolicy, keys: list[tuple[int, int]]) -> None:
    for slot, (layer, expert) in enumerate(keys):
        policy.place(slot, layer, expert)


def hit_rate(policy: SlotPolicy, trace: list[list[tuple[int, list[int]]]], slots: int) -> float:
    """Replay steps of (layer, experts) and return the share of experts found."""
    hits = asked = 0
    free = list(range(slots))
    for step, layers in enumerate(trace):
        for layer, experts in layers:
            held = {s for e in experts if (s := policy.slot(layer, e)) is not None}
            hits, asked = hits + len(held), asked + len(experts)
            policy.touch_all(layer, experts, step)
            for expert in experts:
                if policy.slot(layer, expert) is None:
                    slot = free.pop() if free else policy.victim(held)
                    assert slot is not None and slot not in held
                    policy.place(slot, layer, expert)
                    held.add(slot)
    return hits / asked


def zipf_trace(steps: int, seed: int = 1) -> list[list[tuple[int, list[int]]]]:
    draw = np.random.default_rng(seed)
    weights = np.log(1 / np.arange(1, EXPERTS + 1))
    orders = {layer: draw.permutation(EXPERTS) for layer in LAYERS}
    return [
        [(layer, orders[layer][np.argsort(-(weights + draw.gumbel(size=EXPERTS)))[:2]].tolist()) for layer in LAYERS]
        for _ in range(steps)
    ]


def lru_rate(trace: list[list[tuple[int, list[int]]]], slots: int) -> float:
    recent: list[tuple[int, int]] = []
    hits = asked = 0
    for layers in trace:
        for layer, experts in layers:
            for key in [(layer, expert) for expert in experts]:
                asked += 1
                if key in recent:
                    hits += 1
                    recent.remove(key)
                recent = [*recent, key][-slots:]
    return hits / asked


def test_what_was_never_used_leaves_before_what_was_used() -> None:
    policy = SlotPolicy(4, LAYERS, EXPERTS)
    fill(policy, [(1, 0), (1, 1), (2, 0), (2, 1)])
    for step in range(20):
        policy.touch_all(1, [0], step)
        policy.touch_all(2, [1], step)
    policy.touch_all(5, [3], 20)
    assert {policy.victim(), policy.victim()} == {1, 2}


def test_nobody_protected_leaves() -> None:
    policy = SlotPolicy(3, LAYERS, EXPERTS)
    fill(policy, [(1, 0), (1, 1), (2, 0)])
    assert policy.victim({0, 2}) == 1
    assert policy.victim({0, 1, 2}) is None


def test_a_floor_keeps_a_layer_s_last_slots_as_long_as_others_have_more() -> None:
    policy = SlotPolicy(6, LAYERS, EXPERTS, floor=2)
    fill(policy, [(1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (2, 3)])
    policy.touch(5, 0, step=1)
    for _ in range(2):
        slot = policy.victim()
        assert slot is not None and slot >= 2
        policy.remove(slot)
    slot = policy.victim()  # nothing else is left
    assert slot is not None


def test_places_are_told_apart_and_given_up() -> None:
    policy = SlotPolicy(2, LAYERS, EXPERTS)
    policy.place(0, 2, 7)
    assert policy.slot(2, 7) == 0 and policy.holds(0) == (2, 7) and policy.slot(1, 7) is None
    policy.place(0, 5, 7)
    assert policy.slot(2, 7) is None and policy.holds(0) == (5, 7)
    policy.remove(0)
    assert policy.slot(5, 7) is None and policy.holds(0) is None
    policy.remove(0)


def test_popular_experts_are_found_more_often_than_by_recency_alone() -> None:
    trace = zipf_trace(400)
    for slots in (6, 12):
        ours, plain = hit_rate(SlotPolicy(slots, LAYERS, EXPERTS), trace, slots), lru_rate(trace, slots)
        assert ours > plain + 0.02, (slots, ours, plain)


def test_below_one_token_s_experts_there_is_no_cliff() -> None:
    trace = zipf_trace(300)  # six experts a token
    assert lru_rate(trace, 4) < 0.02  # each is pushed out just before it is needed
    assert hit_rate(SlotPolicy(4, LAYERS, EXPERTS), trace, 4) > 0.1


def test_a_prompt_s_shares_count_as_uses_and_do_not_flush_the_popular() -> None:
    policy = SlotPolicy(4, LAYERS, EXPERTS)
    fill(policy, [(1, 0), (1, 1), (1, 2), (1, 3)])
    for step in range(30):
        policy.touch_all(1, [0, 1], step)
    policy.touch_all(1, list(range(16)), 31, [0.9, 0.8, *[0.02] * 14], tokens=64)
    leaving = []
    for _ in range(2):
        slot = policy.victim()
        assert slot is not None
        leaving.append(slot)
        policy.remove(slot)
    assert set(leaving) == {2, 3}


def test_what_another_run_saw_is_begun_with() -> None:
    first = SlotPolicy(4, LAYERS, EXPERTS)
    for step in range(50):
        first.touch_all(2, [3, 9], step)
    second = SlotPolicy(4, LAYERS, EXPERTS)
    second.remember(first.usage())
    assert set(second.best(2)) == {(2, 3), (2, 9)} and second.rate(2, 3) > second.rate(2, 4)
    second.remember({99: [1.0], 2: [0.5]})  # of another model: left alone
    assert second.rate(2, 3) > second.rate(2, 4)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), slots=st.integers(2, 20), floor=st.integers(0, 3))
def test_any_history_keeps_slots_and_experts_consistent(seed: int, slots: int, floor: int) -> None:
    policy, draw = SlotPolicy(slots, LAYERS, EXPERTS, floor), random.Random(seed)
    trace = [[(layer, sorted(draw.sample(range(EXPERTS), 2))) for layer in LAYERS] for _ in range(15)]
    assert 0 <= hit_rate(policy, trace, slots) <= 1
    held = [policy.holds(slot) for slot in range(slots)]
    placed = [key for key in held if key is not None]
    assert len(placed) == len(set(placed))
    assert all(policy.slot(*key) == slot for slot, key in enumerate(held) if key is not None)


@pytest.mark.parametrize("slots", [48, 60])
def test_with_room_for_all_nothing_is_counted_and_nobody_leaves(slots: int) -> None:
    policy = SlotPolicy(slots, LAYERS, EXPERTS)
    assert hit_rate(policy, zipf_trace(50), slots) > 0.5
