"""The whole text model: caches, chunks, batches and interruptions do not change what it says."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from mimo_cli.kvcache.cache import KVCache
from mimo_cli.model.decoder import TextModel
from mimo_cli.model.moe import ResidentExperts
from tests.support.text_checkpoint import load_text_checkpoint
from tests.support.tiny_config import WINDOW, tiny_config, tiny_model

TOKENS = 33
IDS = torch.randint(0, 40, (1, TOKENS), generator=torch.Generator().manual_seed(5))


def _whole(model: TextModel, ids: Tensor, padding_mask: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return model(model.embed(ids), torch.arange(ids.shape[1]), padding_mask=padding_mask)


def _cached(model: TextModel, ids: Tensor, cuts: list[int], cache: KVCache | None = None) -> Tensor:
    """Run ids in the pieces between the cuts through a KV cache."""
    cache = cache or KVCache.for_decoder(model.config, torch.float32)
    parts = []
    with torch.no_grad():
        for start, end in pairwise(cuts):
            parts.append(model(model.embed(ids[:, start:end]), torch.arange(start, end), cache))
            cache.advance(end - start)
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("chunk", [1, 3, 100, 400])
def test_a_prefill_in_any_chunks_gives_the_logits_of_the_whole(chunk: int) -> None:
    """400 tokens, more than three windows of 128; float32 sums in another order differ by some 1e-5."""
    golden = load_text_checkpoint("text")
    ids = golden.ids(2)
    whole = golden.model.logits(golden.states(ids))
    parts = golden.model.logits(_cached(golden.model, ids, [*range(0, 400, chunk), 400]))
    assert (parts - whole).abs().max() <= 1e-4
    assert torch.equal(parts.argmax(-1), whole.argmax(-1))


def test_uneven_chunks_around_the_window_give_the_same() -> None:
    golden = load_text_checkpoint("text")
    ids = golden.ids(2)
    whole = golden.model.logits(golden.states(ids))
    cuts = [0, 127, 128, 129, 130, 257, 258, 259, 320, 384, 385, 400]
    assert (golden.model.logits(_cached(golden.model, ids, cuts)) - whole).abs().max() <= 1e-4


@pytest.mark.parametrize("tokens", [WINDOW, WINDOW + 1, WINDOW + 2, 4 * WINDOW])
def test_token_by_token_equals_the_whole_at_the_edge_of_the_window(tokens: int) -> None:
    model = tiny_model()
    ids = IDS[:, :tokens]
    torch.testing.assert_close(_cached(model, ids, list(range(tokens + 1))), _whole(model, ids), rtol=0, atol=1e-5)


def test_tokens_beyond_a_window_still_matter_through_global_layers() -> None:
    model = tiny_model()
    changed = IDS.clone()
    changed[0, 0] = (changed[0, 0] + 1) % 40
    assert not torch.equal(_whole(model, IDS)[0, -1], _whole(model, changed)[0, -1])


@pytest.mark.parametrize("layer", range(4))
@pytest.mark.parametrize("tokens", [1, 20])
def test_a_pass_that_fails_in_any_layer_can_be_repeated_exactly(layer: int, tokens: int) -> None:
    model = tiny_model()
    cuts = [0, 12, 12 + tokens]
    expected = _cached(model, IDS, cuts)[:, 12:]
    cache = KVCache.for_decoder(model.config, torch.float32)
    _cached(model, IDS, [0, 12], cache)

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    hook = model.layers[layer].mlp.register_forward_pre_hook(fail)
    other = (IDS + 1) % 40  # what the failed pass wrote must not be what the next one needs
    with torch.no_grad(), pytest.raises(KeyboardInterrupt):
        model(model.embed(other[:, 12 : 12 + tokens]), torch.arange(12, 12 + tokens), cache)
    hook.remove()
    assert cache.length == 12
    with torch.no_grad():
        again = model(model.embed(IDS[:, 12 : 12 + tokens]), torch.arange(12, 12 + tokens), cache)
    assert torch.equal(again, expected)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_for_real_tokens(side: str) -> None:
    model = tiny_model()
    lengths = [TOKENS, 11, 1]
    ids = torch.zeros(3, TOKENS, dtype=torch.int64)
    mask = torch.zeros(3, TOKENS, dtype=torch.bool)
    for b, length in enumerate(lengths):
        rows = slice(0, length) if side == "right" else slice(TOKENS - length, TOKENS)
        ids[b, rows], mask[b, rows] = IDS[0, :length], True
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        states = model(model.embed(ids), positions, padding_mask=mask)
        noisy = model(model.embed(ids.masked_fill(~mask, 7)), positions, padding_mask=mask)
    assert torch.equal(states[mask], noisy[mask])
    for b, length in enumerate(lengths):
        torch.testing.assert_close(states[b][mask[b]][None], _whole(model, IDS[:, :length]), rtol=0, atol=1e-5)


def test_a_batch_equals_its_rows() -> None:
    model = tiny_model()
    ids = torch.cat([IDS, IDS.flip(1)])
    rows = [_whole(model, ids[b : b + 1]) for b in range(2)]
    torch.testing.assert_close(_whole(model, ids), torch.cat(rows), rtol=0, atol=1e-5)
    torch.testing.assert_close(_cached(model, ids, [0, 20, 21, TOKENS]), torch.cat(rows), rtol=0, atol=1e-5)


def test_a_padding_mask_beside_a_cache_is_refused() -> None:
    model = tiny_model()
    cache = KVCache.for_decoder(model.config, torch.float32)
    with pytest.raises(ValueError, match="not with a KV cache"):
        model(model.embed(IDS), torch.arange(TOKENS), cache, torch.ones(1, TOKENS, dtype=torch.bool))


def test_a_window_of_another_width_changes_the_result_past_it() -> None:
    narrow, wide = (_whole(tiny_model(sliding_window_size=w), IDS) for w in (WINDOW - 1, WINDOW))
    torch.testing.assert_close(narrow[:, :WINDOW], wide[:, :WINDOW], rtol=0, atol=1e-6)
    assert not torch.allclose(narrow[:, WINDOW], wide[:, WINDOW], atol=1e-4)


def test_a_model_can_be_built_without_memory_and_filled_by_name() -> None:
    config = tiny_config()
    with torch.device("meta"):
        empty = TextModel(config, ResidentExperts(config))
    filled = tiny_model()
    empty.load_state_dict(filled.state_dict(), strict=True, assign=True)
    assert not any(value.is_meta for value in empty.state_dict().values())
    assert torch.equal(_whole(empty, IDS), _whole(filled, IDS))


def test_experts_that_are_no_module_stay_outside_the_parameters() -> None:
    config = tiny_config()
    resident = ResidentExperts(config)

    class Elsewhere:
        run = staticmethod(resident.run)

    outside, inside = TextModel(config, Elsewhere()), TextModel(config, resident)
    assert {n for n, _ in inside.named_parameters()} - {n for n, _ in outside.named_parameters()} == {
        f"experts.{name}" for name, _ in resident.named_parameters()
    }


def test_tied_embeddings_are_one_parameter() -> None:
    model = tiny_model(tie_word_embeddings=True)
    assert model.embed_tokens.weight is model.lm_head.weight
    _whole(model, IDS)
    (model(model.embed(IDS), torch.arange(TOKENS)).sum() + model.lm_head.weight.sum()).backward()
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in tiny_model().parameters()) - 40 * 16


def test_layers_can_be_observed_by_hooks() -> None:
    model, seen = tiny_model(), []
    for layer in model.layers:
        layer.register_forward_hook(lambda *args: seen.append(args[2]))
    states = _whole(model, IDS)
    assert [tuple(s.shape) for s in seen] == [(1, TOKENS, 16)] * 4
    torch.testing.assert_close(model.norm(seen[-1]), states)


def test_logits_are_float32_in_every_compute_dtype() -> None:
    model = tiny_model(dtype=torch.bfloat16)
    states = _whole(model, IDS)
    assert states.dtype == torch.bfloat16
    assert model.logits(states).dtype == torch.float32


def test_nothing_in_the_network_is_computed_under_inference_mode() -> None:
    states = tiny_model()(tiny_model().embed(IDS), torch.arange(TOKENS))
    assert states.requires_grad and not states.is_inference()
