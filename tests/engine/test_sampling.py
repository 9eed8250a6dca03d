"""Sampling: the filters against their definitions, the draws against their distribution, seeds against themselves."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mimo_cli.engine.sampling import Sampler, SamplingParams
from mimo_cli.errors import MimoError, UsageError

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0, 2.0])


def draw(params: SamplingParams, logits: torch.Tensor = LOGITS, count: int = 1) -> list[int]:
    sampler = Sampler(params, len(logits))
    return [sampler.choose(logits) for _ in range(count)]


def surviving(logits: torch.Tensor = LOGITS, **settings: float) -> dict[int, float]:
    probabilities, ids = Sampler(SamplingParams(**{"top_p": 1.0} | settings), len(logits)).distribution(logits)
    return dict(zip(ids.tolist(), (probabilities / probabilities.sum()).tolist(), strict=True))


def test_temperature_zero_takes_the_largest_logit_and_the_lowest_id_of_equals() -> None:
    assert draw(SamplingParams(temperature=0), count=3) == [0, 0, 0]


def test_the_same_seed_gives_the_same_tokens_whatever_else_is_drawn() -> None:
    first = draw(SamplingParams(seed=7), count=40)
    torch.manual_seed(99)
    torch.rand(5)
    assert draw(SamplingParams(seed=7), count=40) == first
    assert draw(SamplingParams(seed=8), count=40) != first


def test_without_a_seed_one_is_drawn_that_repeats_the_tokens() -> None:
    sampler = Sampler(SamplingParams(), len(LOGITS))
    tokens = [sampler.choose(LOGITS) for _ in range(30)]
    assert draw(SamplingParams(seed=sampler.seed), count=30) == tokens


def test_draws_follow_the_softmax() -> None:
    count = 4_000
    found = Counter(draw(SamplingParams(temperature=1.5, top_p=1.0, seed=1), count=count))
    for token, probability in enumerate(torch.softmax(LOGITS / 1.5, 0).tolist()):
        # five standard deviations of a binomial: one false alarm in two million for each token
        assert abs(found[token] / count - probability) < 5 * math.sqrt(probability * (1 - probability) / count)


def test_temperature_divides_the_logits() -> None:
    expected = torch.softmax(LOGITS / 0.5, 0).tolist()
    assert surviving(temperature=0.5) == pytest.approx(dict(enumerate(expected)))


def test_top_k_keeps_the_k_most_probable() -> None:
    assert set(surviving(top_k=3)) == {0, 5, 1}
    assert set(surviving(top_k=1)) == {0}
    assert set(surviving(top_k=100)) == set(range(6))


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    # probabilities: 0.387, 0.387, 0.142, 0.052, 0.019, 0.007 ... of tokens 0, 5, 1, 2, 3, 4
    assert set(surviving(top_p=0.3)) == {0}
    assert set(surviving(top_p=0.5)) == {0, 5}
    assert set(surviving(top_p=0.8)) == {0, 5, 1}
    assert set(surviving(top_p=1.0)) == set(range(6))


def test_top_p_is_counted_within_what_top_k_left() -> None:
    assert set(surviving(top_k=2, top_p=0.51)) == {0, 5}
    assert set(surviving(top_k=2, top_p=0.49)) == {0}


def test_min_p_is_a_fraction_of_the_most_probable() -> None:
    assert set(surviving(min_p=0.2)) == {0, 5, 1}  # exp(-1) = 0.37 survives, exp(-2) = 0.14 does not
    assert set(surviving(min_p=1.0)) == {0, 5}


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits_of_seen_tokens() -> None:
    sampler = Sampler(SamplingParams(temperature=0, repetition_penalty=4.0), 3)
    sampler.observe([0])
    assert sampler.choose(torch.tensor([2.0, 1.0, -1.0])) == 1  # 2/4 < 1, and 1 counts as seen from now on
    assert sampler.choose(torch.tensor([-1.0, -2.0, -3.0])) == 2  # -4, -8, -3


def test_banned_tokens_never_come() -> None:
    params = SamplingParams(temperature=5.0, top_p=1.0, seed=3, banned_ids=range(2, 99))
    assert set(draw(params, count=300)) == {0, 1}
    assert draw(SamplingParams(temperature=0, banned_ids=(0,))) == [5]


def test_logits_that_are_not_numbers_are_an_error() -> None:
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(MimoError, match="not finite"):
            draw(SamplingParams(), torch.tensor([0.0, bad, 1.0]))


def test_choosing_leaves_the_logits_alone() -> None:
    logits = LOGITS.clone()
    draw(SamplingParams(seed=1, top_k=2, banned_ids=(0,), repetition_penalty=2.0), logits, 3)
    assert torch.equal(logits, LOGITS)


def test_bfloat16_logits_are_taken() -> None:
    assert draw(SamplingParams(temperature=0), LOGITS.bfloat16()) == [0]


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"max_tokens": 0},
        {"seed": -1},
    ],
)
def test_senseless_settings_are_usage_errors(settings: dict) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        SamplingParams(**settings)


def test_banning_everything_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="every token"):
        Sampler(SamplingParams(banned_ids=range(6)), 6)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.01, 1.0, 5.0]),
    top_p=st.floats(0.01, 1.0),
    top_k=st.sampled_from([0, 1, 5, 511, 512, 513, 700]),
    min_p=st.sampled_from([0.0, 0.001, 0.5]),
)
def test_the_short_sort_equals_the_full_definition(
    seed: int, spread: float, top_p: float, top_k: int, min_p: float
) -> None:
    logits = torch.randn(900, generator=torch.Generator().manual_seed(seed)) * spread
    params = SamplingParams(top_p=top_p, top_k=top_k, min_p=min_p)
    probabilities, ids = Sampler(params, len(logits)).distribution(logits)
    everything = torch.softmax(logits.double(), 0).tolist()
    order = sorted(range(len(everything)), key=lambda i: (-everything[i], i))[: top_k or None]
    total, running, expected = sum(everything[i] for i in order), 0.0, []
    for token in order:
        if running >= top_p * total or everything[token] < min_p * everything[order[0]]:
            break
        expected.append(token)
        running += everything[token]
    # Sums in another order differ in the last bit: the two may disagree about one token at the border.
    assert abs(len(ids) - len(expected)) <= 1
    common = min(len(ids), len(expected))
    assert ids.tolist()[:common] == expected[:common]
    assert probabilities.tolist() == [everything[i] for i in ids.tolist()]
