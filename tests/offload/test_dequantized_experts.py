"""The store: the same answer whatever is kept, memory within the budget, counters that tell the truth."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.names import expert_weight_name
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.errors import CheckpointError
from mimo_cli.offload.dequantized_experts import DEFAULT_RESIDENT_BYTES, DequantizedExperts
from tests.support.checkpoint_files import copy_golden, open_golden

LAYER = 3
EXPERT_BYTES = 3 * 32 * 128 * 4  # three matrices of the `text` reference in float32
BUDGETS = [0, EXPERT_BYTES - 1, EXPERT_BYTES, 3 * EXPERT_BYTES, None]


def open_store(
    name: str = "text", resident_bytes: int | None = None, dtype: torch.dtype = torch.float32
) -> DequantizedExperts:
    config, reader = open_golden(name)
    return DequantizedExperts.of_shards(reader, config, dtype, resident_bytes)


def routed(tokens: int, experts: int = 16, active: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return random hidden states [N, 128], distinct expert ids [N, A] and weights [N, A]."""
    generator = torch.Generator().manual_seed(seed)
    hidden_states = torch.randn(tokens, 128, generator=generator)
    expert_ids = torch.rand(tokens, experts, generator=generator).topk(active).indices
    return hidden_states, expert_ids, torch.rand(tokens, active, generator=generator)


def by_hand(hidden_states: Tensor, expert_ids: Tensor, expert_weights: Tensor) -> Tensor:
    """Run every token alone, in float64, with weights read one by one."""
    reader = open_golden("text")[1]
    result = torch.zeros_like(hidden_states, dtype=torch.float64)
    for token, (ids, weights) in enumerate(zip(expert_ids.tolist(), expert_weights.tolist(), strict=True)):
        x = hidden_states[token].double()
        for expert_id, weight in zip(ids, weights, strict=True):
            names = [expert_weight_name(LAYER, expert_id, f"{part}_proj") for part in ("gate", "up", "down")]
            gate, up, down = (reader.read(name, torch.float64) for name in names)
            result[token] += weight * (down @ (torch.nn.functional.silu(gate @ x) * (up @ x)))
    return result


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_sum_is_that_of_the_experts_taken_alone(budget: int | None) -> None:
    store, inputs = open_store(resident_bytes=budget), routed(9)
    # float32 sums of 128 products against float64: 1e-5 relative to outputs of about one.
    assert torch.allclose(store.run(LAYER, *inputs).double(), by_hand(*inputs), atol=1e-5)


@pytest.mark.parametrize("budget", BUDGETS)
def test_what_is_kept_never_changes_the_answer(budget: int | None) -> None:
    store, fresh = open_store(resident_bytes=budget), open_store(resident_bytes=0)
    for seed in range(2):
        for layer in (1, LAYER):
            inputs = routed(3, seed=seed)
            assert torch.equal(store.run(layer, *inputs), fresh.run(layer, *inputs))


@pytest.mark.parametrize("budget", BUDGETS)
def test_kept_bytes_stay_within_the_budget(budget: int | None) -> None:
    store = open_store(resident_bytes=budget)
    assert store.resident_bytes == (DEFAULT_RESIDENT_BYTES if budget is None else budget)
    for expert_id in range(16):
        weights = store.expert(LAYER, expert_id)
        assert sum(weight.nbytes for weight in weights) == EXPERT_BYTES
        assert store.nbytes <= store.resident_bytes
    assert store.nbytes == min(16, store.resident_bytes // EXPERT_BYTES) * EXPERT_BYTES


def test_hits_misses_and_bytes_are_counted() -> None:
    store = open_store(resident_bytes=2 * EXPERT_BYTES)
    stored_bytes = 3 * (32 * 128 + 4)  # FP8 and one scale per matrix
    for expert_id in (0, 1, 0, 2, 0, 1):  # 1 was used before 0, so 2 takes its place, and 1 that of 2
        store.expert(LAYER, expert_id)
    assert (store.hits, store.misses, store.bytes_read) == (2, 4, 4 * stored_bytes)
    store.clear()
    assert store.nbytes == 0 and store.misses == 4
    store.expert(LAYER, 0)
    assert store.misses == 5


def test_an_expert_is_fetched_once_for_all_its_tokens() -> None:
    store = open_store(resident_bytes=0)
    hidden_states, expert_ids, expert_weights = routed(200)
    store.run(LAYER, hidden_states, expert_ids, expert_weights)
    assert store.misses == expert_ids.unique().numel() and store.hits == 0


def test_the_same_expert_of_two_layers_is_two_experts() -> None:
    store = open_store()
    first, second = store.expert(1, 0), store.expert(2, 0)
    assert store.misses == 2 and not torch.equal(first[0], second[0])


def test_changing_an_expert_id_changes_the_answer() -> None:
    store = open_store()
    hidden_states, expert_ids, expert_weights = routed(3)
    before = store.run(LAYER, hidden_states, expert_ids, expert_weights)
    expert_ids[1, 2] = next(i for i in range(16) if i not in expert_ids[1])
    after = store.run(LAYER, hidden_states, expert_ids, expert_weights)
    # Tokens that share an expert with the changed one are multiplied in another batch: up to some 1e-6.
    assert ((before - after).abs() > 1e-3).any(dim=1).tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_experts_have_the_store_s_dtype(dtype: torch.dtype) -> None:
    store = open_store("text_mxfp4", dtype=dtype)
    gate, up, down = store.expert(1, 5)
    assert gate.dtype == up.dtype == down.dtype == dtype
    assert gate.shape == up.shape == (64, 128) and down.shape == (128, 64)
    assert store.bytes_read == 3 * 64 * 128 * 17 // 32


def test_gradients_reach_the_hidden_states_even_of_experts_read_in_inference_mode() -> None:
    store = open_store()
    hidden_states, expert_ids, expert_weights = routed(3)
    with torch.inference_mode():
        store.run(LAYER, hidden_states, expert_ids, expert_weights)
    hidden_states.requires_grad_()
    store.run(LAYER, hidden_states, expert_ids, expert_weights).sum().backward()
    assert hidden_states.grad is not None and bool((hidden_states.grad != 0).any(dim=1).all())


def test_no_tokens_give_no_rows() -> None:
    hidden_states, expert_ids, expert_weights = routed(1)
    store = open_store()
    assert store.run(LAYER, hidden_states[:0], expert_ids[:0], expert_weights[:0]).shape == (0, 128)
    assert store.misses == 0


def test_an_expert_that_is_not_there_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"`model\.layers\.3\.mlp\.experts\.16\.gate_proj\.weight` is missing"):
        open_store().expert(LAYER, 16)


def test_an_expert_of_another_shape_is_named() -> None:
    config, reader = open_golden("text")
    store = DequantizedExperts.of_shards(reader, replace(config, moe_intermediate_size=64), torch.float32)
    with pytest.raises(
        CheckpointError, match=r"experts\.0\.gate_proj\.weight.*has shape \[32, 128\], \[64, 128\] expected"
    ):
        store.expert(LAYER, 0)


def test_one_changed_scale_changes_the_answer(tmp_path: Path) -> None:
    folder = copy_golden("text", tmp_path / "model")
    info = TensorIndex.open(folder)[f"{expert_weight_name(LAYER, 0, 'down_proj')}_scale_inv"]
    data = bytearray(info.shard.read_bytes())
    data[info.offset + 2] ^= 0x01
    info.shard.write_bytes(bytes(data))
    config, _ = open_golden("text")
    damaged = DequantizedExperts.of_shards(CheckpointReader(TensorIndex.open(folder)), config, torch.float32)
    hidden_states, expert_ids, expert_weights = routed(6)
    expert_ids[0, 0] = 0
    before = open_store().run(LAYER, hidden_states, expert_ids, expert_weights)
    after = damaged.run(LAYER, hidden_states, expert_ids, expert_weights)
    assert torch.equal((before != after).any(dim=1), (expert_ids == 0).any(dim=1))
