"""Waves: a long prompt reads each expert of a layer once for many tokens, with the bits of one block after another."""

import dataclasses

import pytest
import torch

from mimo_cli.engine import sequence as sequence_module
from mimo_cli.engine.engine import Engine
from mimo_cli.engine.expert_memory import ExpertMemory
from mimo_cli.engine.load import LoadOptions, load_engine
from mimo_cli.engine.sequence import Sequence
from mimo_cli.engine.waves import CHUNK_TOKENS, Wave, plan_wave, row_bytes
from mimo_cli.media.prompt import Prompt
from mimo_cli.model.moe import MoE
from mimo_cli.offload import expert_store
from mimo_cli.offload.expert_store import ExpertStore
from tests.support.engines import GOLDEN, fresh, golden_engine, golden_ids
from tests.support.kernels import needs_kernels
from tests.support.stores import made_store
from tests.support.tiny_config import tiny_config

BLOCK = 48
IDS = golden_ids(2)  # 400 tokens: past the window of 128
SIZES = {"slots": 100, "experts": 1000, "slot_bytes": 500, "row_bytes": 10, "least_slots": 20}


def planned(tokens: int, **changed: int) -> tuple[int, int]:
    """Tokens of a wave and slots lent, for blocks of 100 tokens."""
    wave = plan_wave(tokens, 100, **(SIZES | changed))
    return wave.tokens, wave.lent_slots


def test_a_prompt_of_one_block_lends_nothing() -> None:
    assert planned(100) == (100, 0) and planned(7) == (7, 0)


def test_a_prompt_that_fits_goes_through_in_one_wave_in_the_memory_of_slots() -> None:
    assert planned(1000) == (1000, 18)  # 900 rows of 10 bytes in slots of 500
    assert planned(950) == (1000, 17)


def test_longer_prompts_go_in_waves_of_whole_blocks_about_as_long() -> None:
    assert planned(10_000) == (3400, 66)  # 80 slots can be lent: 4,000 rows
    assert planned(10_000, least_slots=90)[0] == 600


def test_where_memory_holds_all_experts_nothing_is_lent() -> None:
    assert planned(10_000, slots=1000) == (100, 0)
    assert planned(1000, slots=998) == (100, 0)  # lending would read more than it saves


def test_with_hardly_any_slots_blocks_go_one_by_one() -> None:
    assert planned(10_000, slots=20) == (100, 0)


def test_a_plan_never_reads_more_than_blocks_alone_and_keeps_the_least() -> None:
    for tokens in range(50, 6000, 130):
        for slots in (20, 25, 60, 300, 999):
            wave = plan_wave(tokens, 100, **(SIZES | {"slots": slots}))
            reads = -(-tokens // wave.tokens) * (1000 - slots + wave.lent_slots) + wave.lent_slots
            assert reads == wave.reads <= -(-tokens // 100) * (1000 - slots)
            assert slots - wave.lent_slots >= 20 and (wave.tokens % 100 == 0 or wave.tokens == tokens < 100)


def test_a_row_of_the_release_takes_some_tens_of_kilobytes() -> None:
    config = tiny_config(hidden_size=4096, n_routed_experts=16, num_experts_per_tok=8)
    assert 70_000 < row_bytes(config, torch.bfloat16) < 80_000 < row_bytes(config, torch.float32)


def read_by(engine: Engine, chunk_tokens: int, ids: tuple[int, ...] = IDS) -> tuple[torch.Tensor, Sequence]:
    """Return all hidden states [T, H] of a prompt in passes of so many tokens, and the sequence."""
    sequence = fresh(engine)
    return torch.cat(list(sequence.read(Prompt(ids), chunk_tokens))), sequence


@needs_kernels
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "kind"), [("text", None), ("text_mxfp4", None), ("text", "int4")])
def test_waves_have_the_bits_of_one_block_after_another(
    name: str, kind: str | None, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence_module, "CHUNK_TOKENS", BLOCK)
    folder = made_store(name, kind) if kind else GOLDEN / name
    vocabulary = golden_engine(name).config.vocab_size
    ids = tuple(token % vocabulary for token in IDS)
    with load_engine(folder, dtype=dtype, options=LoadOptions(expert_bytes=100_000)) as engine:
        expected, plain = read_by(engine, BLOCK, ids)
        expected_next = [plain.decode(token) for token in ids[:20]]
        for wave_tokens in (2 * BLOCK, 3 * BLOCK, 20 * BLOCK):
            states, sequence = read_by(engine, wave_tokens, ids)
            assert torch.equal(states, expected)
            assert all(torch.equal(sequence.decode(t), e) for t, e in zip(ids[:20], expected_next, strict=True))


@needs_kernels
def test_the_kernels_take_a_wave_in_blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = golden_engine()
    expected, _ = read_by(engine, 400)
    monkeypatch.setattr(expert_store, "BLOCK_ROWS", 37)
    assert torch.equal(read_by(engine, 400)[0], expected)


@needs_kernels
def test_a_wave_reads_each_expert_of_a_layer_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence_module, "CHUNK_TOKENS", BLOCK)
    with load_engine(GOLDEN / "text", dtype="float32", options=LoadOptions(expert_bytes=1)) as engine:
        read_by(engine, BLOCK)
        by_blocks = engine.expert_traffic()
        read_by(engine, 10 * BLOCK)
        in_one = engine.expert_traffic() - by_blocks
    layers = len(engine.config.moe_layers)
    assert in_one.misses <= layers * engine.config.n_routed_experts
    assert by_blocks.misses > 6 * in_one.misses


@needs_kernels
def test_an_interrupted_wave_leaves_the_sequence_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence_module, "CHUNK_TOKENS", BLOCK)
    engine = golden_engine()
    sequence = fresh(engine)
    list(sequence.read(Prompt(IDS[:150]), BLOCK))
    last_moe = [layer.mlp for layer in engine.decoder.layers if isinstance(layer.mlp, MoE)][-1]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    handle = last_moe.register_forward_hook(interrupt)
    for stop in (400, 250):
        with pytest.raises(KeyboardInterrupt):
            list(sequence.read(Prompt(IDS[:stop]), 8 * BLOCK))
        assert sequence.ids == list(IDS[:150])
    handle.remove()
    # Blocks begin where reading goes on: the same as if nobody had pressed anything.
    plain = fresh(engine)
    list(plain.read(Prompt(IDS[:150]), BLOCK))
    rest = torch.cat(list(plain.read(Prompt(IDS), BLOCK)))
    assert torch.equal(torch.cat(list(sequence.read(Prompt(IDS), 8 * BLOCK))), rest)


@needs_kernels
def test_a_long_prompt_borrows_the_memory_of_slots_and_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence_module, "CHUNK_TOKENS", BLOCK)
    with load_engine(GOLDEN / "text", dtype="float32") as engine:
        assert engine.memory is not None and engine.budget is not None
        expected, _ = read_by(engine, BLOCK)
        cache = engine.experts.cache  # type: ignore[union-attr]
        limits = []
        monkeypatch.setattr(engine.memory, "plan_wave", lambda tokens: Wave(8 * BLOCK, 5))
        hook = engine.decoder.layers[2].register_forward_hook(lambda *_: limits.append(cache.limit))
        states = torch.cat(list(fresh(engine).read(Prompt(IDS))))
        hook.remove()
        assert set(limits) == {cache.capacity - 5} and cache.limit == cache.capacity
        assert torch.equal(states, expected)


@needs_kernels
def test_the_plan_of_an_engine_counts_its_own_slots() -> None:
    with load_engine(GOLDEN / "text", dtype="float32") as engine:
        assert engine.memory is not None and engine.budget is not None and isinstance(engine.experts, ExpertStore)
        assert engine.memory.plan_wave(100_000) == Wave(CHUNK_TOKENS)  # all experts fit
        budget = dataclasses.replace(engine.budget, experts=10**6)
        memory = ExpertMemory(engine.experts, budget, engine.config, engine.dtype)
        wave = memory.plan_wave(5 * CHUNK_TOKENS)
        slots = engine.experts.cache.capacity
        assert wave.tokens >= CHUNK_TOKENS and slots - wave.lent_slots >= budget.step_slots
