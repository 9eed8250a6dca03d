"""Windowed attention by tiles against the plain formula with a full mask."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.model import vision_attention
from mimo_cli.model.vision_attention import windowed_attention

TOLERANCE = 1e-5  # float32 sums of at most 129 terms in another order


def random_qkv(frames: int, patches: int, heads: int = 2, dim: int = 8) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(frames * 1000 + patches)
    return tuple(torch.randn(frames, heads, patches, dim, generator=generator) for _ in range(3))


def plain_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, window: int, sinks: torch.Tensor | None, form: str
) -> torch.Tensor:
    """exp(s_ij) / (exp(sink) + sum over visible j), or the sink added to the score of key 0; in float64."""
    q, k, v = q.double(), k.double(), v.double()
    places = torch.arange(q.shape[2])
    visible = (places[:, None] - places).abs() <= window
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    extra = torch.zeros(1, q.shape[1], 1, 1, dtype=torch.float64)
    if form == "key0" and sinks is not None:
        scores[..., 0] = scores[..., 0] + sinks.double()[:, None]
    if form == "denominator" and sinks is not None:
        extra = sinks.double().view(1, -1, 1, 1).exp()
    weights = scores.exp() * visible
    return (weights / (extra + weights.sum(-1, keepdim=True))) @ v


@given(
    frames=st.integers(1, 3),
    patches=st.integers(1, 90),
    window=st.integers(0, 20),
    form=st.sampled_from(["denominator", "key0", "none"]),
)
def test_tiles_equal_the_plain_formula(frames: int, patches: int, window: int, form: str) -> None:
    q, k, v = random_qkv(frames, patches)
    sinks = None if form == "none" else torch.tensor([0.7, -1.5])
    found = windowed_attention(q, k, v, window, sinks, is_key_bias=form == "key0")
    assert (found - plain_attention(q, k, v, window, sinks, form)).abs().max() < TOLERANCE


@pytest.mark.parametrize("patches", [63, 64, 65, 128, 129, 192, 193, 400])
def test_the_released_window_is_right_around_its_edges(patches: int) -> None:
    q, k, v = random_qkv(1, patches)
    sinks = torch.tensor([1.0, -0.5])
    found = windowed_attention(q, k, v, 64, sinks)
    assert (found - plain_attention(q, k, v, 64, sinks, "denominator")).abs().max() < TOLERANCE


@pytest.mark.parametrize("distance", [63, 64, 65])
def test_a_key_is_visible_up_to_64_places_away(distance: int) -> None:
    q, k, v = random_qkv(1, 200)
    changed = v.clone()
    changed[0, 0, 100 + distance] += 1.0
    before, after = (windowed_attention(q, k, values, 64)[0, 0, 100] for values in (v, changed))
    assert torch.equal(before, after) == (distance > 64)


def test_frames_do_not_see_each_other() -> None:
    q, k, v = random_qkv(2, 30)
    together = windowed_attention(q, k, v, 64)
    assert torch.allclose(together[1:], windowed_attention(q[1:], k[1:], v[1:], 64), atol=TOLERANCE)


def test_a_few_tiles_at_a_time_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = random_qkv(2, 150)
    sinks = torch.tensor([0.3, 0.1])
    whole = [windowed_attention(q, k, v, 8, sinks, is_key_bias=form) for form in (False, True)]
    monkeypatch.setattr(vision_attention, "_SCORES_PER_PASS", 1)
    for form, wanted in zip((False, True), whole, strict=True):
        found = windowed_attention(q, k, v, 8, sinks, is_key_bias=form)
        assert (found - wanted).abs().max() < TOLERANCE


def test_the_key_bias_reaches_the_first_65_queries_only() -> None:
    q, k, v = random_qkv(1, 200)
    without, biased = (windowed_attention(q, k, v, 64, s, is_key_bias=True) for s in (None, torch.ones(2)))
    changed = (without - biased).abs().amax((0, 1, 3)) > 0
    assert changed[:65].all() and not changed[65:].any()


def test_bfloat16_scores_are_not_rounded() -> None:
    q, k, v = (x.bfloat16() for x in random_qkv(1, 100, dim=64))
    found = windowed_attention(q * 4, k * 4, v, 64)
    wanted = plain_attention(q * 4, k * 4, v, 64, None, "none")
    # Only the result is rounded to 8 bits; scores of magnitude 100 rounded so would be off by 0.25 and change the mix.
    assert found.dtype == torch.bfloat16
    assert (found - wanted).abs().max() < 2**-8 * wanted.abs().max()


@pytest.mark.parametrize("is_key_bias", [False, True])
def test_padded_queries_leave_no_trace_in_the_gradients(is_key_bias: bool) -> None:
    q, k, v = (x.requires_grad_() for x in random_qkv(1, 37))
    sinks = torch.zeros(2, requires_grad=True)
    windowed_attention(q, k, v, 2, sinks, is_key_bias=is_key_bias).square().sum().backward()
    for tensor in (q, k, v, sinks):
        assert tensor.grad is not None and torch.isfinite(tensor.grad).all() and tensor.grad.abs().max() > 0
