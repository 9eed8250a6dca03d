"""One layer of experts: random ones at each step, all from memory, counted byte for byte."""

import pytest
import torch

from mimo_cli.engine.moe_bench import MoeLayerRow, MoeLayerSpec, fill_layer, measure_moe_layer, resident_bytes
from mimo_cli.engine.random_weights import RandomRecords
from mimo_cli.engine.read_ceiling import ReadCeiling
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.offload.record_source import RecordSource
from mimo_cli.quant.random_streams import RandomStreams
from tests.support.kernels import kernels, needs_kernels
from tests.support.tiny_shape import ACTIVE, EXPERTS, tiny_release

pytestmark = needs_kernels
CONFIG = tiny_release()


def full_store(kind: str = "int4") -> ExpertStore:
    records = RandomRecords(CONFIG, kind, RandomStreams())
    store = ExpertStore(
        RecordSource(records), kernels(), "exact", [1], EXPERTS, resident_bytes(records.record_bytes, EXPERTS)
    )
    fill_layer(store, CONFIG, 1, torch.float32)
    return store


def measure(store: ExpertStore, **spec: int) -> MoeLayerRow:
    ceiling = ReadCeiling.over(kernels(), 1 << 20)
    return measure_moe_layer(store, CONFIG, 1, torch.float32, ceiling, MoeLayerSpec(**spec))


def test_filling_reads_every_expert_once_and_keeps_it() -> None:
    heard: list[int] = []
    records = RandomRecords(CONFIG, "int4", RandomStreams())
    store = ExpertStore(
        RecordSource(records), kernels(), "exact", [1], EXPERTS, resident_bytes(records.record_bytes, EXPERTS)
    )
    fill_layer(store, CONFIG, 1, torch.float32, heard.append)
    assert (store.misses, store.hits, sum(heard)) == (EXPERTS, 0, EXPERTS)
    measure(store, rounds=1, steps=2)
    assert store.misses == EXPERTS


@pytest.mark.parametrize("kind", ["int4", "mxfp4", "fp8"])
def test_bytes_are_those_of_the_chosen_experts_with_their_scales(kind: str) -> None:
    store = full_store(kind)
    row = measure(store, rounds=2, steps=3)
    assert row.weight_bytes == ACTIVE * store.records.record_bytes
    assert row.weights_gbps == pytest.approx(row.weight_bytes / row.decode_ms * 1000 / 1e9)
    assert row.working_set_bytes >= EXPERTS * store.records.record_bytes
    assert row.bits_per_weight == pytest.approx(8 * row.weight_bytes / ACTIVE / (3 * 64 * 128), rel=0.5)
    assert row.read_ceiling_gbps > 0 and row.ceiling_share > 0 and row.prefill_tps > 0


def test_every_step_asks_for_new_experts_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store, asked = full_store(), []
    original = store.run

    def run(layer: int, hidden_states: torch.Tensor, expert_ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        asked.append(expert_ids)
        return original(layer, hidden_states, expert_ids, weights)

    monkeypatch.setattr(store, "run", run)
    row = measure(store, rounds=3, steps=10)
    single = [tuple(ids[0].tolist()) for ids in asked if len(ids) == 1]
    assert len(single) == 1 + 3 * 10 and all(len(set(ids)) == ACTIVE for ids in single)
    assert len(set(single)) > 10 and {expert for ids in single for expert in ids} == set(range(EXPERTS))
    prompts = [len(ids) for ids in asked if len(ids) > 1]
    assert prompts == [row.prefill_tokens] * 4 and row.prefill_tokens == 16 * EXPERTS // ACTIVE


def test_the_kernels_are_really_called() -> None:
    store = full_store()
    before = kernels().use
    measure(store, rounds=2, steps=3)
    used = kernels().use.since(before)
    assert used.calls == 2 + 2 * (3 + 1)
    assert (
        used.weight_bytes
        == (1 + 2 * 3) * ACTIVE * store.records.record_bytes + 3 * EXPERTS * store.records.record_bytes
    )
    assert used.seconds > 0
