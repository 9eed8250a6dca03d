"""Training: gradients reach every parameter, are right, and reduce a loss. These very modules are trained."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mimo_cli.model.decoder import TextModel
from mimo_cli.model.mtp import MTPModule
from tests.support.tiny_config import randomize, tiny_model

GENERATOR = torch.Generator().manual_seed(11)
IDS = torch.randint(0, 40, (3, 24), generator=GENERATOR)
MASK = torch.ones(3, 24, dtype=torch.bool)
MASK[1, 17:] = False
MASK[2, :9] = False


def _loss(model: TextModel, mtp: MTPModule | None = None, embeds: Tensor | None = None) -> Tensor:
    """Mean next-token loss of a padded batch, plus that of an MTP module."""
    positions = (MASK.cumsum(1) - 1).clamp(min=0)
    embeds = model.embed(IDS) if embeds is None else embeds
    states = model(embeds, positions, padding_mask=MASK)
    pairs = MASK[:, :-1] & MASK[:, 1:]
    loss = functional.cross_entropy(model.logits(states[:, :-1])[pairs], IDS[:, 1:][pairs])
    if mtp is not None:
        drafted = mtp(embeds[:, 1:], states[:, :-1], positions[:, :-1], padding_mask=MASK[:, :-1])
        triples = pairs[:, :-1] & pairs[:, 1:]
        loss = loss + functional.cross_entropy(model.logits(drafted[:, :-1])[triples], IDS[:, 2:][triples])
    return loss


def test_every_parameter_gets_a_finite_gradient_that_is_not_zero() -> None:
    model = tiny_model(seed=2)
    mtp = MTPModule(model.config)
    randomize(mtp, seed=3)
    _loss(model, mtp).backward()
    for name, parameter in [*model.named_parameters(), *mtp.named_parameters(prefix="mtp")]:
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_exactly_the_experts_that_tokens_went_to_are_trained() -> None:
    model, used = tiny_model(seed=2), {}
    for layer in model.config.moe_layers:
        gate = model.layers[layer].mlp.gate
        gate.register_forward_hook(lambda *args, layer=layer: used.update({layer: set(args[2][0].flatten().tolist())}))
    model.layers[1].mlp.gate.e_score_correction_bias[:2] = 100.0  # always the first two
    _loss(model).backward()
    assert used[1] == {0, 1} and len(used[2]) > 2
    for layer, expert_ids in used.items():
        for part in (model.experts.gate_up_proj, model.experts.down_proj):
            trained = part[str(layer)].grad.flatten(1).abs().sum(1) > 0
            assert set(trained.nonzero().flatten().tolist()) == expert_ids


def test_the_correction_bias_is_no_parameter() -> None:
    model = tiny_model()
    assert not any("e_score_correction_bias" in name for name, _ in model.named_parameters())
    assert sum("e_score_correction_bias" in name for name, _ in model.named_buffers()) == 3


def test_padding_gets_no_gradient_and_real_rows_do() -> None:
    model = tiny_model(seed=2)
    embeds = model.embed(IDS).detach().masked_fill(~MASK[..., None], 9.0).requires_grad_()
    _loss(model, embeds=embeds).backward()
    assert torch.equal(embeds.grad[~MASK], torch.zeros_like(embeds.grad[~MASK]))
    has_next = MASK[:, :-1] & MASK[:, 1:]  # a sequence's last token predicts nothing here
    assert (embeds.grad[:, :-1][has_next].abs().sum(-1) > 0).all()


PROBED = [
    "layers.0.self_attn.qkv_proj.weight",
    "layers.1.self_attn.attention_sink_bias",
    "layers.1.self_attn.qkv_proj.weight",
    "layers.2.mlp.gate.weight",
    "layers.2.post_attention_layernorm.weight",
    "experts.gate_up_proj.1",
    "experts.down_proj.3",
    "lm_head.weight",
]


@pytest.mark.parametrize("name", PROBED)
def test_gradients_are_the_slopes_of_the_loss(name: str) -> None:
    model = tiny_model(seed=2, num_experts_per_tok=6)  # all of them: a choice that flips would be a step in the loss
    parameter = model.get_parameter(name)
    slope = torch.autograd.grad(_loss(model), parameter)[0]
    step = slope / slope.norm() * 1e-2
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            parameter += sign * step
            values.append(_loss(model).item())
            parameter -= sign * step
    measured = (values[0] - values[1]) / 2e-2
    # Central differences of a float32 loss near 4: an error of 5e-7 / 1e-2 beside the curvature of the step.
    assert measured == pytest.approx(slope.norm().item(), rel=2e-2, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_few_steps_reduce_the_loss(dtype: torch.dtype) -> None:
    model = tiny_model(seed=2, dtype=dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = _loss(model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
