"""The engine: contexts and their limits, one-shot logits, what closing gives back."""

from dataclasses import replace

import pytest
import torch

from mimo_cli.engine import engine as engine_module
from mimo_cli.engine.context import DEFAULT_CONTEXT_TOKENS
from mimo_cli.errors import CapacityError, UsageError
from mimo_cli.offload.budget import MemoryBudget
from tests.support.engines import GOLDEN, golden_engine, golden_ids, load_changed

ENGINE = golden_engine()


def test_a_context_is_32k_unless_said() -> None:
    assert ENGINE.start_sequence().max_tokens == DEFAULT_CONTEXT_TOKENS
    assert ENGINE.start_sequence(70_000).max_tokens == 70_000


@pytest.mark.parametrize("max_tokens", [0, -5, 2_000_000])
def test_a_context_outside_the_models_is_refused(max_tokens: int) -> None:
    with pytest.raises(UsageError, match="1 to 1,048,576"):
        ENGINE.start_sequence(max_tokens)


def test_a_context_that_memory_does_not_hold_is_refused_with_the_one_that_fits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_module, "available_bytes", lambda: 5000 * ENGINE.kv_bytes_per_token)
    with pytest.raises(CapacityError, match=r"needs .* MB, .* MB are free") as caught:
        ENGINE.start_sequence(8192)
    assert caught.value.hint == "start with --ctx 4096"
    assert ENGINE.start_sequence().max_tokens == 5000


def test_logits_are_float32_for_every_token() -> None:
    ids = golden_ids(0)
    logits = ENGINE.logits(iter(ids))
    assert logits.shape == (17, 512) and logits.dtype == torch.float32
    torch.testing.assert_close(ENGINE.logits(ids[:9]), logits[:9], atol=1e-4, rtol=0)


def test_logits_of_nothing_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="empty"):
        ENGINE.logits([])


def test_traffic_grows_with_use_and_dropped_experts_are_read_again() -> None:
    with load_changed(GOLDEN / "text_mxfp4") as engine:
        engine.logits([1, 2, 3])
        first = engine.expert_traffic()
        assert first.misses > 0 and first.bytes_read > 0
        engine.logits([1, 2, 3])
        second = engine.expert_traffic() - first
        assert second.misses == 0 and second.hits == first.misses
        engine.drop_experts()
        engine.logits([1, 2, 3])
        assert (engine.expert_traffic() - first - second).bytes_read == first.bytes_read


def test_closing_gives_back_experts_and_files() -> None:
    with load_changed(GOLDEN / "text_mxfp4") as engine:
        engine.logits([1, 2, 3])
        assert engine.experts.nbytes > 0
    assert engine.experts.nbytes == 0


def test_memory_below_the_experts_of_one_token_is_announced() -> None:
    budget = MemoryBudget(
        total_bytes=2 * 10**9,
        process_bytes=0,
        dense_bytes=10**9,
        kv_bytes=0,
        buffer_bytes=0,
        slot_bytes=10**8,
        experts=100,
        step_slots=4,
        cycle_slots=40,
    )
    engine = golden_engine("text")
    small, enough = replace(engine, budget=budget), replace(engine, budget=replace(budget, total_bytes=5 * 10**9))
    assert any("holds 10 experts, a token needs 40" in note and "--ram 5 GB" in note for note in small.notes)
    assert not any("a token needs" in note for note in enough.notes)
