"""95 % confidence intervals of shares and of word error rates."""

import math
from collections.abc import Sequence

Z95 = 1.959964
"""Quantile of the normal distribution for a two-sided interval of 95 %."""


def wilson(share: float, trials: float) -> tuple[float, float]:
    """Return the Wilson score interval of a share found in `trials` independent trials; (0, 1) without trials.

    Unlike the normal approximation it stays within 0..1 and is honest at shares of 0 and 1.
    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference (1927).
    """
    if trials <= 0:
        return 0.0, 1.0
    weight = Z95**2 / trials
    center = (share + weight / 2) / (1 + weight)
    half = Z95 / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    return max(0.0, center - half), min(1.0, center + half)


def error_rate_interval(errors: Sequence[int], words: Sequence[int]) -> tuple[float, float]:
    """Return the interval of sum(errors) / sum(words) over recordings, whose words are not independent.

    The variance is that of a ratio over recordings; as a Wilson interval with the number of independent words that
    variance amounts to. Rates of 1 and more (many insertions) get the normal approximation.
    """
    total = sum(words)
    if total == 0:
        return 0.0, 1.0
    rate = sum(errors) / total
    variance = sum((e - rate * w) ** 2 for e, w in zip(errors, words, strict=True)) / total**2
    if rate >= 1:
        half = Z95 * math.sqrt(max(variance, rate / total))  # few recordings may happen to be alike
        return max(0.0, rate - half), rate + half
    # Few recordings with like rates can look more certain than their words are.
    trials = min(rate * (1 - rate) / variance, total) if variance else total
    return wilson(rate, trials)
