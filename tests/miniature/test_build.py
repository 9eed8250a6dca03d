"""A miniature is stored as the release stores MiMo-V2.5."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.contents import check_tensors
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.errors import UsageError
from mimo_cli.miniature.build import write_miniature
from mimo_cli.miniature.bundled import MARKER_FILE, NOTICE, is_miniature, usual_temperature
from tests.support.miniature import random_miniature

USUAL_SEED = 0
MAX_BYTES = 5_000_000


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A miniature written now, with the usual seed."""
    folder = tmp_path_factory.mktemp("miniature") / "new"
    write_miniature(folder, USUAL_SEED)
    yield folder


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_same_seed_gives_the_same_bytes(fresh: Path) -> None:
    assert files(fresh) == files(random_miniature())


def test_another_seed_gives_other_weights_and_the_same_tokenizer(fresh: Path, tmp_path: Path) -> None:
    write_miniature(tmp_path / "other", USUAL_SEED + 1)
    first, second = files(fresh), files(tmp_path / "other")
    for name in first:
        same = first[name] == second[name]
        assert same == (not name.endswith(".safetensors") and name != MARKER_FILE), name


def test_it_is_small() -> None:
    assert sum(len(content) for content in files(random_miniature()).values()) <= MAX_BYTES


def test_it_has_the_files_of_the_release() -> None:
    names = set(files(random_miniature()))
    shards = {f"model_pp0_ep{rank}_shard{shard}.safetensors" for rank in range(8) for shard in range(2)}
    assert names == {
        *shards,
        "model_mtp.safetensors",
        "model.safetensors.index.json",
        "audio_tokenizer/config.json",
        "audio_tokenizer/model.safetensors",
        *(
            "config.json",
            "generation_config.json",
            "preprocessor_config.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ),
        MARKER_FILE,
    }


def test_every_tensor_is_there_with_its_shape() -> None:
    config = ModelConfig.from_file(random_miniature() / "config.json")
    contents = check_tensors(config, TensorIndex.open(random_miniature()))
    assert contents.num_mtp == 3 and contents.has_vision and contents.has_audio and not contents.notes


def test_parts_are_stored_in_the_releases_formats() -> None:
    index = TensorIndex.open(random_miniature())
    fp8, bf16, f32 = torch.float8_e4m3fn, torch.bfloat16, torch.float32
    for name, dtype in {
        "model.embed_tokens.weight": bf16,
        "model.layers.0.self_attn.qkv_proj.weight": fp8,
        "model.layers.0.self_attn.o_proj.weight": bf16,
        "model.layers.0.mlp.down_proj.weight_scale_inv": f32,
        "model.layers.1.self_attn.attention_sink_bias": bf16,
        "model.layers.1.mlp.gate.weight": f32,
        "model.layers.1.mlp.gate.e_score_correction_bias": f32,
        "model.layers.1.mlp.experts.7.up_proj.weight": fp8,
        "model.mtp.layers.2.eh_proj.weight": bf16,
        "visual.patch_embed.proj.weight": bf16,
        "speech_embeddings.19.weight": bf16,
    }.items():
        assert index[name].dtype == dtype, name
    assert "model.layers.0.self_attn.attention_sink_bias" not in index


def test_experts_are_spread_over_ranks_and_shards_and_all_else_is_in_one_place() -> None:
    index = TensorIndex.open(random_miniature())
    for name in index.names():
        shard = index[name].shard.name
        if ".experts." in name:
            layer, expert = int(name.split(".")[2]), int(name.split(".")[5])
            assert shard == f"model_pp0_ep{expert}_shard{0 if layer <= 3 else 1}.safetensors"
        else:
            expected = "model_mtp.safetensors" if ".mtp." in name else "model_pp0_ep0_shard1.safetensors"
            assert shard == expected, name


def test_global_qkv_has_a_ragged_scale_grid_and_sliding_qkv_has_not() -> None:
    index = TensorIndex.open(random_miniature())
    assert index.metadata["tp_size"] == 2 and index.metadata["save_format"] == "fp8"
    rows = {i: index[f"model.layers.{i}.self_attn.qkv_proj.weight"].shape[0] for i in (0, 1)}
    scales = {i: index[f"model.layers.{i}.self_attn.qkv_proj.weight_scale_inv"].shape[0] for i in (0, 1)}
    assert (rows[0], scales[0]) == (352, 4)  # 2 chunks of 176 rows: two blocks each, where one grid would have three
    assert (rows[1], scales[1]) == (512, 4)  # 2 chunks of 256 rows


def test_token_ids_follow_the_small_vocabulary() -> None:
    config = json.loads((random_miniature() / "config.json").read_text("utf-8"))
    added = json.loads((random_miniature() / "tokenizer.json").read_text("utf-8"))["added_tokens"]
    ids = {entry["content"]: entry["id"] for entry in added}
    processor = config["processor_config"]
    assert processor["audio_token_id"] == ids["<|audio_pad|>"]
    assert processor["image_token_id"] == config["image_token_id"] == ids["<|image_pad|>"]
    assert processor["video_start_token_id"] == ids["<|mimo_video_start|>"]
    assert config["eos_token_id"] == ids["<|im_end|>"] < config["vocab_size"]
    stops = json.loads((random_miniature() / "generation_config.json").read_text("utf-8"))["eos_token_id"]
    assert stops == [ids["<|endoftext|>"], ids["<|im_end|>"], ids["<|mimo_audio_eod|>"]]


def test_a_folder_in_use_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not lose me")
    with pytest.raises(UsageError, match="not empty"):
        write_miniature(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_miniature_is_recognised(tmp_path: Path) -> None:
    assert is_miniature(random_miniature()) == NOTICE
    assert is_miniature(tmp_path) is None
    (tmp_path / MARKER_FILE).write_text('{"notice": "a small trained model"}')
    assert is_miniature(tmp_path) == "a small trained model"
    for damaged in ("", "[]", '{"notice": 3}', "{"):
        (tmp_path / MARKER_FILE).write_text(damaged)
        assert is_miniature(tmp_path) == NOTICE


def test_a_miniature_may_say_how_it_answers(tmp_path: Path) -> None:
    assert usual_temperature(tmp_path) is None and usual_temperature(random_miniature()) is None
    (tmp_path / MARKER_FILE).write_text('{"temperature": 0}')
    assert usual_temperature(tmp_path) == 0.0
    for damaged in ("", "[]", '{"temperature": "hot"}', '{"temperature": -1}', '{"temperature": true}'):
        (tmp_path / MARKER_FILE).write_text(damaged)
        assert usual_temperature(tmp_path) is None
