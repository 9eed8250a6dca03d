"""A written checkpoint is laid out as the release and reads back as exactly the quantised numbers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mimo_cli.checkpoint.audio_config import AudioTokenizerConfig
from mimo_cli.checkpoint.config import ModelConfig, read_json
from mimo_cli.checkpoint.contents import check_tensors
from mimo_cli.checkpoint.encoder import WeightFormats
from mimo_cli.checkpoint.index import INDEX_FILE, TensorIndex
from mimo_cli.checkpoint.names import audio_tokenizer_weights
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.checkpoint.writer import (
    MTP_FILE,
    StorageLayout,
    default_formats,
    plan_files,
    write_audio_tokenizer,
    write_checkpoint,
)
from mimo_cli.errors import CheckpointError
from mimo_cli.quant.fp8 import expand_block_scales, quantize_blocks
from mimo_cli.quant.mxfp4 import decode, encode
from tests.support.checkpoint_files import GOLDEN, open_golden, random_weights
from tests.support.family_configs import AUDIO_TOKENIZER, V2_5, V2_6

TEXT_ONLY = {"has_vision": False, "has_audio": False}
LAYOUTS = {
    "text": StorageLayout(ranks=4, shards=2, num_mtp=3, **TEXT_ONLY),
    "text_mxfp4": StorageLayout(ranks=2, shards=1, num_mtp=0, **TEXT_ONLY),
}
SPLIT = StorageLayout(ranks=1, shards=1, num_mtp=1, **TEXT_ONLY)


def values_of(name: str, **changes: Any) -> dict[str, Any]:
    return read_json(GOLDEN / name / "config.json") | changes


def write(folder: Path, values: dict[str, Any], layout: StorageLayout, **options: Any) -> dict[str, Tensor]:
    """Write random weights; returns them by name."""
    weights = dict(random_weights(ModelConfig.from_dict(values), layout))
    write_checkpoint(folder, values, weights.items(), layout, **options)
    return weights


def open_written(folder: Path) -> tuple[ModelConfig, CheckpointReader]:
    config = ModelConfig.from_file(folder / "config.json")
    index = TensorIndex.open(folder)
    check_tensors(config, index)
    return config, CheckpointReader(index, config)


@pytest.mark.parametrize("name", LAYOUTS)
def test_files_tensors_dtypes_and_index_are_those_of_the_reference(name: str, tmp_path: Path) -> None:
    write(tmp_path, values_of(name), LAYOUTS[name])
    ours, theirs = TensorIndex.open(tmp_path), TensorIndex.open(GOLDEN / name)
    assert ours.metadata == theirs.metadata and ours.names() == theirs.names()
    assert all((ours[n].dtype, ours[n].shape) == (theirs[n].dtype, theirs[n].shape) for n in ours)
    assert {path.name for path in ours.shard_bytes} == {path.name for path in theirs.shard_bytes}
    ranks = [n for n in ours if ours[n].shard.name.split("_shard")[0] != theirs[n].shard.name.split("_shard")[0]]
    backbone = [n for n in ours if ".experts." not in n and ours[n].shard.name != theirs[n].shard.name]
    assert ranks == [] and backbone == []  # which layers an experts' shard holds may be chosen freely
    assert list(read_json(tmp_path / INDEX_FILE)["weight_map"]) == list(
        read_json(GOLDEN / name / INDEX_FILE)["weight_map"]
    )


@pytest.mark.parametrize("name", LAYOUTS)
def test_attention_reads_back_as_the_quantised_chunks(name: str, tmp_path: Path) -> None:
    weights = write(tmp_path, values_of(name), LAYOUTS[name])
    config, reader = open_written(tmp_path)
    for layer in range(config.num_hidden_layers):
        attention, prefix = config.attention(layer), f"model.layers.{layer}.self_attn"
        parts = weights[f"{prefix}.qkv_proj.weight"].split([attention.q_rows, attention.k_rows, attention.v_rows])
        halves = [torch.cat([part.chunk(2)[c] for part in parts]) for c in range(2)]  # the two chunks, by hand
        stored = [expand_block_scales(*quantize_blocks(half), torch.float32) for half in halves]
        counts = [attention.q_rows // 2, attention.k_rows // 2, attention.v_rows // 2]
        expected = torch.cat([piece for part in zip(*(s.split(counts) for s in stored), strict=True) for piece in part])
        assert torch.equal(reader.qkv(prefix, attention, torch.float32), expected)


def test_matrices_and_experts_read_back_as_quantised(tmp_path: Path) -> None:
    weights = write(tmp_path, values_of("text"), LAYOUTS["text"])
    _, reader = open_written(tmp_path)
    for name in ("model.layers.0.mlp.down_proj.weight", "model.layers.4.mlp.experts.13.gate_proj.weight"):
        expected = expand_block_scales(*quantize_blocks(weights[name]), torch.float32)
        assert torch.equal(reader.read(name, torch.float32), expected)
    for name in ("model.layers.3.mlp.gate.weight", "model.layers.3.mlp.gate.e_score_correction_bias"):
        assert torch.equal(reader.read(name, torch.float32), weights[name])
    for name in (
        "model.embed_tokens.weight",
        "model.mtp.layers.2.eh_proj.weight",
        "model.layers.1.self_attn.o_proj.weight",
    ):
        assert torch.equal(reader.read(name, torch.float32), weights[name].bfloat16().float())


def test_packed_experts_read_back_as_encoded(tmp_path: Path) -> None:
    weights = write(tmp_path, values_of("text_mxfp4"), LAYOUTS["text_mxfp4"])
    _, reader = open_written(tmp_path)
    name = "model.layers.1.mlp.experts.7.down_proj.weight"
    assert torch.equal(reader.read(name, torch.float32), decode(*encode(weights[name]), torch.float32))
    assert reader.raw("model.layers.1.mlp.gate.weight").dtype == torch.bfloat16


def test_a_dequantised_reference_written_again_has_the_same_codes(tmp_path: Path) -> None:
    config, reader = open_golden("text")

    def dequantised() -> Iterator[tuple[str, Tensor]]:
        for weights in plan_files(config, LAYOUTS["text"]).values():
            for weight in weights:
                if weight.role == "qkv":
                    attention = config.sliding_attention if weight.sliding else config.global_attention
                    yield (
                        weight.name,
                        reader.qkv(weight.name.removesuffix(".qkv_proj.weight"), attention, torch.float32),
                    )
                else:
                    yield weight.name, reader.read(weight.name, torch.float32)

    write_checkpoint(tmp_path, values_of("text"), dequantised(), LAYOUTS["text"])
    _, again = open_written(tmp_path)
    for name in reader.index:
        ours, theirs = again.raw(name), reader.raw(name)
        if name.endswith("_scale_inv"):
            assert torch.allclose(ours, theirs, rtol=1e-6)  # amax / 448 x 448 / 448 rounds
        else:
            assert torch.equal(ours.view(torch.uint8), theirs.view(torch.uint8)), name


def test_split_storage_reads_back(tmp_path: Path) -> None:
    values = values_of("text", attention_projection_layout="split", model_type="mimo_v2_flash")
    weights = write(tmp_path, values, SPLIT)
    config, reader = open_written(tmp_path)
    for layer in range(2):
        prefix, attention = f"model.layers.{layer}.self_attn", config.attention(layer)
        expected = torch.cat([weights[f"{prefix}.{projection}_proj.weight"] for projection in "qkv"])
        found = reader.qkv(prefix, attention, torch.float32)
        # Three mantissa bits: half a step is 1/16 of a value; far below a block's largest, 2^-10 of its scale.
        assert torch.allclose(found, expected, rtol=1 / 15, atol=1e-6)


def test_an_unquantised_checkpoint_reads_back_exactly(tmp_path: Path) -> None:
    formats = WeightFormats("plain", "plain", torch.float32)
    weights = write(tmp_path, values_of("text", quantization_config=None), SPLIT, formats=formats)
    config, reader = open_written(tmp_path)
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}.self_attn"
        found = reader.qkv(prefix, config.attention(layer), torch.float32)
        assert torch.equal(found, weights[f"{prefix}.qkv_proj.weight"])
    assert reader.notes == []  # `tp_size` states the chunks


def test_experts_are_dealt_out_in_runs_to_ranks_and_layers_to_shards() -> None:
    files = plan_files(ModelConfig.from_dict(V2_5), StorageLayout())
    assert len(files) == 17 and MTP_FILE in files
    first = {weight.name for weight in files["model_pp0_ep1_shard0.safetensors"]}
    assert "model.layers.1.mlp.experts.32.up_proj.weight" in first
    assert "model.layers.1.mlp.experts.63.up_proj.weight" in first
    assert not any(".experts.31." in name or ".experts.64." in name for name in first)
    assert {w.name for w in files["model_pp0_ep0_shard1.safetensors"]} >= {
        "lm_head.weight",
        "visual.merger.ln_q.weight",
    }
    assert len(plan_files(ModelConfig.from_dict(V2_6), StorageLayout(ranks=64, shards=1))) == 65


@pytest.mark.parametrize("layout", [StorageLayout(ranks=3), StorageLayout(ranks=0), StorageLayout(ranks=4, shards=0)])
def test_experts_that_cannot_be_dealt_out_are_refused(layout: StorageLayout) -> None:
    with pytest.raises(CheckpointError, match="16 experts cannot be spread"):
        plan_files(ModelConfig.from_dict(values_of("text")), layout)


def test_formats_follow_the_configuration() -> None:
    assert default_formats(V2_5) == WeightFormats()
    assert default_formats(V2_6) == WeightFormats(experts="mxfp4", router=torch.bfloat16)
    assert default_formats({}) == WeightFormats("plain", "plain")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda weights: weights.pop("lm_head.weight"), r"1 weights are missing: `lm_head\.weight`"),
        (lambda weights: weights.update(extra=torch.ones(1)), "`extra` is no weight of this configuration"),
        (
            lambda weights: weights.update({"lm_head.weight": torch.ones(2, 2)}),
            r"`lm_head\.weight`: \[512, 128\] expected",
        ),
        (lambda weights: weights["model.layers.0.mlp.up_proj.weight"].fill_(torch.nan), "not finite"),
    ],
)
def test_wrong_weights_leave_nothing_behind(damage: Any, message: str, tmp_path: Path) -> None:
    values = values_of("text")
    weights = dict(random_weights(ModelConfig.from_dict(values), LAYOUTS["text"]))
    damage(weights)
    with pytest.raises(CheckpointError, match=message):
        write_checkpoint(tmp_path, values, weights.items(), LAYOUTS["text"])
    assert list(tmp_path.iterdir()) == []


def test_a_weight_that_comes_twice_is_refused(tmp_path: Path) -> None:
    values = values_of("text_mxfp4")
    weights = list(random_weights(ModelConfig.from_dict(values), LAYOUTS["text_mxfp4"]))
    with pytest.raises(CheckpointError, match="comes twice"):
        write_checkpoint(tmp_path, values, [weights[0], *weights], LAYOUTS["text_mxfp4"])


def test_weights_may_come_in_any_order(tmp_path: Path) -> None:
    values = values_of("text_mxfp4")
    weights = list(random_weights(ModelConfig.from_dict(values), LAYOUTS["text_mxfp4"]))
    for folder, order in (("a", weights), ("b", weights[::-1])):
        write_checkpoint(tmp_path / folder, values, order, LAYOUTS["text_mxfp4"])
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_the_audio_tokenizer_keeps_its_code_books_in_float32(tmp_path: Path) -> None:
    values = AUDIO_TOKENIZER | {"d_model": 32, "encoder_layers": 1, "encoder_ffn_dim": 32, "codebook_size": [8]}
    values |= {"num_quantizers": 2}
    book, norm = "encoder.quantizer.vq.layers.1._codebook.embed", "encoder.layer_norm.weight"

    codec = audio_tokenizer_weights(AudioTokenizerConfig.from_dict(values))
    weights = [(weight.name, torch.randn(weight.shape)) for weight in codec]
    write_audio_tokenizer(tmp_path, values, weights)
    index = TensorIndex.open(tmp_path / "audio_tokenizer")
    assert index[book].dtype == torch.float32 and index[norm].dtype == torch.bfloat16
    assert json.loads((tmp_path / "audio_tokenizer" / "config.json").read_text()) == values
    with pytest.raises(CheckpointError, match="lacks"):
        write_audio_tokenizer(tmp_path / "other", values, weights[1:])
