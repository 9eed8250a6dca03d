"""Experts on a card: whatever is there, copied, streamed, evicted or failing, the bits are those of the processor."""

import random
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mimo_cli.errors import CheckpointError
from mimo_cli.offload import gpu_experts
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.offload.gpu_costs import MissCosts
from mimo_cli.offload.gpu_experts import GpuExperts
from mimo_cli.offload.record_source import RecordSource
from mimo_cli.offload.shard_records import open_shard_records
from tests.support.checkpoint_files import open_golden
from tests.support.kernels import kernels, needs_kernels
from tests.support.offload_faults import ACTIVE, EXPERTS, HIDDEN, FaultyDisk, answer, eio_at, open_store, step
from tests.support.simulated_device import SimulatedDevice, SimulatedEvent

pytestmark = needs_kernels

LAYER = 1
ALL = EXPERTS
LAYERS = (1, 2, 3)
"""Of the FP8 checkpoint, which has 16 experts in each; the MXFP4 one has a single layer."""
"""Costs under which everything is copied, everything is left to the processor, both share, or layers are streamed."""
COSTS = {
    "copies": MissCosts(1e-9, 1.0),
    "computes": MissCosts(1.0, 1e-9),
    "shares": MissCosts(1e-3, 1e-3),
    "shares prompts": MissCosts(1e-2, 1e-3, 1e-3),
    "never streams": MissCosts(3e-2, 1e-3, 1e-3),
}


class Clock:
    """Time that passes by a second whenever somebody looks, so that there is time for uploads that nobody awaits."""

    def __init__(self, step_s: float = 1.0) -> None:
        self.now_s, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def device_of(seed: int = 0, **options: object) -> SimulatedDevice:
    return SimulatedDevice(kernels(), "exact", seed=seed, **options)  # type: ignore[arg-type]


def on_card(
    slots: int,
    half: int = 2,
    costs: str = "shares",
    device: SimulatedDevice | None = None,
    ram_slots: int = EXPERTS,
    notices: list[str] | None = None,
    clock_s: float = 1.0,
    kind: str = "store",
    **reading: object,
) -> GpuExperts:
    """Return experts of two layers over a store that has room for `ram_slots` of them."""
    store = open_store(kind, ram_slots, **reading)
    told = notices.append if notices is not None else None
    own, clock = replace(COSTS[costs]), Clock(clock_s)
    experts = GpuExperts(store, device or device_of(), [LAYER], EXPERTS, own, clock)
    experts.on_notice = told
    experts.allot(slots, half)
    return experts


def fp8_store(slots: int) -> ExpertStore:
    """Return a store of the experts of several layers."""
    config, reader = open_golden("text")
    records = open_shard_records(reader, config, kernels(), torch.float32)
    assert records is not None
    source = RecordSource(records)
    return ExpertStore(source, kernels(), "exact", LAYERS, 16, slots * source.slot_bytes, 4)


def fp8_on_card(slots: int, half: int, costs: str, device: SimulatedDevice, ram_slots: int = 48) -> GpuExperts:
    experts = GpuExperts(fp8_store(ram_slots), device, LAYERS, 16, replace(COSTS[costs]), Clock())
    experts.allot(slots, half)
    return experts


@cache
def fp8_answer(layer: int, tokens: int, seed: int) -> Tensor:
    store = fp8_store(48)
    found = store.run(layer, *step(tokens, seed))
    store.close()
    return found


def close(experts: GpuExperts) -> None:
    experts.close()
    experts.store.close()


def run(experts: GpuExperts, tokens: int, seed: int) -> Tensor:
    return experts.run(LAYER, *step(tokens, seed))


def only(layer: int, wanted: Sequence[int], experts: GpuExperts) -> Tensor:
    """Run one token that goes to exactly these experts of a layer."""
    ids = torch.tensor([list(wanted)])
    return experts.run(layer, step(1, 0)[0], ids, torch.full(ids.shape, 0.25))


@pytest.mark.parametrize("kind", ["shards", "store"])
@settings(max_examples=60, deadline=None)
@given(
    slots=st.integers(0, ALL + 1),
    half=st.integers(1, EXPERTS),
    costs=st.sampled_from(sorted(COSTS)),
    ram_slots=st.integers(1, ALL),
    seed=st.integers(0, 1 << 30),
    pace=st.sampled_from([0.0, 0.3, 0.7, 0.95]),
    slow=st.sampled_from([0.0, 0.3, 1.0]),
    clock_s=st.sampled_from([0.0, 1e-3, 1.0]),
    history=st.lists(
        st.tuples(st.sampled_from([1, 1, 1, 1, 2, 3, 9, 40]), st.integers(0, 5), st.sampled_from("rrrrrrcswf")),
        min_size=1,
        max_size=10,
    ),
)
def test_any_timing_has_the_bits_of_the_processor(
    kind: str,
    slots: int,
    half: int,
    costs: str,
    ram_slots: int,
    seed: int,
    pace: float,
    slow: float,
    clock_s: float,
    history: list[tuple[int, int, str]],
) -> None:
    device = device_of(seed, pace=pace, slow=slow)
    experts = on_card(slots, half, costs, device, ram_slots, clock_s=clock_s, kind=kind)
    draw = random.Random(seed)
    try:
        for tokens, data, action in history:
            if action == "c":
                experts.clear()
            elif action == "s":
                experts.shrink()
            elif action == "w":
                experts.warm()
            elif action == "f":
                device.fails_at.add(device.calls + draw.randrange(3))
            assert torch.equal(run(experts, tokens, data), answer(kind, tokens, data))
    finally:
        close(experts)


@pytest.mark.parametrize("rows", [1, 4, 40])
def test_cutting_a_prompt_into_blocks_of_rows_does_not_show(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_experts, "MAX_ROWS", rows * ACTIVE)
    experts = on_card(5, 2, "never streams")
    for data in range(3):
        assert torch.equal(run(experts, 40, data), answer("store", 40, data))
    assert experts.counters.streamed == 0 and experts.counters.computed > 0
    close(experts)


@settings(max_examples=30, deadline=None)
@given(
    slots=st.integers(0, 48),
    half=st.integers(1, 4),
    costs=st.sampled_from(sorted(COSTS)),
    ram_slots=st.integers(1, 48),
    seed=st.integers(0, 1 << 30),
    pace=st.sampled_from([0.0, 0.5, 0.95]),
    slow=st.sampled_from([0.0, 0.5]),
    passes=st.lists(st.tuples(st.sampled_from([1, 1, 1, 2, 12]), st.integers(0, 3)), min_size=2, max_size=6),
)
def test_layers_in_turn_have_the_bits_of_the_processor(
    slots: int,
    half: int,
    costs: str,
    ram_slots: int,
    seed: int,
    pace: float,
    slow: float,
    passes: list[tuple[int, int]],
) -> None:
    experts = fp8_on_card(slots, half, costs, device_of(seed, pace=pace, slow=slow), ram_slots)
    try:
        for tokens, data in passes:
            for layer in LAYERS:
                assert torch.equal(experts.run(layer, *step(tokens, data)), fp8_answer(layer, tokens, data))
    finally:
        close(experts)


def test_two_layers_do_not_take_each_other_s_experts_for_theirs() -> None:
    experts = fp8_on_card(3, 1, "copies", device_of())
    for layer in (1, 2, 1, 2, 2, 1):
        assert torch.equal(experts.run(layer, *step(2, 3)), fp8_answer(layer, 2, 3))
    assert experts.counters.evicted > 0
    close(experts)


def test_with_room_for_everything_nothing_is_copied_twice() -> None:
    device = device_of(1)
    experts = fp8_on_card(48, 16, "copies", device)
    for data in range(6):
        for layer in LAYERS:
            experts.run(layer, *step(9, data))
    uploads = device.uploads
    assert uploads <= 48 and experts.counters.evicted == 0
    assert torch.equal(experts.run(LAYER, *step(9, 2)), fp8_answer(LAYER, 9, 2)) and device.uploads == uploads
    close(experts)


def test_what_is_on_the_card_is_asked_of_nobody_else() -> None:
    experts = on_card(ALL, EXPERTS, "copies")
    for _ in range(2):
        for first in (0, 4):
            only(LAYER, range(first, first + 4), experts)
    read, native = experts.store.bytes_read, experts.store.native_calls
    for data in range(4):
        assert torch.equal(run(experts, 3, data), answer("store", 3, data))
    assert (experts.store.bytes_read, experts.store.native_calls) == (read, native)
    assert experts.holds_all
    close(experts)


def test_misses_are_shared_by_measured_times() -> None:
    found = {}
    for costs in ("copies", "computes", "shares"):
        experts = on_card(0, EXPERTS, costs, clock_s=0.0)
        run(experts, 1, 0)  # reads them into memory; what lies on disk is the processor's
        experts.costs = replace(COSTS[costs])
        before = experts.counters.copied, experts.counters.computed
        run(experts, 1, 0)
        found[costs] = experts.counters.copied - before[0], experts.counters.computed - before[1]
        close(experts)
    assert found == {"copies": (4, 0), "computes": (0, 4), "shares": (2, 2)}


def test_experts_on_disk_are_left_to_the_processor() -> None:
    experts = on_card(4, 4, "shares", ram_slots=EXPERTS, clock_s=0.0)
    run(experts, 1, 0)
    assert (experts.counters.copied, experts.counters.computed) == (0, 4)
    close(experts)


def test_a_long_prompt_is_streamed_and_a_short_one_is_not() -> None:
    experts = on_card(2, 2, "shares prompts", clock_s=0.0)
    run(experts, 2, 0)
    assert experts.counters.streamed == 0
    run(experts, 40, 0)
    assert experts.counters.streamed == 1
    close(experts)


def test_popular_experts_come_to_stay_at_a_bounded_rate() -> None:
    uploads = {}
    for clock_s in (0.0, 1e-3, 1.0):
        experts = on_card(4, 1, "computes", clock_s=clock_s)
        experts.costs.copy_s = 1e-3
        for _ in range(12):
            only(LAYER, (0, 1, 2, 3), experts)
        uploads[clock_s] = experts.counters.inserted
        close(experts)
    # A millisecond passes per step, a quarter of it may be spent, a copy takes one: every fourth step.
    assert uploads == {0.0: 0, 1e-3: 3, 1.0: 4}


def test_an_expert_used_all_the_time_is_never_the_one_that_leaves() -> None:
    experts = on_card(2, 1, "computes")
    experts.costs.copy_s = 1e-6
    for i in range(40):
        only(LAYER, (0, 1 + i % 7), experts)
    hits = experts.counters.hits
    for i in range(10):
        only(LAYER, (0, 1 + i % 7), experts)
    assert experts.counters.hits - hits >= 10
    close(experts)


@pytest.mark.parametrize("out_at", [(0,), (0, 1), (0, 1, 2, 3)])
def test_slots_that_do_not_fit_become_fewer_before_anything_runs(out_at: tuple[int, ...]) -> None:
    notices: list[str] = []
    experts = on_card(7, 2, device=device_of(out_at=out_at), notices=notices)
    assert experts.capacity == 7 - len(out_at)
    assert notices == [f"the simulated card has room for {7 - len(out_at)} experts, 7 were planned"]
    assert torch.equal(run(experts, 3, 1), answer("store", 3, 1))
    close(experts)


def test_running_out_of_memory_in_a_step_costs_slots_and_no_bits() -> None:
    notices: list[str] = []
    device = device_of(3)
    experts = on_card(6, 2, "copies", device, notices=notices)
    for data in range(4):
        run(experts, 2, data)
    device.fails_at = {device.calls, device.calls + 1}
    assert torch.equal(run(experts, 2, 4), answer("store", 2, 4))
    assert experts.counters.shrinks == 2 and experts.capacity == 6 - 1 - 1
    assert len(notices) == 2 and "ran out of memory: it keeps 5 experts from now on" in notices[0]
    close(experts)


def test_a_card_without_any_memory_left_leaves_everything_to_the_processor() -> None:
    notices: list[str] = []
    device = device_of()
    experts = on_card(3, 1, device=device, notices=notices)
    device.capacity_bytes = 4096
    device.fails_at = {device.calls}
    only(LAYER, (0, 1, 2, 3), experts)
    for data in range(3):
        experts.shrink()
        assert torch.equal(run(experts, 9, data), answer("store", 9, data))
    assert experts.capacity == 0 and "the processor computes them" in notices[-1]
    close(experts)


def test_slots_never_take_more_than_they_were_given() -> None:
    device = device_of()
    experts = on_card(5, 2, device=device)
    given = (5 + 2 * 2) * experts.store.expert_bytes + 4 * ALL
    for data in range(6):
        run(experts, 9, data)
        assert device.used_bytes == experts.nbytes == given
    close(experts)
    assert device.used_bytes == 0


def test_a_read_that_fails_is_told_and_the_next_step_is_right() -> None:
    for costs in sorted(COSTS):
        disk = FaultyDisk()
        experts = on_card(4, 2, costs, ram_slots=2, read_at=disk.read_at)
        run(experts, 1, 0)
        disk.fails = lambda read: 5
        with pytest.raises(CheckpointError, match="expert"):
            run(experts, 40, 5)
        disk.fails = eio_at()
        for data in range(3):
            assert torch.equal(run(experts, 40, data), answer("store", 40, data))
        close(experts)


def test_no_tokens_are_no_work() -> None:
    device = device_of()
    experts = on_card(4, device=device)
    assert experts.run(LAYER, *(tensor[:0] for tensor in step(1, 0))).shape == (0, HIDDEN)
    assert device.calls == 0
    close(experts)


def test_warming_uploads_what_memory_has_and_earlier_runs_used_most() -> None:
    device = device_of(2)
    experts = on_card(2, 1, "computes", device, clock_s=0.0)
    for _ in range(6):
        only(LAYER, (1, 6), experts)
    experts.store.cache.policy.remember({LAYER: [0.0, 0.9, 0, 0, 0, 0, 0.8, 0]})
    experts.warm()
    hits = experts.counters.hits
    only(LAYER, (1, 6), experts)
    assert experts.counters.hits - hits == 2 and device.uploads == 2
    close(experts)


class Careless(SimulatedDevice):
    """A device whose user forgot one rule."""

    forgotten = ""

    def wait(self, event: SimulatedEvent) -> None:
        if self.forgotten != "wait":
            super().wait(event)

    def join(self, event: SimulatedEvent) -> None:
        if self.forgotten != "join":
            super().join(event)

    def upload(self, source: Tensor, target: Tensor, after: SimulatedEvent) -> SimulatedEvent:
        if self.forgotten == "after":
            after = SimulatedEvent()
            after.happened = True
        return super().upload(source, target, after)


@pytest.mark.parametrize("forgotten", ["wait", "join", "after"])
def test_the_simulated_device_shows_what_was_not_ordered(forgotten: str) -> None:
    for seed in range(40):
        device = Careless(kernels(), "exact", seed=seed, pace=0.5, slow=0.3)
        device.forgotten = forgotten
        experts = fp8_on_card(4, 2, "copies", device)
        found = [
            torch.equal(experts.run(layer, *step(tokens, data)), fp8_answer(layer, tokens, data))
            for tokens, data in ((1, 0), (1, 1), (12, 2), (1, 3))
            for layer in LAYERS
        ]
        if not all(found):
            return
    pytest.fail("the answers are right without it")


def test_an_upload_that_outlives_its_pass_still_lands() -> None:
    device = SimulatedDevice(kernels(), "exact", seed=0, slow=1.0, pace=0)
    with torch.inference_mode():
        slot = device.allocate(64)
        landed = device.upload(torch.ones(64, dtype=torch.uint8), slot, device.record())
    device.join(landed)
    assert slot.tolist() == [1] * 64
