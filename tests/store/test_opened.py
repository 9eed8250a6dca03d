"""A store as a model: it computes what its decoded weights say, in every format, with kernels and without."""

import os
from pathlib import Path

import pytest
import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.engine.engine import Engine
from mimo_cli.engine.load import LoadOptions, load_engine
from mimo_cli.errors import CheckpointError
from mimo_cli.offload.dequantized_experts import DequantizedExperts
from mimo_cli.offload.expert_store import ExpertStore
from mimo_cli.offload.record_source import RecordSource
from mimo_cli.quant.buffers import allocate_bytes
from mimo_cli.quant.linear import PackedLinear
from mimo_cli.store.opened import open_model
from mimo_cli.store.records import StoreRecords
from tests.support.engines import (
    golden_engine,
    golden_ids,
    last_logits,
    media_prompt,
    miniature_engine,
    picture,
    recording,
)
from tests.support.stores import copied_store, flip_byte, made_store

FORMATS = [("int4", 32, "keep"), ("int4", 128, "int8"), ("mxfp4", 32, "int4"), ("fp8", 32, "int8")]


def _load(*arguments: object) -> Engine:
    return load_engine(made_store(*arguments), dtype="float32")  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "experts"), [("text", "fp8"), ("text_mxfp4", "mxfp4")])
def test_a_store_that_keeps_everything_gives_the_same_logits_bit_for_bit(name: str, experts: str) -> None:
    ids = golden_ids(0, name)
    with _load(name, experts) as engine:
        assert isinstance(engine.experts, ExpertStore) and isinstance(engine.experts.records, StoreRecords)
        assert torch.equal(engine.logits(ids), golden_engine(name).logits(ids))
        assert engine.losses == () and engine.experts.bytes_read > 0
        for mine, reference in zip(engine.draft_logits(ids), golden_engine(name).draft_logits(ids), strict=True):
            assert torch.equal(mine, reference)


@pytest.mark.parametrize(("experts", "group", "dense"), FORMATS)
def test_the_kernels_compute_what_the_decoded_store_says(
    experts: str, group: int, dense: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = golden_ids(0)
    with _load("text", experts, group, dense) as engine:
        packed = [module for module in engine.decoder.modules() if isinstance(module, PackedLinear)]
        assert any(module.shape.format == dense for module in packed) == (dense != "keep")
        logits, drafts = engine.logits(ids), engine.draft_logits(ids)
        assert engine.losses
    monkeypatch.setenv("MIMO_ISA", "none")
    with _load("text", experts, group, dense) as engine:  # the reference decoder and torch
        assert isinstance(engine.experts, DequantizedExperts)
        expected, expected_drafts = engine.logits(ids), engine.draft_logits(ids)
    # The exact kernels carry 16 bits of each activation: 2e-5 of a value, over seven layers of logits up to 10.
    torch.testing.assert_close(logits, expected, atol=5e-3, rtol=0)
    for mine, reference in zip(drafts, expected_drafts, strict=True):
        torch.testing.assert_close(mine, reference, atol=5e-3, rtol=0)


def test_pictures_and_sound_run_on_a_store_and_matter() -> None:
    image, sound = picture(3), recording(4)
    prompt = media_prompt([1, 2, 3], image, [4, 5], sound, [6])
    with _load("miniature", "fp8") as engine:
        logits = last_logits(engine, prompt)
        assert torch.equal(logits, last_logits(miniature_engine(), prompt))
        other_picture = media_prompt([1, 2, 3], picture(5), [4, 5], sound, [6])
        other_sound = media_prompt([1, 2, 3], image, [4, 5], recording(6), [6])
        assert not torch.equal(logits, last_logits(engine, other_picture))
        assert not torch.equal(logits, last_logits(engine, other_sound))


def test_one_flipped_byte_of_a_record_changes_the_logits(tmp_path: Path) -> None:
    folder, ids = copied_store(tmp_path / "store", "text_mxfp4"), golden_ids(0, "text_mxfp4")
    with load_engine(folder, dtype="float32") as engine:
        before = engine.logits(ids)
    for expert in range(8):  # the tokens need not reach one particular expert
        layout = open_model(folder, ModelConfig.from_file(folder / "config.json")).records()
        assert layout is not None
        flip_byte(folder / "experts-001.bin", expert * layout.record_bytes + 64)
    with load_engine(folder, dtype="float32") as engine:
        assert not torch.equal(engine.logits(ids), before)


def test_a_small_budget_reads_more_and_answers_the_same() -> None:
    ids, folder = golden_ids(0), made_store("text", "int4")
    with (
        load_engine(folder, dtype="float32") as roomy,
        load_engine(folder, dtype="float32", options=LoadOptions(expert_bytes=1)) as tight,
    ):
        assert torch.equal(roomy.logits(ids), tight.logits(ids))
        roomy.logits(ids)
        tight.logits(ids)
        assert tight.experts.misses > roomy.experts.misses


def test_the_survey_counts_every_weight_once() -> None:
    released = golden_engine("text").contents
    for arguments in (("text", "int4", 32, "keep"), ("text", "fp8", 32, "int4")):
        folder = made_store(*arguments)
        opened = open_model(folder, ModelConfig.from_file(folder / "config.json"))
        assert not opened.contents.problems
        found = {part.name: part.parameters for part in opened.contents.parts}
        assert found == {part.name: part.parameters for part in released.parts}
        assert opened.record_files == 6 and opened.size_bytes < 1.2 * released.size_bytes


def test_a_truncated_record_is_named_with_layer_and_expert(tmp_path: Path) -> None:
    folder = copied_store(tmp_path / "store", "text_mxfp4")
    opened = open_model(folder, ModelConfig.from_file(folder / "config.json"))
    records = opened.records()
    assert records is not None
    os.truncate(folder / "experts-001.bin", 7 * records.record_bytes + 100)  # behind the back of an open store
    source, slot = RecordSource(records), allocate_bytes(records.record_bytes)
    source.fill(1, 6, slot)
    with pytest.raises(CheckpointError, match=r"expert 7 of layer 1: .*experts-001.bin. is truncated: .* found"):
        source.fill(1, 7, slot)
    with pytest.raises(CheckpointError, match="no experts of layer 0"):
        source.fill(0, 0, slot)
    with pytest.raises(CheckpointError, match="has no expert 8"):
        source.fill(1, 8, slot)
    source.close()
    source.fill(1, 0, slot)  # files are opened again when needed
    source.close()
