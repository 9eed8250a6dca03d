"""Divergence: zero for equal logits, the textbook number otherwise, and blind to what softmax is blind to."""

import math

import pytest
import torch

from mimo_cli.engine.divergence import Divergence, compare_logits, join


def test_equal_logits_do_not_diverge() -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert compare_logits(logits, logits) == Divergence(5, 0.0, 1.0, 0.0)
    shifted = compare_logits(logits, logits + 3)
    assert shifted.mean_kld == pytest.approx(0, abs=1e-6) and shifted.same_top1 == 1 and shifted.max_abs > 2.9


def test_the_divergence_is_that_of_the_reference_from_the_other() -> None:
    reference, other = torch.tensor([[0.8, 0.2]]).log(), torch.tensor([[0.5, 0.5]]).log()
    found = compare_logits(reference, other).mean_kld
    assert found == pytest.approx(0.8 * math.log(1.6) + 0.2 * math.log(0.4), rel=1e-6)
    assert compare_logits(other, reference).mean_kld != pytest.approx(found, rel=1e-3)


def test_a_changed_best_token_counts() -> None:
    reference = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert compare_logits(reference, reference.flip(0)).same_top1 == 0
    assert compare_logits(reference, torch.tensor([[1.0, 0.0], [1.0, 0.0]])).same_top1 == 0.5


def test_parts_count_by_their_tokens() -> None:
    joined = join([Divergence(1, 0.4, 0.0, 2.0), Divergence(3, 0.0, 1.0, 1.0)])
    assert joined == Divergence(4, pytest.approx(0.1), 0.75, 2.0)


def test_other_shapes_are_our_own_mistake() -> None:
    with pytest.raises(ValueError, match="of one shape"):
        compare_logits(torch.zeros(2, 3), torch.zeros(2, 4))
