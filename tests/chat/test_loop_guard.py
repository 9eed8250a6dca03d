import random

import pytest

from mimo_cli.chat.loop_guard import LoopGuard


def first_alarm(ids: list[int], guard: LoopGuard | None = None) -> int | None:
    """Return after how many ids the guard first sees a loop."""
    guard = guard or LoopGuard()
    return next((n for n, token_id in enumerate(ids, 1) if guard.push(token_id)), None)


@pytest.mark.parametrize("length", [40, 41, 100, 700])
def test_the_third_copy_of_a_block_is_a_loop(length: int) -> None:
    block = list(range(1000, 1000 + length))
    start = [1, 2, 3]
    assert first_alarm(start + block * 3) == 3 + 3 * length
    assert first_alarm(start + block * 2 + block[:-1]) is None


@pytest.mark.parametrize("length", [1, 3, 7, 39])
def test_a_short_phrase_counts_by_its_multiples(length: int) -> None:
    block = -(-40 // length) * length
    assert first_alarm(list(range(length)) * 200) == 3 * block


def test_copies_with_something_between_them_are_no_loop() -> None:
    block = list(range(50))
    assert first_alarm([*block, 99, *block, 98, *block, 97]) is None


def test_varied_text_is_no_loop() -> None:
    draw = random.Random(0)
    words = [[draw.randrange(300) for _ in range(5)] for _ in range(40)]
    assert first_alarm([token for _ in range(2000) for token in draw.choice(words)]) is None


def test_the_guard_can_be_tuned_and_reset() -> None:
    assert first_alarm([1, 2] * 3, LoopGuard(block_tokens=2, repeats=3)) == 6
    guard = LoopGuard(block_tokens=2, repeats=2)
    assert not guard.push(1) and not guard.push(2)
    guard.reset()
    assert not guard.push(1) and not guard.push(2) and not guard.push(1) and guard.push(2)
