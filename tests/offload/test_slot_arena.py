"""The arena: slots side by side at whole pages, each its own, and memory that can be given back."""

from mimo_cli.offload.slot_arena import SlotArena
from mimo_cli.quant.buffers import PAGE_BYTES


def test_slots_are_aligned_and_do_not_touch() -> None:
    arena = SlotArena(5, 3 * PAGE_BYTES + 1)
    assert arena.slot_bytes == 4 * PAGE_BYTES
    for number in range(5):
        arena.slot(number).fill_(number + 1)
        assert arena.address(number) == arena.slot(number).data_ptr() and arena.address(number) % PAGE_BYTES == 0
    for number in range(5):
        assert bool((arena.slot(number) == number + 1).all())


def test_a_slot_that_was_released_is_empty_and_its_neighbours_are_not() -> None:
    arena = SlotArena(3, PAGE_BYTES)
    for number in range(3):
        arena.slot(number).fill_(7)
    arena.release(1)
    assert [int(arena.slot(number).sum()) for number in range(3)] == [7 * PAGE_BYTES, 0, 7 * PAGE_BYTES]
    arena.slot(1).fill_(3)
    assert int(arena.slot(1)[0]) == 3
