"""A model on a card that is simulated: whatever lies there, tokens and logits are the same, and memory is kept to."""

import sys
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from mimo_cli.engine.card import UNTESTED, choose_device, measure_costs, require_cpu
from mimo_cli.engine.card_dense import dense_replacer
from mimo_cli.engine.engine import Engine
from mimo_cli.engine.load import LoadOptions, load_engine
from mimo_cli.errors import CapacityError, UsageError
from mimo_cli.kvcache.cache import KVCache
from mimo_cli.media.prompt import Prompt
from mimo_cli.model import attention
from mimo_cli.model.decoder import TextModel
from mimo_cli.model.moe import ResidentExperts
from mimo_cli.model.plain_attention import attend_plainly
from tests.support.engines import GOLDEN, MINIATURE, golden_engine, golden_ids, media_prompt, picture
from tests.support.kernels import kernels, needs_kernels
from tests.support.simulated_device import SimulatedDevice
from tests.support.tiny_config import tiny_config

pytestmark = needs_kernels

FIXED = 13_819_936 + 7_536_640 + 171_968_512
"""Dense part, KV cache of 512 tokens and buffers of the small FP8 checkpoint."""
SLOT = 28_672


def on_card(
    slots: int = 96, half: int = 1, seed: int = 0, device: SimulatedDevice | None = None, **options: Any
) -> Engine:
    """Load the small FP8 checkpoint onto a simulated card with room for some experts."""
    device = device or SimulatedDevice(kernels(), "exact", seed=seed, slow=0.2)
    vram = FIXED + (slots + 2 * half) * SLOT + 4 * 96
    chosen = LoadOptions(context_tokens=512, vram=str(vram), expert_bytes=96 * SLOT, **options)
    return load_engine(GOLDEN / "text", device=device, dtype="float32", options=chosen)


def answers(engine: Engine) -> tuple[list[int], Tensor]:
    """Return greedy tokens behind a prompt of 131 tokens, and all logits seen on the way."""
    ids = list(golden_ids(1))
    seen = [engine.logits(ids[:40])]
    sequence = engine.start_sequence(256)
    logits = sequence.prefill(Prompt(tuple(ids)))
    tokens = []
    for _ in range(6):
        seen.append(logits[None])
        tokens.append(int(logits.argmax()))
        logits = sequence.decode(tokens[-1])
    return tokens, torch.cat(seen)


@cache
def expected() -> tuple[list[int], Tensor]:
    with on_card() as engine:
        return answers(engine)


def test_tokens_are_those_of_the_processor_and_logits_within_rounding() -> None:
    tokens, logits = expected()
    plain_tokens, plain = answers(golden_engine("text"))
    assert tokens == plain_tokens
    # Dense layers are torch's here and native there: sums in another order, 2e-5 of logits around ten.
    assert (logits - plain).abs().max() < 5e-5


@pytest.mark.parametrize(("slots", "half", "seed"), [(0, 1, 1), (1, 1, 2), (5, 1, 3), (40, 2, 4), (95, 1, 5)])
def test_what_the_card_keeps_never_changes_a_bit(slots: int, half: int, seed: int) -> None:
    with on_card(slots, half, seed) as engine:
        assert engine.card is not None
        assert engine.card.experts.capacity == engine.card.budget.slots
        tokens, logits = answers(engine)
        counters = engine.card.experts.counters
    assert tokens == expected()[0] and torch.equal(logits, expected()[1])
    assert counters.computed + counters.copied > 0


def test_a_card_that_runs_out_of_memory_in_a_pass_goes_on_with_fewer_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    notices: list[str] = []
    with on_card(40) as engine:
        card, broken = engine.card, engine.decoder.layers[3].self_attn
        assert card is not None
        card.experts.on_notice = notices.append
        failures, forward = [1, 2], broken.forward

        def fail(*args: Any) -> Tensor:
            if failures:
                failures.pop()
                raise torch.OutOfMemoryError("scores")
            return forward(*args)

        monkeypatch.setattr(broken, "forward", fail)
        tokens, logits = answers(engine)
        assert card.experts.capacity == 40 - 4 - 3
    assert tokens == expected()[0] and torch.equal(logits, expected()[1])
    assert len(notices) == 2 and "ran out of memory: it keeps 36 experts" in notices[0]


def test_without_any_slot_left_the_error_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with on_card(1) as engine:

        def fail(*args: Any) -> Tensor:
            raise torch.OutOfMemoryError("scores")

        monkeypatch.setattr(engine.decoder.layers[0].self_attn, "forward", fail)
        with pytest.raises(torch.OutOfMemoryError):
            engine.logits(golden_ids(0))
        assert engine.card is not None and engine.card.experts.slots is None


def test_memory_of_the_card_is_kept_to() -> None:
    device = SimulatedDevice(kernels(), "exact")
    with on_card(10, device=device) as engine:
        assert engine.card is not None
        budget = engine.card.budget
        assert device.used_bytes <= budget.slots_bytes + budget.transfer_bytes
        assert budget.fixed_bytes + device.used_bytes <= budget.total_bytes
    assert device.used_bytes == 0


def test_too_small_a_card_is_refused_with_numbers_before_anything_is_read() -> None:
    with pytest.raises(CapacityError, match=r"the card needs 193 MB \(13\.8 MB for the dense part, .* 100 MB given"):
        load_engine(
            GOLDEN / "text",
            device=SimulatedDevice(kernels(), "exact"),
            dtype="float32",
            options=LoadOptions(context_tokens=512, vram="100M"),
        )


def test_a_context_beyond_what_the_card_keeps_memory_for_is_refused() -> None:
    with on_card(4) as engine, pytest.raises(CapacityError, match="the card keeps memory for 512"):
        engine.start_sequence(513)


def test_whoever_loads_is_told_that_nobody_tried_it() -> None:
    with on_card(7) as engine:
        assert UNTESTED in engine.notes
        assert any("dense part, KV cache and 7 of 96 experts" in note for note in engine.notes)


def test_pictures_are_seen_by_the_processor_s_tower() -> None:
    prompt = media_prompt([3, 4], picture(), [5])
    device = SimulatedDevice(kernels(), "exact")
    found = []
    for chosen in ("cpu", device):
        with load_engine(MINIATURE, device=chosen, dtype="float32", options=LoadOptions(context_tokens=512)) as engine:
            found.append(engine.start_sequence(64).prefill(prompt))
    assert (found[0] - found[1]).abs().max() < 1e-4 * found[0].abs().max()


def test_drafts_are_those_of_the_processor() -> None:
    with on_card(20) as engine:
        found = engine.draft_logits(golden_ids(0))
    for got, plain in zip(found, golden_engine("text").draft_logits(golden_ids(0)), strict=True):
        assert (got - plain).abs().max() < 5e-5


def test_times_are_measured_on_the_experts_themselves() -> None:
    with on_card(8) as engine:
        assert engine.card is not None
        costs = measure_costs(engine.card.experts, 1)
        assert 0 < costs.copy_s < 1 and 0 < costs.cpu_s < 1 and 0 <= costs.cpu_row_s < 1
        before = engine.card.experts.counters.hits
        assert torch.equal(answers(engine)[1], expected()[1]) and engine.card.experts.counters.hits > before


@pytest.mark.parametrize("slots", [20, 96])
def test_every_expert_of_a_token_is_counted_where_it_was_found(slots: int) -> None:
    with on_card(slots) as engine:
        assert engine.card is not None
        sequence = engine.start_sequence(64)
        logits = sequence.prefill(Prompt(tuple(golden_ids(1)[:8])))
        found = set()
        for _ in range(6):
            before = engine.expert_traffic()
            logits = sequence.decode(int(logits.argmax()))
            traffic = engine.expert_traffic() - before
            assert traffic.asked == engine.config.num_experts_per_tok * len(engine.config.moe_layers)
            assert traffic.hit_rate == (traffic.card_hits + traffic.hits) / traffic.asked
            found |= {"card"} if traffic.card_hits else set()
            found |= {"store"} if traffic.hits or traffic.misses else set()
        counters = engine.experts.counters
        assert counters.ram_bytes == counters.hits * engine.experts.records.record_bytes
        assert found == {"card", "store"}  # those of the card arrive while tokens are decoded


def test_dropping_experts_forgets_those_of_the_card() -> None:
    with on_card(96) as engine:
        answers(engine)
        engine.drop_experts()
        assert engine.card is not None and not engine.card.experts.holds_all
        assert torch.equal(answers(engine)[1], expected()[1])


@pytest.mark.parametrize("name", ["auto", "cpu"])
def test_the_processor_is_chosen_while_cards_are_untested(name: str) -> None:
    assert choose_device(name) == torch.device("cpu")
    require_cpu(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [("cuda", "no CUDA card found"), ("cuda:7", "is not there"), ("mps", "not supported"), ("gpu", "is unknown")],
)
def test_devices_that_are_not_there_are_refused(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=message):
        choose_device(name)


def test_a_card_that_is_there_is_named_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda") == torch.device("cuda", 0) and choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UsageError, match="2 CUDA cards found"):
        choose_device("cuda:2")
    with pytest.raises(UsageError, match="on the processor only"):
        require_cpu("cuda")


@pytest.mark.parametrize(("tokens", "block"), [(1, None), (9, None), (30, 8)])
def test_the_network_computes_on_the_device_of_its_weights(
    tokens: int, block: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors without memory know their device: an operation on them and on the processor's is an error."""
    monkeypatch.setattr(attention, "attend", attend_plainly)  # as on a card
    config = tiny_config()
    with torch.device("meta"), torch.no_grad():
        model = TextModel(config, ResidentExperts(config), torch.bfloat16)
    for layer in model.layers:
        if layer.is_moe:  # the expert tier has tests of its own
            layer.mlp.run_experts = lambda hidden, ids, weights: hidden * (weights[:, :1] + ids[:, :1]).to(hidden.dtype)
    cache = KVCache.for_decoder(config, torch.bfloat16, 64)
    for _ in range(2):
        embeddings = torch.empty(1, tokens, config.hidden_size, dtype=torch.bfloat16, device="meta")
        positions = torch.arange(cache.length, cache.length + tokens, device="meta")
        with torch.inference_mode():
            states = model(embeddings, positions, cache, block_tokens=block)
            cache.advance(tokens)
            assert model.logits(states).is_meta


def test_a_tensor_left_with_the_processor_would_be_noticed() -> None:
    with pytest.raises(RuntimeError, match="device"):
        torch.empty(2, 3, device="meta") + torch.ones(2, 3)


@pytest.mark.parametrize(("dense", "lost"), [("w8a8", 0.3), ("nf4", 0.6), ("int8", 0.3)])
def test_smaller_dense_layers_are_asked_for_by_name_and_said_to_be_lossy(dense: str, lost: float) -> None:
    with on_card(20, card_dense=dense) as engine:
        name = {"w8a8": "FP8", "nf4": "NF4", "int8": "8 bits"}[dense]
        assert len(engine.losses) == 1 and name in engine.losses[0]
        states = engine.logits(golden_ids(0))
    with on_card(20) as engine:
        assert engine.losses == ()
        plain = engine.logits(golden_ids(0))
    error = ((states - plain).norm() / plain.norm()).item()
    assert 1e-4 < error < lost  # one rounding of 4 or 8 bits for each of seven layers


def test_a_form_of_dense_layers_whose_library_is_missing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mimo_cli.quant.nf4", None)
    with pytest.raises(UsageError, match="needs bitsandbytes"):
        dense_replacer("nf4", torch.device("cpu"))
    assert dense_replacer("bf16", torch.device("cpu")) is None
