"""Memory that shrinks while a model runs: experts leave, the user hears of it once, and no token changes."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch

from mimo_cli.engine.engine import Engine
from mimo_cli.engine.expert_memory import ExpertMemory
from mimo_cli.engine.load import load_engine
from mimo_cli.media.prompt import Prompt
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.offload.memory_watch import CHECK_S, GROW_S
from tests.support.engines import GOLDEN, golden_engine, golden_ids
from tests.support.kernels import needs_kernels

pytestmark = needs_kernels

IDS = golden_ids(0)
PLENTY = 10**12


class Machine:
    """Free memory and the time. Every look at the clock takes as long as the watch's pause."""

    def __init__(self) -> None:
        self.free_bytes = PLENTY
        self.now_s = 0.0
        self.step_s = CHECK_S

    def free(self) -> int:
        return self.free_bytes

    def clock(self) -> float:
        self.now_s += self.step_s
        return self.now_s


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def engine(machine: Machine) -> Iterator[Engine]:
    """The reference model under a budget, on a machine of which the test says what is free."""
    with load_engine(GOLDEN / "text", dtype="float32") as engine:
        assert engine.budget is not None and isinstance(engine.experts, ExpertStore)
        engine.memory = ExpertMemory(
            engine.experts, engine.budget, engine.config, engine.dtype, machine.free, machine.clock
        )
        yield engine


def decoded(
    engine: Engine, at: dict[int, int], machine: Machine, count: int = 12
) -> tuple[list[torch.Tensor], list[int]]:
    """Return logits after greedy tokens and the slots there were; `at` says what is free from which token on."""
    sequence = engine.start_sequence(256)
    logits, limits = [sequence.prefill(Prompt(IDS))], []
    for number in range(count):
        machine.free_bytes = at.get(number, machine.free_bytes)
        logits.append(sequence.decode(int(logits[-1].argmax())))
        limits.append(engine.experts.cache.limit)  # type: ignore[union-attr]
    return logits, limits


def test_memory_that_shrinks_and_returns_changes_slots_and_no_bit(engine: Engine, machine: Machine) -> None:
    expected, _ = decoded(golden_engine(), {}, machine)
    told: list[str] = []
    assert engine.memory is not None and isinstance(engine.experts, ExpertStore)
    engine.memory.on_notice = told.append
    logits, limits = decoded(engine, {4: 0, 8: PLENTY}, machine)
    cache = engine.experts.cache
    assert all(torch.equal(a, b) for a, b in zip(logits, expected, strict=True))
    assert limits[3] == cache.capacity and limits[4] == engine.config.num_experts_per_tok
    assert cache.nbytes <= limits[-1] * engine.experts.expert_bytes
    assert len(told) == 1 and "are left free: experts keep to" in told[0] and "close other programs" in told[0]
    machine.step_s = GROW_S
    more, limits = decoded(engine, {}, machine, count=20)
    assert limits[0] < limits[-1] == cache.capacity and limits == sorted(limits)
    assert all(torch.equal(a, b) for a, b in zip(more, expected, strict=False))
    assert len(told) == 1


def test_a_second_shortage_is_told_again_only_after_everything_came_back(engine: Engine, machine: Machine) -> None:
    told: list[str] = []
    assert engine.memory is not None
    engine.memory.on_notice = told.append
    decoded(engine, {2: 0, 4: PLENTY, 6: 0}, machine)
    assert len(told) == 1
    machine.step_s, machine.free_bytes = GROW_S, PLENTY
    decoded(engine, {}, machine, count=30)
    decoded(engine, {2: 0}, machine)
    assert len(told) == 2


def test_memory_given_back_is_not_counted_as_held(engine: Engine, machine: Machine) -> None:
    decoded(engine, {}, machine)
    before = engine.experts.nbytes
    decoded(engine, {0: 0}, machine, count=2)
    assert engine.experts.nbytes < before


def test_shrinking_while_a_prompt_borrows_keeps_both_promises(engine: Engine, machine: Machine) -> None:
    assert engine.memory is not None and isinstance(engine.experts, ExpertStore)
    cache = engine.experts.cache
    with engine.memory.lend(7):
        assert cache.limit == cache.capacity - 7
        machine.free_bytes = 0
        engine.memory.check()
        assert cache.limit == engine.config.num_experts_per_tok
        machine.free_bytes = PLENTY
    assert cache.limit <= cache.capacity - 7 or cache.limit == engine.config.num_experts_per_tok


def test_a_budget_that_leaves_nothing_is_watched_all_the_same(engine: Engine) -> None:
    assert engine.budget is not None and isinstance(engine.experts, ExpertStore)
    budget = dataclasses.replace(engine.budget, total_bytes=PLENTY)
    told: list[str] = []
    free = iter([0, *[63 << 19] * 10])
    memory = ExpertMemory(engine.experts, budget, engine.config, engine.dtype, lambda: next(free), Machine().clock)
    memory.on_notice = told.append
    memory.check()
    assert told
