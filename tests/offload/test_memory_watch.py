"""The watch on free memory: slots go when half of the reserve is gone, come back in steps, and nothing flaps."""

import random

from mimo_cli.offload.memory_watch import CHECK_S, GROW_S, MemoryWatch

SLOT = 10
RESERVE = 200


class Machine:
    """Free memory and the time, as a watch asks for them."""

    def __init__(self, free_bytes: int = 1000) -> None:
        self.free_bytes = free_bytes
        self.now_s = 0.0
        self.asked = 0

    def free(self) -> int:
        self.asked += 1
        return self.free_bytes

    def watch(self, most: int = 40, least: int = 3) -> MemoryWatch:
        return MemoryWatch(self.free, RESERVE, SLOT, least=least, most=most, clock=lambda: self.now_s)

    def look(self, watch: MemoryWatch, free_bytes: int, in_memory: int, lent: int = 0, wait_s: float = CHECK_S) -> bool:
        self.free_bytes = free_bytes
        self.now_s += wait_s
        return watch.look(in_memory, lent)


def test_a_reserve_that_is_half_gone_is_made_whole_by_slots() -> None:
    machine = Machine()
    watch = machine.watch()
    assert not machine.look(watch, RESERVE // 2, 40) and watch.allowed == 40
    assert machine.look(watch, 90, 40)
    assert watch.allowed == 40 - 11  # 110 bytes are missing


def test_slots_without_memory_are_the_first_to_go() -> None:
    machine = Machine()
    watch = machine.watch()
    machine.look(watch, 90, in_memory=15)
    assert watch.allowed == 4


def test_the_least_stays_and_the_watch_says_that_it_does_not_suffice() -> None:
    machine = Machine()
    watch = machine.watch()
    machine.look(watch, 0, in_memory=5)
    assert watch.allowed == 3 and watch.is_short
    assert not machine.look(watch, 0, in_memory=3)


def test_the_machine_is_asked_twice_a_second_at_most() -> None:
    machine = Machine()
    watch = machine.watch()
    for _ in range(100):
        machine.look(watch, 0, 40, wait_s=0.01)
    assert machine.asked == 2


def test_slots_come_back_in_steps_after_a_pause_and_only_beyond_the_reserve() -> None:
    machine = Machine()
    watch = machine.watch()
    machine.look(watch, 0, 40)
    assert watch.allowed == 20
    assert not machine.look(watch, 1000, 20, wait_s=GROW_S / 2)
    assert not machine.look(watch, int(1.25 * RESERVE) + SLOT - 1, 20, wait_s=GROW_S)
    assert machine.look(watch, 1000, 20, wait_s=GROW_S) and watch.allowed == 25
    assert not machine.look(watch, 1000, 25)
    for _ in range(40):
        machine.look(watch, 1000, watch.allowed, wait_s=GROW_S)
    assert watch.allowed == 40


def test_what_slots_without_memory_will_take_is_counted_before_more_come_back() -> None:
    machine = Machine()
    watch = machine.watch()
    machine.look(watch, 0, 40)
    assert not machine.look(watch, 250 + 15 * SLOT, in_memory=5, wait_s=GROW_S)
    assert machine.look(watch, 250 + 17 * SLOT, in_memory=5, wait_s=GROW_S) and watch.allowed == 22


def test_lent_slots_count_as_taken() -> None:
    machine = Machine()
    watch = machine.watch()
    machine.look(watch, 90, in_memory=10, lent=30)
    assert watch.allowed == 29


def test_a_program_that_takes_and_gives_back_a_little_moves_nothing() -> None:
    machine = Machine()
    watch = machine.watch()
    draw = random.Random(1)
    assert not any(machine.look(watch, draw.randint(RESERVE // 2, 2 * RESERVE), 40) for _ in range(500))


def test_under_any_history_the_slots_stay_within_bounds_and_the_reserve_returns() -> None:
    draw = random.Random(2)
    for _ in range(50):
        machine, others = Machine(), 0
        watch = machine.watch()
        total = 40 * SLOT + RESERVE + 100
        for _ in range(60):
            others = max(0, min(total, others + draw.randint(-150, 150)))
            machine.look(
                watch, max(0, total - others - watch.allowed * SLOT), watch.allowed, wait_s=draw.choice([1, 20])
            )
            assert 3 <= watch.allowed <= 40
            left = total - others - watch.allowed * SLOT
            assert left >= RESERVE // 2 or watch.allowed == 3
