"""Guessing the first layer's experts: what a token chose before, else what is asked; never where it does not pay."""

from collections.abc import Sequence

from mimo_cli.offload import first_experts
from mimo_cli.offload.first_experts import FirstExperts


def nobody(expert: int) -> bool:
    return False


def unasked() -> Sequence[int]:
    raise AssertionError("the token was seen before")


def test_a_token_seen_before_gets_what_it_chose_then() -> None:
    first = FirstExperts()
    assert first.guess(7, lambda: [1, 2], nobody) == [1, 2]
    first.learn([3, 4])
    assert first.guess(7, unasked, nobody) == [3, 4]


def test_what_is_in_memory_is_not_read() -> None:
    first = FirstExperts()
    assert first.guess(7, lambda: [1, 2, 3], lambda expert: expert == 2) == [1, 3]


def test_guesses_that_are_wrong_stop() -> None:
    first = FirstExperts()
    for token in range(50):
        first.guess(token, lambda: [1, 2], nobody)
        first.learn([8, 9])
    assert first.guess(60, lambda: [1, 2], nobody) == []


def test_guesses_that_are_right_go_on() -> None:
    first = FirstExperts()
    for token in range(500):
        assert first.guess(token % 5, lambda: [8, 9], nobody) == [8, 9]
        first.learn([8, 9])


def test_routing_without_a_token_teaches_nothing() -> None:
    first = FirstExperts()
    first.learn([1])
    first.guess(7, lambda: [2], nobody)
    first.learn([3])
    first.learn([4])  # a forward pass of somebody else
    assert first.guess(7, unasked, nobody) == [3]


def test_tokens_are_forgotten_in_the_order_they_came() -> None:
    first = FirstExperts()
    for token in range(first_experts.MOST_TOKENS + 1):
        first.guess(token, lambda: [1], nobody)
        first.learn([1])
    assert first.guess(0, lambda: [5], nobody) == [5] and first.guess(2, unasked, nobody) == [1]
