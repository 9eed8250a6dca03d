import random

import pytest

from mimo_cli.evaluation.intervals import error_rate_interval, wilson


@pytest.mark.parametrize(
    ("share", "trials", "low", "high"),
    # From the formula worked by hand for 0 of 10, 5 of 10, and the usual example of 81 of 263.
    [(0.0, 10, 0.0, 0.27753), (0.5, 10, 0.23659, 0.76341), (1.0, 10, 0.72247, 1.0), (81 / 263, 263, 0.25528, 0.36621)],
)
def test_wilson_gives_the_published_values(share: float, trials: int, low: float, high: float) -> None:
    assert wilson(share, trials) == pytest.approx((low, high), abs=2e-5)


def test_no_trials_tell_nothing() -> None:
    assert wilson(0.0, 0) == (0.0, 1.0)
    assert error_rate_interval([], []) == (0.0, 1.0)


def test_wilson_covers_the_true_share_about_as_often_as_it_says() -> None:
    generator = random.Random(0)
    covered = 0
    for _ in range(2000):
        right = sum(generator.random() < 0.9 for _ in range(100))
        low, high = wilson(right / 100, 100)
        covered += low <= 0.9 <= high
    assert 0.93 <= covered / 2000 <= 0.97  # 2,000 draws have a standard deviation of half a point


def test_even_errors_are_as_certain_as_independent_words() -> None:
    errors, words = [1] * 50, [5] * 50
    assert error_rate_interval(errors, words) == wilson(0.2, 250)


def test_errors_that_come_together_widen_the_interval() -> None:
    even_low, even_high = error_rate_interval([1, 0, 1, 0, 1, 0, 1, 0] * 10, [5] * 80)
    low, high = error_rate_interval([5, 0, 0, 0, 0, 0, 0, 0, 0, 0] * 8, [5] * 80)
    assert high - low > 1.5 * (even_high - even_low)
    assert low < 0.1 < high


def test_no_error_at_all_is_no_certainty() -> None:
    low, high = error_rate_interval([0] * 20, [5] * 20)
    assert low == 0.0 and 0.03 < high < 0.05


def test_rates_above_one_keep_their_place() -> None:
    low, high = error_rate_interval([10, 14], [5, 5])
    assert low < 2.4 < high


def test_one_recording_is_no_certainty_either() -> None:
    low, high = error_rate_interval([15], [5])
    assert low < 3 < high
