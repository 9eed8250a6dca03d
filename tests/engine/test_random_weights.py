"""Random weights: every tensor of the text model, experts that stay themselves, routers that spread as they should."""

import pytest
import torch

from mimo_cli.checkpoint.names import text_weights
from mimo_cli.engine.random_weights import RandomReader, RandomRecords, zipf_bias
from mimo_cli.model.moe import Router
from mimo_cli.quant.random_streams import RandomStreams
from tests.support.tiny_shape import tiny_release


def reader(dense: str = "int8", routing: str = "uniform") -> RandomReader:
    return RandomReader(tiny_release(), dense, routing, RandomStreams())


@pytest.mark.parametrize("dense", ["keep", "int8", "int4"])
def test_every_weight_of_the_text_model_is_there_in_its_shape(dense: str) -> None:
    source = reader(dense)
    for weight in text_weights(tiny_release()):
        values = source.read(weight.name, torch.float32, shape=weight.shape)
        assert tuple(values.shape) == weight.shape and bool(torch.isfinite(values).all())


@pytest.mark.parametrize(("dense", "formats"), [("keep", {"fp8", "bf16"}), ("int8", {"int8"}), ("int4", {"int4"})])
def test_matrices_have_the_dense_format_and_nothing_else_is_packed(dense: str, formats: set[str]) -> None:
    shapes = reader(dense).shapes
    assert {shape.format for shape in shapes.values()} == formats
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in shapes} == {
        *("qkv_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")
    }
    if dense == "keep":  # as the releases store them
        assert all(
            (shape.format == "bf16") == name.endswith(("o_proj.weight", "lm_head.weight"))
            for name, shape in shapes.items()
        )


def test_matrices_of_one_shape_differ() -> None:
    source = reader()
    gate, up = (source.read(f"model.layers.0.mlp.{part}_proj.weight", torch.float32) for part in ("gate", "up"))
    assert gate.shape == up.shape and not torch.equal(gate, up)
    correlation = (gate * up).mean() / (gate.std() * up.std())
    assert abs(correlation.item()) < 0.04  # 16,384 products of mean 0: five times their standard deviation


def test_an_expert_is_the_same_whenever_it_is_read() -> None:
    records = RandomRecords(tiny_release(moe_intermediate_size=512), "int4", RandomStreams())
    slots = [torch.zeros(records.record_bytes, dtype=torch.uint8) for _ in range(4)]
    for (layer, expert_id), slot in zip([(1, 3), (1, 5), (1, 3), (2, 3)], slots, strict=True):
        assert not records.extents(layer, expert_id)
        records.place(layer, expert_id, (), slot)
    assert torch.equal(slots[0], slots[2])
    assert not torch.equal(slots[0], slots[1]) and not torch.equal(slots[0], slots[3])


def loads(routing: str, experts: int = 64, active: int = 4) -> torch.Tensor:
    """Share of 4,096 random tokens that choose each expert, most popular first."""
    config = tiny_release(hidden_size=1024, n_routed_experts=experts, num_experts_per_tok=active)
    torch.manual_seed(0)
    router = Router(config)
    if routing == "skewed":
        router.e_score_correction_bias = zipf_bias(config, torch.Generator().manual_seed(1))
    hidden_states = torch.nn.functional.normalize(torch.randn(4096, 1024), dim=1) * 1024**0.5
    expert_ids, _ = router(hidden_states)
    return (expert_ids.flatten().bincount(minlength=experts) / 4096).sort(descending=True).values


def test_uniform_routing_uses_every_expert_about_equally() -> None:
    shares = loads("uniform")
    assert shares.sum().item() == pytest.approx(4)
    # Random router rows differ in length by some per cent, which the best 4 of 64 show several times enlarged.
    assert shares[0] < 2.5 * 4 / 64 and shares[-1] > 0.3 * 4 / 64


def test_skewed_routing_loads_experts_by_rank() -> None:
    shares = loads("skewed")
    # 1/rank of 64 experts sums up to 4.74. Choosing exactly 4 of them moves single loads by up to a fifth.
    expected = 4 / 4.74 / torch.arange(1, 65)
    torch.testing.assert_close(shares[:16], expected[:16], rtol=0.25, atol=0)


def test_popular_experts_are_not_the_first_ones() -> None:
    bias = zipf_bias(tiny_release(n_routed_experts=64, num_experts_per_tok=4), torch.Generator().manual_seed(1))
    assert abs(bias.mean().item()) < 1e-6 and bias.argmax() != 0
    assert not torch.equal(bias, bias.sort(descending=True).values)
