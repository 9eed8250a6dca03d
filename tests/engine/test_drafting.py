"""MTP drafts against the reference set: same tokens, logits at the tolerance of the main model's."""

import pytest
import torch

from mimo_cli.engine import drafting
from tests.support.engines import golden_arrays, golden_engine, golden_ids


@pytest.mark.parametrize("number", [0, 1, 2])
def test_drafts_are_those_of_the_reference(number: int) -> None:
    arrays = golden_arrays()
    drafts = golden_engine().draft_logits(golden_ids(number))
    assert [int(logits[-1].argmax()) for logits in drafts] == arrays[f"seq{number}_draft_tokens"].tolist()
    for k, logits in enumerate(drafts):
        assert logits.shape == (len(golden_ids(number)), 512) and logits.dtype == torch.float32
        expected = torch.tensor(arrays[f"seq{number}_mtp_logits_rows"][k])
        error = (logits[arrays[f"seq{number}_mtp_rows"]] - expected).abs()
        assert error.max() <= 2e-3 and error.mean() <= 2e-4


def test_the_next_token_is_the_main_models_choice() -> None:
    ids = golden_ids(1)
    assert int(golden_engine().logits(ids)[-1].argmax()) == golden_arrays()["seq1_next_token"]


def test_modules_run_in_chunks_as_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = golden_engine().draft_logits(golden_ids(2))
    monkeypatch.setattr(drafting, "CHUNK_TOKENS", 60)
    for chunked, expected in zip(golden_engine().draft_logits(golden_ids(2)), whole, strict=True):
        torch.testing.assert_close(chunked, expected, atol=1e-4, rtol=0)


def test_a_module_feeds_the_next_one() -> None:
    ids = golden_ids(1)
    first, second, _ = golden_engine().draft_logits(ids)
    longer = golden_engine().draft_logits((*ids, golden_arrays()["seq1_next_token"].item()))
    # Rows that used prompt tokens only do not change when the next token becomes one of them; the drafted rows may.
    torch.testing.assert_close(longer[0][: len(ids) - 1], first[:-1], atol=1e-4, rtol=0)
    torch.testing.assert_close(longer[1][: len(ids) - 2], second[:-2], atol=1e-4, rtol=0)


def test_a_checkpoint_without_modules_drafts_nothing() -> None:
    assert golden_engine("text_mxfp4").draft_logits([1, 2, 3]) == []
