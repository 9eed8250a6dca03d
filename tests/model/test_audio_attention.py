"""Banded attention against plain softmax with a mask, and the rotation."""

import pytest
import torch

from mimo_cli.model.audio_attention import band_attention, rotary_tables, rotate


def plain_attention(q, k, v, before, after):
    """Scores, mask, softmax, sum: every step in float64."""
    q, k, v = q.double(), k.double(), v.double()
    distance = torch.arange(q.shape[2])[:, None] - torch.arange(q.shape[2])
    seen = torch.ones_like(distance, dtype=torch.bool)
    if before >= 0:
        seen &= distance <= before
    if after >= 0:
        seen &= distance >= -after
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v


def random_states(length, batch=2, heads=2, head_dim=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, heads, length, head_dim, generator=generator) for _ in range(3)]


@pytest.mark.parametrize("band", [(128, 0), (5, 0), (0, 0), (-1, 0), (-1, -1), (7, 3), (300, 300), (3, -1)])
@pytest.mark.parametrize("length", [1, 2, 127, 128, 129, 300])
def test_band_attention_equals_plain_softmax_under_the_mask(band, length):
    q, k, v = random_states(length)
    # float32 against float64: rounding of some hundred terms.
    torch.testing.assert_close(
        band_attention(q, k, v, *band).double(), plain_attention(q, k, v, *band), atol=2e-6, rtol=0
    )


def test_the_window_of_128_holds_129_keys():
    q, k, v = random_states(200)
    for index, changes in ((150 - 128, True), (150 - 129, False)):
        other = v.clone()
        other[:, :, index] += 1.0
        moved = (band_attention(q, k, other, 128, 0) - band_attention(q, k, v, 128, 0))[:, :, 150].abs().max()
        assert bool(moved > 1e-4) is changes


def test_gradients_reach_queries_keys_and_values_through_the_tiles():
    states = [state.requires_grad_() for state in random_states(140)]
    got = torch.autograd.grad(band_attention(*states, 16, 0).square().sum(), states)
    expected = torch.autograd.grad(plain_attention(*states, 16, 0).square().sum(), states)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one.double(), other.double(), atol=1e-5, rtol=1e-4)


def test_long_pieces_need_no_score_matrix():
    q, k, v = random_states(6000, batch=1, heads=4, head_dim=4)
    with torch.profiler.profile(profile_memory=True) as profile:
        band_attention(q, k, v, 128, 0)
        band_attention(q, k, v, -1, 0)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < 4 * 6000 * 6000 * 4 / 8  # an eighth of one float32 score matrix


def test_rotation_turns_pairs_of_the_split_halves_by_position_times_frequency():
    cos, sin = rotary_tables(3, 4, 100.0, rounded=False, dtype=torch.float32, device=torch.device("cpu"))
    states = torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(1, 1, 3, 4)
    turned = rotate(states, cos, sin)[0, 0]
    for position in range(3):
        for pair, frequency in enumerate((1.0, 0.1)):
            angle = torch.tensor(position * frequency)
            low, high = states[0, 0, 0, pair], states[0, 0, 0, pair + 2]
            expected = torch.stack([low * angle.cos() - high * angle.sin(), high * angle.cos() + low * angle.sin()])
            torch.testing.assert_close(turned[position, [pair, pair + 2]], expected)


def test_rounded_tables_use_bfloat16_frequencies_in_float32_angles():
    place = {"dtype": torch.float32, "device": torch.device("cpu")}
    cos, _ = rotary_tables(1000, 64, 10000.0, rounded=True, **place)
    frequencies = (1.0 / 10000.0 ** (torch.arange(0, 64, 2) / 64)).bfloat16().float()
    torch.testing.assert_close(cos[999, :32], (999 * frequencies).cos(), atol=1e-6, rtol=0)
    plain, _ = rotary_tables(1000, 64, 10000.0, rounded=False, **place)
    assert (cos - plain).abs().max() > 0.1
