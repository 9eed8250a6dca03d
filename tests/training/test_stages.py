"""Stages learn, stop and go on: a resumed run equals one that was never interrupted."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from mimo_cli.checkpoint.audio_config import AudioTokenizerConfig
from mimo_cli.model.audio_tokenizer import AudioTokenizer
from training.architecture import audio_tokenizer_config
from training.export import Parts
from training.mix import text_sources
from training.packing import pack
from training.prompts import Example, Prompter
from training.settings import MtpSettings, Rows, TrunkSettings
from training.sources import Shelf
from training.stages.audio import WORD_IDS, fit_code_books, frame_labels
from training.stages.mtp import MtpStage
from training.stages.trunk import TrunkStage, weighed
from training.trunk import Trunk

SHAPE = Rows(1, 96, 1.0, {"drills": 1.0})


def _stage(prompter: Prompter, parts: Parts, folder: Path, steps: int, **changes: object) -> TrunkStage:
    parts = copy.deepcopy(parts)
    settings = dataclasses.replace(TrunkSettings(steps, (SHAPE,), evaluate_every=1000), **changes)
    stage = TrunkStage(parts.text, parts.audio, [text_sources(prompter, 96)], Shelf(), folder, settings, 1)
    stage.trunk = Trunk(parts.text, torch.float32, compiled=False)
    stage.evaluate = dict  # type: ignore[method-assign]  # not what is tested, and slow
    return stage


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(
    prompter: Prompter, small_parts: Parts, tmp_path: Path
) -> None:
    whole = _stage(prompter, small_parts, tmp_path / "whole", 4)
    whole.train()
    first = _stage(prompter, small_parts, tmp_path / "parts", 4)
    first.run.stop_after(2)
    with pytest.raises(SystemExit):
        first.train()
    second = _stage(prompter, small_parts, tmp_path / "parts", 4)
    second.train()
    assert second.run.step == 4
    for (name, one), other in zip(whole.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_fp8_rounding_changes_what_is_computed_not_what_is_kept(
    prompter: Prompter, small_parts: Parts, tmp_path: Path
) -> None:
    exact, rounded = (
        _stage(prompter, small_parts, tmp_path / "a", 1),
        _stage(prompter, small_parts, tmp_path / "b", 1, fp8_from=0.0),
    )
    start = exact.model.layers[0].self_attn.qkv_proj.weight.detach().clone()
    exact.train()
    rounded.train()
    one, other = (stage.model.layers[0].self_attn.qkv_proj.weight for stage in (exact, rounded))
    assert not torch.equal(one, other)
    assert (other - start).abs().max() < 0.1, "the rounded values are not written back"


def test_draft_modules_learn_from_a_frozen_trunk(prompter: Prompter, small_parts: Parts, tmp_path: Path) -> None:
    base = _stage(prompter, small_parts, tmp_path / "trunk", 1)
    before = base.model.lm_head.weight.detach().clone()
    stage = MtpStage(base, small_parts.mtp, tmp_path / "mtp", MtpSettings(steps=2))
    weight = stage.modules[2].eh_proj.weight.detach().clone()
    stage.train()
    assert not torch.equal(stage.modules[2].eh_proj.weight, weight)
    assert torch.equal(base.model.lm_head.weight, before)


def test_words_are_marked_near_their_end() -> None:
    labels = frame_labels([("red", 0.0, 0.4), ("circle", 0.4, 1.2)], 40)
    marked = {word: np.flatnonzero(labels == WORD_IDS[word]).tolist() for word in ("red", "circle")}
    assert marked == {"red": list(range(6, 13)), "circle": list(range(22, 33))}


def test_code_books_leave_less_and_less_over() -> None:
    torch.manual_seed(0)
    codec = AudioTokenizer(AudioTokenizerConfig.from_dict(audio_tokenizer_config()))
    features = torch.randn(600, 96) @ torch.randn(96, 96)
    left = fit_code_books(codec, features, rounds=3)
    assert left == sorted(left, reverse=True) and left[-1] < 0.9 * left[0]
    books = [stage._codebook.embed for stage in codec.quantizer.vq.layers]
    assert all(torch.equal(book, book.bfloat16().float()) for book in books), "inference reads them in bfloat16"


def test_an_example_weighs_the_root_of_its_length() -> None:
    ids = np.arange(12)
    batch = pack(iter([[Example(ids[:3], ids[:3], 2)], [Example(ids, ids, 3)]]), 1, 16, share=False)
    losses = torch.tensor([1.0] + [0.0] * 9)  # one token of the first, nine of the second
    assert weighed(losses, batch) == pytest.approx(1 / (1 + 3))
    assert weighed(1 - losses, batch) == pytest.approx(3 / (1 + 3))
