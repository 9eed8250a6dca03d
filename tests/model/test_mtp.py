"""MTP modules: reference logits and drafts, the wiring, their own cache."""

import pytest
import torch
from torch import Tensor

from mimo_cli.kvcache.cache import KVCache
from mimo_cli.model.mtp import MTPModule
from tests.support.text_checkpoint import TextCheckpoint, load_text_checkpoint
from tests.support.tiny_config import randomize, tiny_config


def _draft(golden: TextCheckpoint, i: int) -> tuple[list[Tensor], list[int]]:
    """Run all modules over sequence i, each fed with the drafts of those before; returns their logits and drafts."""
    ids = golden.ids(i)[0]
    positions = torch.arange(len(ids))
    states = golden.states(ids[None])
    tokens = [*ids.tolist(), int(golden.model.logits(states[0, -1]).argmax())]
    logits = []
    with torch.no_grad():
        for k, module in enumerate(golden.mtp):
            embeds = golden.model.embed(torch.tensor(tokens[1 + k :])[None])
            logits.append(golden.model.logits(module(embeds, states, positions))[0])
            tokens.append(int(logits[-1][-1].argmax()))
    return logits, tokens[len(ids) :]


@pytest.mark.parametrize("i", [0, 1, 2])
def test_logits_and_drafts_are_those_of_the_reference(i: int) -> None:
    golden = load_text_checkpoint("text")
    logits, drafts = _draft(golden, i)
    expected = golden.expected
    assert drafts == [int(expected[f"seq{i}_next_token"]), *expected[f"seq{i}_draft_tokens"].tolist()]
    rows = torch.stack(logits)[:, expected[f"seq{i}_mtp_rows"]]
    error = (rows - expected[f"seq{i}_mtp_logits_rows"]).abs()
    # The reference's own implementations differ by 1e-4; the tolerance is that of the main model's logits.
    assert error.max() <= 2e-3 and error.mean() <= 2e-4


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_rows_in_chunks_with_a_cache_equal_all_rows_at_once(chunk: int) -> None:
    golden = load_text_checkpoint("text")
    ids = golden.ids(2)
    states, embeds = golden.states(ids), golden.model.embed(ids).detach()
    module, cache = golden.mtp[1], KVCache.for_mtp(golden.config, torch.float32)
    with torch.no_grad():
        whole = module(embeds, states, torch.arange(400))
        parts = []
        for start in range(0, 400, chunk):
            part = slice(start, min(start + chunk, 400))
            positions = torch.arange(part.start, part.stop)
            parts.append(module(embeds[:, part], states[:, part], positions, cache))
            cache.advance(part.stop - part.start)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0, atol=1e-4)


def _tiny() -> tuple[MTPModule, Tensor, Tensor]:
    module = MTPModule(tiny_config())
    randomize(module)
    generator = torch.Generator().manual_seed(4)
    return module, torch.randn(1, 9, 16, generator=generator), torch.randn(1, 9, 16, generator=generator)


def test_only_relative_positions_matter() -> None:
    module, embeds, states = _tiny()
    near = module(embeds, states, torch.arange(9))
    torch.testing.assert_close(module(embeds, states, torch.arange(200, 209)), near, rtol=0, atol=1e-4)


def test_embedding_comes_first_and_the_state_second() -> None:
    module, embeds, states = _tiny()
    positions = torch.arange(9)
    before = module(embeds, states, positions)
    assert not torch.allclose(module(states, embeds, positions), before, atol=1e-2)
    with torch.no_grad():
        module.eh_proj.weight[:, 16:] = 0.0
    torch.testing.assert_close(module(embeds, states, positions), module(embeds, 5 + states, positions))


def test_the_last_rows_need_no_more_than_the_window_before_them() -> None:
    """One layer only: rows further back than the window cannot matter."""
    module, embeds, states = _tiny()
    positions, window = torch.arange(9), module.attention.window
    short = module(embeds[:, -window - 1 :], states[:, -window - 1 :], positions[-window - 1 :])
    torch.testing.assert_close(short[:, -1], module(embeds, states, positions)[:, -1], rtol=0, atol=1e-6)
    shorter = module(embeds[:, -window:], states[:, -window:], positions[-window:])
    assert not torch.allclose(shorter[:, -1], module(embeds, states, positions)[:, -1], atol=1e-4)


@pytest.mark.parametrize("name", ["enorm.weight", "hnorm.weight", "self_attn.attention_sink_bias", "eh_proj.weight"])
def test_one_changed_weight_changes_the_result(name: str) -> None:
    module, embeds, states = _tiny()
    before = module(embeds, states, torch.arange(9))
    with torch.no_grad():
        module.get_parameter(name).view(-1)[1] += 0.1
    assert not torch.equal(module(embeds, states, torch.arange(9)), before)


def test_padding_does_not_reach_real_rows() -> None:
    module, embeds, states = _tiny()
    alone = module(embeds, states, torch.arange(9))
    padded = [torch.cat([torch.full((1, 4, 16), 7.0), part], dim=1) for part in (embeds, states)]
    mask = torch.arange(13)[None] >= 4
    both = module(*padded, torch.arange(13), padding_mask=mask)
    torch.testing.assert_close(both[:, 4:], alone, rtol=0, atol=1e-5)
