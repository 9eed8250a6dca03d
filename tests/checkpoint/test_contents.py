"""The survey of a whole checkpoint: parts, bytes, towers present or absent, and what makes it unusable."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mimo_cli.checkpoint.config import ModelConfig, read_json
from mimo_cli.checkpoint.contents import (
    AUDIO_TOKENIZER_FOLDER,
    Contents,
    check_tensors,
    count_mtp_modules,
    survey_tensors,
)
from mimo_cli.checkpoint.index import INDEX_FILE, TensorIndex
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.errors import CheckpointError
from tests.support.checkpoint_files import edit_json, open_golden, save_tensors, write_whole_model


@pytest.fixture(scope="module")
def whole_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whole_model(tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def model(whole_model: Path, tmp_path: Path) -> Path:
    """A copy of the whole model that a test may damage."""
    shutil.copytree(whole_model, tmp_path / "model")
    return tmp_path / "model"


def survey(folder: Path) -> Contents:
    return survey_tensors(ModelConfig.from_file(folder / "config.json"), TensorIndex.open(folder))


def rewrite_tensors(folder: Path, keep: Callable[[str], bool]) -> None:
    """Store the tensors that `keep` chooses in one file without an index."""
    index = TensorIndex.open(folder)
    reader = CheckpointReader(index)
    kept = {name: reader.raw(name).clone() for name in index if keep(name)}
    for path in (*folder.glob("model*.safetensors"), folder / INDEX_FILE):
        path.unlink()
    save_tensors(folder / "model.safetensors", kept)


@pytest.mark.parametrize(("folder", "num_mtp"), [("text", 3), ("text_mxfp4", 0)])
def test_the_reference_sets_are_complete_text_models(folder: str, num_mtp: int) -> None:
    config, reader = open_golden(folder)
    contents = check_tensors(config, reader.index)
    assert contents.num_mtp == num_mtp and not contents.problems
    assert not contents.has_vision and not contents.has_audio and len(contents.notes) == 2
    assert contents.size_bytes == reader.index.metadata["total_size"]
    assert sum(part.tensors for part in contents.parts) == len(reader.index)


def test_parts_tell_tensors_parameters_and_bytes_by_format() -> None:
    config, reader = open_golden("text_mxfp4")
    parts = {part.name: part for part in survey_tensors(config, reader.index).parts}
    experts = parts["experts"]
    assert (experts.tensors, experts.parameters) == (8 * 6, 8 * 3 * 64 * 128)
    assert experts.format_bytes == {"MXFP4": 8 * 3 * 64 * 128 * 17 // 32}
    assert set(parts["text"].format_bytes) == {"BF16", "FP8", "F32"}


def test_a_whole_model_has_every_part_and_no_notes(whole_model: Path) -> None:
    contents = survey(whole_model)
    assert contents.has_vision and contents.has_audio and contents.num_mtp == 3
    assert contents.notes == () and contents.problems == ()
    assert [part.name for part in contents.parts] == ["text", "experts", "MTP", "vision", "audio", "audio tokenizer"]


@pytest.mark.parametrize(
    ("absent", "has_vision", "has_audio", "note"),
    [
        (("visual.",), False, True, "no vision tower"),
        (("speech_embeddings.", "audio_encoder."), True, False, "no audio encoder"),
    ],
)
def test_a_tower_that_is_absent_as_a_whole_is_a_note(
    absent: tuple[str, ...], has_vision: bool, has_audio: bool, note: str, model: Path
) -> None:
    rewrite_tensors(model, lambda name: not name.startswith(absent))
    contents = survey(model)
    assert (contents.has_vision, contents.has_audio) == (has_vision, has_audio)
    assert contents.problems == () and len(contents.notes) == 1 and note in contents.notes[0]


@pytest.mark.parametrize(
    "missing",
    [
        "visual.blocks.1.attn.sinks",
        "visual.merger.ln_q.weight",
        "speech_embeddings.2.weight",
        "audio_encoder.input_local_transformer.norm.weight",
        "model.layers.3.self_attn.attention_sink_bias",
        "model.layers.2.mlp.experts.7.down_proj.weight",
        "model.layers.2.mlp.gate.e_score_correction_bias",
        "model.mtp.layers.1.enorm.weight",
        "lm_head.weight",
        "model.layers.0.self_attn.qkv_proj.weight_scale_inv",
    ],
)
def test_one_missing_tensor_stops_the_check_by_name(missing: str, model: Path) -> None:
    rewrite_tensors(model, lambda name: name != missing)
    with pytest.raises(CheckpointError, match=f"tensor `{missing}`: .* expected, none in"):
        check_tensors(ModelConfig.from_file(model / "config.json"), TensorIndex.open(model))


def test_a_left_over_tensor_stops_the_check_by_name(model: Path) -> None:
    save_tensors(model / "extra.safetensors", {"model.layers.7.input_layernorm.weight": torch.ones(128)})
    index_file = read_json(model / INDEX_FILE)
    index_file["weight_map"]["model.layers.7.input_layernorm.weight"] = "extra.safetensors"
    (model / INDEX_FILE).write_text(json.dumps(index_file))
    problems = survey(model).problems
    assert [str(problem) for problem in problems] == [
        "tensor `model.layers.7.input_layernorm.weight` in `extra.safetensors`: "
        "no such tensor expected, shape [128] found"
    ]


@pytest.mark.parametrize(
    ("changes", "tensor"),
    [
        ({"hidden_size": 256}, "model.embed_tokens.weight"),
        ({"vocab_size": 600}, "lm_head.weight"),
        ({"n_routed_experts": 32}, "model.layers.1.mlp.gate.weight"),
        ({"n_routed_experts": 8, "num_experts_per_tok": 2}, "model.layers.1.mlp.gate.weight"),
        ({"swa_num_key_value_heads": 2}, "model.layers.1.self_attn.qkv_proj.weight"),
        ({"add_full_attention_sink_bias": True}, "model.layers.0.self_attn.attention_sink_bias"),
        ({"add_swa_attention_sink_bias": False}, "model.layers.1.self_attn.attention_sink_bias"),
        ({"vision_config": None}, "visual.patch_embed.proj.weight"),
        ({"audio_config": None}, "speech_embeddings.0.weight"),
        ({"attention_projection_layout": "split"}, "model.layers.0.self_attn.q_proj.weight"),
    ],
)
def test_a_configuration_of_another_model_does_not_fit(changes: dict, tensor: str, model: Path) -> None:
    edit_json(model / "config.json", changes)
    assert tensor in {problem.tensor for problem in survey(model).problems}


def test_modules_are_counted_from_the_names_not_from_the_configuration(model: Path) -> None:
    edit_json(model / "config.json", {"num_nextn_predict_layers": 1})
    assert count_mtp_modules(TensorIndex.open(model)) == survey(model).num_mtp == 3
    assert survey(model).problems == ()


def test_modules_that_skip_a_number_do_not_fit(model: Path) -> None:
    rewrite_tensors(model, lambda name: not name.startswith("model.mtp.layers.1."))
    problems = {problem.tensor for problem in survey(model).problems}
    assert "model.mtp.layers.1.enorm.weight" in problems and "model.mtp.layers.2.enorm.weight" in problems


def test_sound_without_its_tokenizer_is_a_problem(model: Path) -> None:
    shutil.rmtree(model / AUDIO_TOKENIZER_FOLDER)
    with pytest.raises(CheckpointError, match=r"`audio_tokenizer/` expected, .*config\.json` is missing"):
        check_tensors(ModelConfig.from_file(model / "config.json"), TensorIndex.open(model))


def test_a_damaged_tokenizer_is_a_problem(model: Path) -> None:
    path = model / AUDIO_TOKENIZER_FOLDER / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    problems = survey(model).problems
    assert len(problems) == 1 and "is truncated" in problems[0].found


def test_fewer_code_books_than_channels_is_a_problem(model: Path) -> None:
    edit_json(model / AUDIO_TOKENIZER_FOLDER / "config.json", {"num_quantizers": 2})
    found = [str(problem) for problem in survey(model).problems]
    assert any("code books for 3 channels expected, 2 found" in text for text in found)


def test_the_decoder_of_the_tokenizer_and_its_training_state_are_ignored(model: Path) -> None:
    folder = model / AUDIO_TOKENIZER_FOLDER
    book = "encoder.quantizer.vq.layers.0._codebook"
    extra = {"decoder.conv.weight": torch.ones(3), f"{book}.embed_avg": torch.ones(3), f"{book}.inited": torch.ones(1)}
    index = TensorIndex.open(folder)
    reader = CheckpointReader(index)
    stored = {name: reader.raw(name).clone() for name in index}
    save_tensors(folder / "model.safetensors", stored | extra)
    assert survey(model).problems == ()
    save_tensors(folder / "model.safetensors", stored | {"encoder.unknown": torch.ones(1)})
    assert [problem.tensor for problem in survey(model).problems] == ["encoder.unknown"]
