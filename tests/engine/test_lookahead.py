"""Guessing the next layer's experts: the next router's own choice, and never a different answer."""

from itertools import pairwise

import torch

from mimo_cli.engine.load import LoadOptions, load_engine
from mimo_cli.engine.lookahead import expect_first, next_experts
from mimo_cli.model.moe import MoE
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.offload.reading import Reading
from tests.support.engines import GOLDEN, golden_engine
from tests.support.kernels import needs_kernels


def test_the_guess_is_what_the_next_router_chooses() -> None:
    decoder = golden_engine("text").decoder
    layers = [i for i, layer in enumerate(decoder.layers) if isinstance(layer.mlp, MoE)]
    guess, states = next_experts(decoder), torch.randn(1, decoder.config.hidden_size)
    for layer, following in pairwise(layers):
        found = guess(layer, states)
        assert found is not None and found[0] == following
        assert found[1] == decoder.layers[following].mlp.gate(states)[0][0].tolist()
    assert guess(layers[-1], states) is None


@needs_kernels
def test_wrong_guesses_change_no_bit() -> None:
    answers = []
    for wrong in (False, True):
        options = LoadOptions(expert_bytes=300_000, reading=Reading("direct", 2))
        with load_engine(GOLDEN / "text", dtype="float32", options=options) as engine:
            experts = engine.experts
            assert isinstance(experts, ExpertStore) and experts.guess is not None
            if wrong:
                experts.guess = lambda layer, _: (layer % 6 + 1, [15, 14, 13])
            sequence = engine.start_sequence(64)
            answers.append(torch.stack([sequence.decode(token) for token in (5, 9, 70, 3, 41)]))
            assert experts.counters.prefetched > 0
    assert torch.equal(*answers)


@needs_kernels
def test_reading_ahead_at_a_tokens_start_finds_the_first_layers_experts_and_changes_no_bit() -> None:
    tokens = [5, 9, 70, 5, 9, 70, 5, 9, 70]
    answers, hits = [], []
    for is_on in (False, True):
        options = LoadOptions(expert_bytes=300_000, reading=Reading("direct", 2))
        with load_engine(GOLDEN / "text", dtype="float32", options=options) as engine:
            experts = engine.experts
            assert isinstance(experts, ExpertStore) and engine.on_token is not None
            experts.guess = None
            engine.on_token = engine.on_token if is_on else None
            sequence = engine.start_sequence(64)
            answers.append(torch.stack([sequence.decode(token) for token in tokens]))
            hits.append(experts.counters.used_prefetch)
    assert torch.equal(*answers)
    assert hits[0] == 0 and hits[1] > 0


@needs_kernels
def test_the_guess_of_an_unknown_token_is_the_routers_of_its_embedding_and_nobody_sees_it() -> None:
    options = LoadOptions(expert_bytes=300_000, reading=Reading("direct", 2))
    with load_engine(GOLDEN / "text", dtype="float32", options=options) as engine:
        experts, decoder = engine.experts, engine.decoder
        assert isinstance(experts, ExpertStore)
        asked: list[list[int]] = []
        experts.expect = lambda token, ask: asked.append(list(ask()))  # type: ignore[method-assign]
        on_token = expect_first(decoder, experts)
        assert on_token is not None
        layer = next(layer for layer in decoder.layers if isinstance(layer.mlp, MoE))
        seen: list[object] = []
        layer.mlp.gate.register_forward_hook(lambda *_: seen.append(_))
        with torch.inference_mode():
            embedding = decoder.embed(torch.tensor([9]))
            on_token(9, embedding)
            expected = layer.mlp.gate.forward(layer.post_attention_layernorm(embedding))[0][0].tolist()
        assert asked == [expected] and seen == []
