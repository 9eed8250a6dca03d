"""The store on native kernels: the sums of the dequantised experts, the same bits whatever is kept, exact counters."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.names import expert_weight_name
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.errors import CheckpointError, MimoError
from mimo_cli.offload.dequantized_experts import DequantizedExperts
from mimo_cli.offload.expert_store import DEFAULT_RESIDENT_BYTES, ExpertStore
from mimo_cli.offload.extent_reader import read_bytes
from mimo_cli.offload.record_source import RecordSource
from mimo_cli.offload.shard_records import ShardRecords, open_shard_records
from mimo_cli.quant.buffers import PAGE_BYTES, round_up
from mimo_cli.quant.kernels import Kernels, Precision
from tests.support.checkpoint_files import copy_golden, open_golden
from tests.support.kernels import kernels, needs_kernels

pytestmark = needs_kernels

LAYER = 3
EXPERTS = {"text": 16, "text_mxfp4": 8}
NAMES = list(EXPERTS)


def open_store(
    name: str = "text",
    resident_bytes: int = DEFAULT_RESIDENT_BYTES,
    precision: Precision = "exact",
    native: Kernels | None = None,
) -> ExpertStore:
    config, reader = open_golden(name)
    native = native or kernels()
    records = open_shard_records(reader, config, native, torch.float32)
    assert records is not None
    return over_records(records, native, precision, resident_bytes)


def over_records(
    records: ShardRecords, native: Kernels, precision: Precision = "exact", resident_bytes: int = DEFAULT_RESIDENT_BYTES
) -> ExpertStore:
    """Run the experts of a small checkpoint, of all layers there can be."""
    return ExpertStore(RecordSource(records), native, precision, range(8), 32, resident_bytes)


def layer_of(name: str) -> int:
    return LAYER if name == "text" else 1


def slot_bytes(name: str = "text") -> int:
    return round_up(open_store(name).records.record_bytes, PAGE_BYTES)


def routed(tokens: int, name: str = "text", seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return random hidden states [N, 128], distinct expert ids [N, A] and weights [N, A]."""
    generator = torch.Generator().manual_seed(seed)
    hidden_states = torch.randn(tokens, 128, generator=generator)
    expert_ids = torch.rand(tokens, EXPERTS[name], generator=generator).topk(min(4, EXPERTS[name])).indices
    return hidden_states, expert_ids, torch.rand(tokens, expert_ids.shape[1], generator=generator)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tokens", [1, 2, 5, 40])
def test_the_sum_is_that_of_the_dequantised_experts(name: str, tokens: int) -> None:
    config, reader = open_golden(name)
    plain = DequantizedExperts.of_shards(reader, config, torch.float32)
    inputs = routed(tokens, name)
    found, expected = (source.run(layer_of(name), *inputs) for source in (open_store(name), plain))
    # Activations of 16 bits: 3e-6 of the norm before FP8, 3e-5 before integers, twice along the way.
    assert (found - expected).norm() <= {"text": 1e-5, "text_mxfp4": 1e-4}[name] * expected.norm()


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(slots=st.integers(0, 20), tokens=st.integers(1, 9), seed=st.integers(0, 5), data=st.data())
def test_no_budget_and_no_history_change_a_bit(
    name: str, slots: int, tokens: int, seed: int, data: st.DataObject
) -> None:
    store = open_store(name, slots * slot_bytes(name) + data.draw(st.integers(0, 4095)))
    for before in data.draw(st.lists(st.integers(10, 13), max_size=3)):
        store.run(layer_of(name), *routed(4, name, seed=before))
    inputs = routed(tokens, name, seed)
    assert torch.equal(store.run(layer_of(name), *inputs), open_store(name).run(layer_of(name), *inputs))
    assert store.nbytes <= max(store.resident_bytes, slot_bytes(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_token_s_sum_does_not_depend_on_its_neighbours(name: str) -> None:
    store, inputs = open_store(name), routed(37, name)
    whole = store.run(layer_of(name), *inputs)
    for size in (1, 3, 16):
        parts = zip(*(tensor.split(size) for tensor in inputs), strict=True)
        assert torch.equal(torch.cat([store.run(layer_of(name), *part) for part in parts]), whole)


def test_instruction_sets_and_threads_agree() -> None:
    inputs = routed(9)
    expected = open_store().run(LAYER, *inputs)
    for isa in ("avx2", "avx512"):
        try:
            native = [Kernels(isa, threads) for threads in (1, 3)]
        except ValueError:
            continue
        one, three = (open_store(native=n).run(LAYER, *inputs) for n in native)
        assert torch.equal(one, three)
        assert (one - expected).norm() <= 1e-5 * expected.norm()


def test_one_native_call_runs_a_step_that_fits() -> None:
    store = open_store()
    store.run(LAYER, *routed(100))  # what has to be read comes in as many calls as it arrives in
    before, native = store.kernels.calls, store.native_calls
    store.run(LAYER, *routed(1))
    store.run(LAYER, *routed(50))
    assert (store.native_calls - native, store.kernels.calls - before) == (2, 2)
    assert (store.misses, store.hits) == (16, 4 + 16)


@pytest.mark.parametrize("slots", [1, 3, 5, 15, 16])
def test_a_step_beyond_the_budget_reads_every_expert_once(slots: int) -> None:
    store = open_store(resident_bytes=slots * slot_bytes())
    store.run(LAYER, *routed(100))
    assert 1 <= store.native_calls <= 16 and store.misses == 16
    assert store.nbytes <= slots * slot_bytes()


def test_bytes_read_are_those_of_the_shards() -> None:
    store = open_store()
    store.run(LAYER, *routed(1))
    needed = 4 * 3 * (32 * 128 + 4)  # FP8 and one scale per matrix; what lies between near ones is read with them
    assert needed <= store.bytes_read <= 4 * read_bytes(store.records.extents(LAYER, 0))
    store.clear()
    assert store.nbytes == 0
    store.run(LAYER, *routed(1))
    assert store.misses == 8


def test_the_same_expert_twice_counts_twice() -> None:
    store = open_store()
    hidden_states, expert_ids, expert_weights = routed(1)
    doubled = torch.cat([expert_ids[:, :2], expert_ids[:, :2]], dim=1)
    found = store.run(LAYER, hidden_states, doubled, expert_weights)
    weights = expert_weights[:, :2] + expert_weights[:, 2:]
    expected = store.run(LAYER, hidden_states, expert_ids[:, :2], weights)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_no_tokens_give_no_rows() -> None:
    store = open_store()
    assert store.run(LAYER, *(tensor[:0] for tensor in routed(1))).shape == (0, 128)
    assert (store.misses, store.native_calls) == (0, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_result_has_the_dtype_of_the_input(dtype: torch.dtype) -> None:
    hidden_states, *routing = routed(2)
    assert open_store().run(LAYER, hidden_states.to(dtype), *routing).dtype == dtype


def test_int8_activations_are_less_exact_and_said_so_by_their_name() -> None:
    inputs = routed(20, "text_mxfp4")
    exact, rough = (open_store("text_mxfp4", precision=p).run(1, *inputs) for p in ("exact", "int8"))
    error = (exact - rough).norm() / exact.norm()
    assert 1e-3 < error < 3e-2  # 8 bits: half a step of 1/127 of the largest, against a norm of a third of it


def test_gradients_are_refused() -> None:
    hidden_states, *routing = routed(1)
    with pytest.raises(MimoError, match="no gradients"):
        open_store().run(LAYER, hidden_states.requires_grad_(), *routing)


def test_changing_an_expert_id_changes_that_token_alone() -> None:
    store = open_store()
    hidden_states, expert_ids, expert_weights = routed(3)
    before = store.run(LAYER, hidden_states, expert_ids, expert_weights)
    expert_ids[1, 2] = next(i for i in range(16) if i not in expert_ids[1])
    after = store.run(LAYER, hidden_states, expert_ids, expert_weights)
    assert (before != after).any(dim=1).tolist() == [False, True, False]


def test_one_changed_scale_changes_the_answer(tmp_path: Path) -> None:
    folder = copy_golden("text", tmp_path / "model")
    info = TensorIndex.open(folder)[f"{expert_weight_name(LAYER, 0, 'down_proj')}_scale_inv"]
    data = bytearray(info.shard.read_bytes())
    data[info.offset + 2] ^= 0x01
    info.shard.write_bytes(bytes(data))
    config, _ = open_golden("text")
    records = open_shard_records(CheckpointReader(TensorIndex.open(folder), config), config, kernels(), torch.float32)
    assert records is not None
    hidden_states, expert_ids, expert_weights = routed(6)
    expert_ids[0, 0] = 0
    before = open_store().run(LAYER, hidden_states, expert_ids, expert_weights)
    after = over_records(records, kernels()).run(LAYER, hidden_states, expert_ids, expert_weights)
    assert torch.equal((before != after).any(dim=1), (expert_ids == 0).any(dim=1))


def test_an_expert_that_is_not_there_is_named_and_the_store_goes_on() -> None:
    store = open_store(resident_bytes=0)
    hidden_states, expert_ids, expert_weights = routed(1)
    with pytest.raises(CheckpointError, match=r"`model\.layers\.3\.mlp\.experts\.16\.gate_proj\.weight` is missing"):
        store.run(LAYER, hidden_states, expert_ids * 0 + 16, expert_weights)
    assert torch.isfinite(store.run(LAYER, hidden_states, expert_ids, expert_weights)).all()


def test_experts_of_another_shape_than_the_configuration_s_are_no_records() -> None:
    config, reader = open_golden("text")
    assert open_shard_records(reader, replace(config, moe_intermediate_size=64), kernels(), torch.float32) is None
