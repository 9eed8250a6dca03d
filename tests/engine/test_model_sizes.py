"""Sizes are those of the released files, to the byte, and of what this program holds in memory."""

import math

import pytest
import torch

from mimo_cli.checkpoint.names import audio_tokenizer_weights
from mimo_cli.checkpoint.release_shapes import SHAPES, release_audio_tokenizer, release_config, slice_config
from mimo_cli.engine.model_sizes import AUDIO, DENSE, EMBEDDING, EXPERTS, MTP, VISION, Extras, ModelSizes, model_sizes
from mimo_cli.engine.random_weights import RandomReader, RandomRecords
from mimo_cli.quant.random_streams import RandomStreams

V2_5_PARAMETERS = 310_756_322_688
V2_5_BYTES = 315_031_102_208
CODEC_PARAMETERS = 307_927_040 + 4_587_520
CODEC_BYTES = 2 * 307_927_040 + 4 * 4_587_520


def whole(shape: str, experts: str = "as released", dense: str = "keep") -> ModelSizes:
    config = release_config(shape)
    extras = Extras(3, config.vision is not None, release_audio_tokenizer(config))
    return model_sizes(config, extras, experts, dense)  # type: ignore[arg-type]


def test_v2_5_has_the_parameters_and_bytes_of_its_release() -> None:
    sizes = whole("v2.5")
    assert sizes.parameters == V2_5_PARAMETERS + CODEC_PARAMETERS
    assert sizes.stored_bytes == V2_5_BYTES + CODEC_BYTES
    assert sizes.part(EXPERTS).stored_bytes == 302_869_118_976
    assert sizes.part(DENSE).stored_bytes + sizes.part(EMBEDDING).stored_bytes == 8_993_139_584
    assert sizes.part(MTP).stored_bytes == 1_189_400_448
    assert sizes.part(VISION).stored_bytes == 1_457_188_864
    assert sizes.expert_stored_bytes == 25_171_968


def test_the_pro_has_no_towers_and_a_million_million_bytes_of_experts() -> None:
    sizes = whole("v2.5-pro")
    assert sizes.part(VISION).parameters == sizes.part(AUDIO).parameters == 0
    assert round(sizes.part(EXPERTS).stored_bytes / 1e9, 1) == 1000.4
    assert round(sizes.stored_bytes / 1e9, 1) == 1033.4


def test_v2_6_flash_stores_four_bits_of_an_expert() -> None:
    sizes = whole("v2.6-flash")
    assert sizes.experts_format == "mxfp4" and sizes.is_released
    assert sizes.expert_stored_bytes == 13_369_344
    assert round(sizes.part(EXPERTS).stored_bytes / 1e9, 1) == 160.9


@pytest.mark.parametrize(("experts", "expected"), [("int4", 14_155_776), ("mxfp4", 13_369_344), ("fp8", 25_214_976)])
def test_a_packed_expert_takes_one_record(experts: str, expected: int) -> None:
    sizes = whole("v2.5", experts, "int8")
    assert sizes.record_bytes == sizes.expert_stored_bytes == expected and not sizes.is_released


@pytest.mark.parametrize("shape", SHAPES)
def test_smaller_formats_are_smaller_everywhere(shape: str) -> None:
    kept, int8, int4 = (whole(shape, "int4", dense) for dense in ("keep", "int8", "int4"))
    assert kept.token_dense_bytes > int8.token_dense_bytes > int4.token_dense_bytes
    assert kept.stored_bytes > int8.stored_bytes > int4.stored_bytes
    assert kept.parameters == int8.parameters == whole(shape).parameters


def test_sizes_are_those_of_the_streams_that_a_slice_is_made_of() -> None:
    config = slice_config(release_config("v2.5"), 3)
    sizes = model_sizes(config, None, "int4", "int8")
    reader = RandomReader(config, "int8", "uniform", RandomStreams())
    packed = sum(shape.nbytes for shape in reader.shapes.values())
    assert 0 <= sizes.token_dense_bytes - packed < 0.01 * packed  # beside them: routers and norms
    assert sizes.record_bytes == RandomRecords(config, "int4", RandomStreams()).record_bytes


def test_a_codec_counts_with_the_ears() -> None:
    config = release_config("v2.5")
    codec = release_audio_tokenizer(config)
    assert codec is not None
    count = sum(math.prod(weight.shape) for weight in audio_tokenizer_weights(codec))
    deaf, hearing = (model_sizes(config, Extras(0, False, ears)).parameters for ears in (None, codec))
    assert hearing - deaf == count + 261_127_168 and count == CODEC_PARAMETERS


def test_float32_doubles_what_is_not_packed() -> None:
    config = release_config("v2.5")
    half, full = (model_sizes(config, dtype=dtype).part(EMBEDDING) for dtype in (torch.bfloat16, torch.float32))
    assert full.memory_bytes == 2 * half.memory_bytes and full.stored_bytes == half.stored_bytes
