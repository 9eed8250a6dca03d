"""Random values fixed by seed and name alone."""

import hashlib

import torch

from mimo_cli.miniature.random_values import RandomValues


def test_values_are_the_same_for_ever() -> None:
    # Written down once; a change here changes every miniature ever made with a seed.
    values = RandomValues(0).uniform("model.norm.weight", (4,), 1.0)
    assert torch.equal(values, RandomValues(0).uniform("model.norm.weight", (4,), 1.0))
    digest = hashlib.sha256(RandomValues(0).uniform("x", (1000,), 1.0).numpy().tobytes()).hexdigest()
    assert digest == "f3772880dd1f76af76531bf98101fb3ecd6afa7f1197813677d444f9c1c5a882"


def test_seed_and_name_matter() -> None:
    base = RandomValues(0).uniform("a", (100,), 1.0)
    assert not torch.equal(base, RandomValues(1).uniform("a", (100,), 1.0))
    assert not torch.equal(base, RandomValues(0).uniform("b", (100,), 1.0))


def test_a_longer_tensor_starts_like_a_shorter_one() -> None:
    assert torch.equal(RandomValues(3).uniform("a", (8,), 1.0), RandomValues(3).uniform("a", (100,), 1.0)[:8])


def test_spread_and_centre_are_as_asked() -> None:
    values = RandomValues(0).uniform("a", (300, 300), 0.25)
    # 90,000 samples: the mean's standard error is 0.0008, the spread's about 0.0004.
    assert abs(values.mean().item()) < 0.004
    assert abs(values.std().item() - 0.25) < 0.002
    assert values.abs().max().item() <= 0.25 * 3**0.5


def test_norm_weights_lie_around_one() -> None:
    weights = RandomValues(0).around_one("norm", 10_000)
    assert abs(weights.mean().item() - 1.0) < 0.005 and 0.8 < weights.min() < weights.max() < 1.2
