"""Which format a weight has, and which tensors do not fit."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mimo_cli.checkpoint.audio_config import AudioConfig, AudioTokenizerConfig
from mimo_cli.checkpoint.config import ModelConfig, read_json
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.names import NamedWeight, audio_tokenizer_weights, audio_weights, vision_weights
from mimo_cli.checkpoint.storage import (
    Problem,
    find_left_over,
    find_problems,
    refuse_problems,
    stored_format,
    stored_shapes,
)
from mimo_cli.checkpoint.vision_config import VisionConfig
from mimo_cli.errors import CheckpointError
from tests.support.checkpoint_files import GOLDEN, open_golden, save_tensors

FP8 = torch.float8_e4m3fn
MATRIX = NamedWeight("w", (200, 160), "linear")


def index_of(folder: Path, tensors: dict[str, Tensor]) -> TensorIndex:
    save_tensors(folder / "model.safetensors", tensors)
    return TensorIndex.open(folder)


def fp8(*shape: int) -> Tensor:
    return torch.ones(shape).to(FP8)


def test_scales_decide_the_format() -> None:
    _, reader = open_golden("text")
    assert stored_format("model.layers.1.mlp.experts.0.up_proj.weight", reader.index) == "FP8"
    assert stored_format("model.layers.1.self_attn.o_proj.weight", reader.index) == "BF16"
    assert stored_format("model.layers.1.mlp.gate.weight", reader.index) == "F32"
    _, reader = open_golden("text_mxfp4")
    assert stored_format("model.layers.1.mlp.experts.0.up_proj.weight", reader.index) == "MXFP4"


@pytest.mark.parametrize(
    "tensors",
    [
        {"w": torch.ones(200, 160)},
        {"w": torch.ones(200, 160, dtype=torch.bfloat16)},
        {"w": fp8(200, 160), "w_scale_inv": torch.ones(2, 2)},
        {"w": torch.ones(200, 80, dtype=torch.uint8), "w_scale": torch.ones(200, 5, dtype=torch.uint8)},
    ],
)
def test_a_matrix_may_be_stored_in_any_format(tensors: dict[str, Tensor], tmp_path: Path) -> None:
    index = index_of(tmp_path, tensors)
    assert find_problems([MATRIX], index) == [] and find_left_over([MATRIX], index) == []


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({"other": torch.ones(1)}, "tensor `w`: shape [200, 160] expected, none in `FOLDER` found"),
        (
            {"w": torch.ones(160, 200)},
            "tensor `w` in `model.safetensors`: shape [200, 160] expected, shape [160, 200] found",
        ),
        (
            {"w": fp8(200, 160)},
            "tensor `w_scale_inv`: the scales of a quantised weight expected, none in `FOLDER` found",
        ),
        (
            {"w": torch.ones(200, 80, dtype=torch.uint8)},
            "tensor `w_scale`: the scales of a quantised weight expected, none in `FOLDER` found",
        ),
        (
            {"w": fp8(200, 160), "w_scale_inv": torch.ones(1, 2)},
            "tensor `w_scale_inv` in `model.safetensors`: shape [2, 2] expected, shape [1, 2] found",
        ),
        (
            {"w": torch.ones(200, 80, dtype=torch.uint8), "w_scale": torch.ones(200, 80, dtype=torch.uint8)},
            "tensor `w_scale` in `model.safetensors`: shape [200, 5] expected, shape [200, 80] found",
        ),
        (
            {"w": torch.ones(200, 160, dtype=torch.uint8), "w_scale": torch.ones(200, 5, dtype=torch.uint8)},
            "tensor `w` in `model.safetensors`: shape [200, 80] expected, shape [200, 160] found",
        ),
    ],
)
def test_what_does_not_fit_is_told_with_expected_and_found(
    tensors: dict[str, Tensor], problem: str, tmp_path: Path
) -> None:
    problems = find_problems([MATRIX], index_of(tmp_path, tensors))
    assert [str(found) for found in problems] == [problem.replace("FOLDER", str(tmp_path))]


def test_fused_qkv_may_have_the_grid_of_any_number_of_chunks(tmp_path: Path) -> None:
    config, _ = open_golden("text")
    weight = NamedWeight("q", (2176, 128), "qkv")
    index = index_of(tmp_path, {"q": fp8(2176, 128), "q_scale_inv": torch.ones(18, 1)})
    assert stored_shapes(weight, index, config)["q_scale_inv"] == ((17, 1), (18, 1))
    assert find_problems([weight], index, config) == []
    assert find_problems([NamedWeight("q", (2176, 128), "linear")], index, config) != []


def test_left_over_tensors_are_told_and_harmless_ones_are_not(tmp_path: Path) -> None:
    names = ["w", "w_scale_inv", "extra", "a.rotary_emb.inv_freq", "vq.layers.0._codebook.cluster_size"]
    index = index_of(tmp_path, {name: torch.ones(1) for name in names})
    assert [str(problem) for problem in find_left_over([MATRIX], index)] == [
        "tensor `extra` in `model.safetensors`: no such tensor expected, shape [1] found"
    ]


def test_a_tied_head_that_is_stored_all_the_same_is_harmless(tmp_path: Path) -> None:
    config = ModelConfig.from_dict(read_json(GOLDEN / "text" / "config.json") | {"tie_word_embeddings": True})
    index = index_of(tmp_path, {"lm_head.weight": torch.ones(1)})
    assert find_left_over([], index, config) == [] and len(find_left_over([], index)) == 1


def test_the_first_problems_are_named_and_the_rest_counted() -> None:
    problems = [Problem(f"t{i}", "a", "b", "s") for i in range(5)]
    with pytest.raises(
        CheckpointError, match=r"`t0` in `s`: a expected, b found; .*`t2`.* and 2 more tensors"
    ) as error:
        refuse_problems(problems, Path("somewhere"))
    assert error.value.hint and "`somewhere`" in error.value.hint
    refuse_problems([], Path("somewhere"))


def test_the_reference_vision_tower_fits_its_configuration() -> None:
    weights = list(
        vision_weights(VisionConfig.from_dict(read_json(GOLDEN / "vision" / "config.json")["vision_config"]))
    )
    index = TensorIndex.open(GOLDEN / "vision")
    assert find_problems(weights, index) == [] and find_left_over(weights, index) == []
    assert len(weights) == len(index)


def test_the_reference_audio_encoder_fits_its_configuration() -> None:
    folder = GOLDEN / "audio" / "checkpoint"
    weights = list(audio_weights(AudioConfig.from_dict(read_json(folder / "config.json")["audio_config"])))
    index = TensorIndex.open(folder)
    assert find_problems(weights, index) == [] and find_left_over(weights, index) == []
    assert len(weights) == len(index)


def test_the_reference_audio_tokenizer_fits_but_for_its_decoder() -> None:
    folder = GOLDEN / "audio" / "checkpoint" / "audio_tokenizer"
    weights = list(audio_tokenizer_weights(AudioTokenizerConfig.from_dict(read_json(folder / "config.json"))))
    index = TensorIndex.open(folder)
    assert find_problems(weights, index) == []
    assert all(problem.tensor.startswith("decoder.") for problem in find_left_over(weights, index))
