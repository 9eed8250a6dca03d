"""Frequencies fade by their half-lives, and what they have to say is learned from what is used."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.offload.usage_rates import HALF_LIVES, LESSON_STEPS, UsageRates


def keys(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def test_a_use_counts_half_after_a_half_life() -> None:
    rates = UsageRates(2)
    rates.note(keys(0), 1)
    first = rates.frequency()[0]
    rates.note(keys(1), 1 + int(HALF_LIVES[-1]))
    assert rates.frequency()[0] == pytest.approx(first / 2)
    assert rates.frequency()[1] == pytest.approx(first)


def test_a_use_at_every_step_is_a_frequency_of_one() -> None:
    rates = UsageRates(2)
    for step in range(1, 2000):
        rates.note(keys(0), step)
    assert rates.frequency()[0] == pytest.approx(1.0, abs=1e-3) and rates.frequency()[1] == 0
    assert rates.expected(keys(0))[0] > 0.5 > rates.expected(keys(1))[0]


def test_many_steps_overflow_nothing() -> None:
    rates = UsageRates(2)
    for step in (*range(1, 5000), 10**6, 10**9):
        rates.note(keys(step % 2), step)
    assert np.isfinite(rates.expected(keys(0, 1))).all() and np.isfinite(rates.frequency()).all()


def test_a_prompt_counts_as_its_tokens_at_once() -> None:
    one_by_one, at_once = UsageRates(1), UsageRates(1)
    for step in range(1, 33):
        one_by_one.note(keys(0), step)
    at_once.note(keys(0), 32, np.array([1.0]), tokens=32)
    assert at_once.frequency()[0] == pytest.approx(one_by_one.frequency()[0])


def test_shares_weigh_the_experts_of_a_prompt() -> None:
    rates = UsageRates(2)
    rates.note(keys(0, 1), 8, np.array([0.75, 0.25]), tokens=8)
    assert rates.expected(keys(0))[0] == pytest.approx(3 * rates.expected(keys(1))[0])


def test_what_another_run_saw_is_a_beginning() -> None:
    rates = UsageRates(3)
    rates.note(keys(0), 5)
    rates.remember(keys(1, 2), np.array([0.5, float("nan")]))
    assert rates.frequency()[1] == pytest.approx(0.5) and rates.frequency()[2] == 0


def learned(draw_used: "np.random.Generator", popular: bool, steps: int = 400) -> float:
    """How much more an expert used long ago but often is expected than one used just now but never before."""
    rates = UsageRates(64)
    for step in range(1, steps):
        if popular:  # a few are popular for ever
            used = draw_used.choice(16, 4, replace=False)
        else:  # whoever is used is used for some steps, then no more
            used = (step // 6 * 7 + np.arange(4)) % 64
        rates.note(used.astype(np.int64), step)
    rates.note(keys(63), steps)
    return float(np.mean(rates.expected(np.arange(16))) - rates.expected(keys(63))[0])


def test_popularity_and_recency_are_told_apart_by_learning() -> None:
    often = learned(np.random.default_rng(0), popular=True)
    lately = learned(np.random.default_rng(0), popular=False)
    assert often > lately


@given(st.lists(st.tuples(st.integers(0, 7), st.integers(1, 3)), min_size=1, max_size=60))
def test_uses_of_one_step_may_be_noted_in_parts(uses: list[tuple[int, int]]) -> None:
    whole, parts, step = UsageRates(8), UsageRates(8), 0
    for key, gap in uses:
        step += gap
        other = (key + 1) % 8
        whole.note(keys(key, other), step)
        parts.note(keys(key), step)
        parts.note(keys(other), step)
    assert np.array_equal(whole.expected(np.arange(8)), parts.expected(np.arange(8)))


def test_a_prompt_in_between_teaches_nothing_wrong() -> None:
    rates = UsageRates(4)
    for step in range(1, 20 * LESSON_STEPS):
        tokens = 64 if step % 3 == 0 else 1
        rates.note(keys(step % 4), step * 64, np.array([1.0]), tokens)
    assert np.isfinite(rates.expected(np.arange(4))).all()
