"""What is planned is what is made, and each role gets the format of the release."""

from dataclasses import replace

import pytest
import torch

from mimo_cli.checkpoint.config import ModelConfig, read_json
from mimo_cli.checkpoint.encoder import WeightEncoder, WeightFormats
from mimo_cli.checkpoint.names import NamedWeight, expert_weights, mtp_weights, text_weights
from mimo_cli.errors import CheckpointError
from mimo_cli.quant.fp8 import expand_block_scales, quantize_blocks
from mimo_cli.quant.mxfp4 import decode
from tests.support.checkpoint_files import GOLDEN
from tests.support.family_configs import V2_FLASH

CONFIG = ModelConfig.from_dict(read_json(GOLDEN / "text" / "config.json"))
FORMATS = WeightFormats()
QKV = NamedWeight("model.layers.0.self_attn.qkv_proj.weight", (2176, 128), "qkv")


def values_of(weight: NamedWeight, seed: int = 0) -> torch.Tensor:
    return torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.mark.parametrize(
    "formats",
    [FORMATS, WeightFormats(experts="mxfp4", router=torch.bfloat16), WeightFormats("plain", "plain", torch.float32)],
)
def test_encoding_makes_exactly_what_was_planned(formats: WeightFormats) -> None:
    encoder = WeightEncoder(CONFIG, formats)
    weights = [*text_weights(CONFIG), *mtp_weights(CONFIG, 0), *list(expert_weights(CONFIG))[:3]]
    for weight in weights:
        made = [(name, t.dtype, tuple(t.shape)) for name, t in encoder.encode(weight, values_of(weight))]
        assert made == [(t.name, t.dtype, t.shape) for t in encoder.plan(weight)]


@pytest.mark.parametrize(
    ("role", "dtypes"),
    [
        ("plain", [torch.bfloat16]),
        ("router", [torch.float32]),
        ("float32", [torch.float32]),
        ("linear", [torch.float8_e4m3fn, torch.float32]),
        ("expert", [torch.float8_e4m3fn, torch.float32]),
        ("qkv", [torch.float8_e4m3fn, torch.float32]),
    ],
)
def test_roles_have_the_formats_of_v2_5(role: str, dtypes: list[torch.dtype]) -> None:
    weight = NamedWeight("x.weight", (256, 128), role)  # type: ignore[arg-type]
    assert [tensor.dtype for tensor in WeightEncoder(CONFIG, FORMATS).plan(weight)] == dtypes


def test_v2_6_packs_its_experts_and_narrows_its_router() -> None:
    encoder = WeightEncoder(CONFIG, WeightFormats(experts="mxfp4", router=torch.bfloat16))
    weight = NamedWeight("e.weight", (64, 128), "expert")
    stored = dict(encoder.encode(weight, values_of(weight)))
    assert list(stored) == ["e.weight", "e.weight_scale"]
    assert decode(stored["e.weight"], stored["e.weight_scale"], torch.float32).shape == (64, 128)
    assert encoder.plan(NamedWeight("r", (4, 4), "router"))[0].dtype == torch.bfloat16


def test_fused_qkv_is_dealt_out_before_it_is_quantised_chunk_by_chunk() -> None:
    plain = values_of(QKV) * torch.linspace(0.01, 10, 2176)[:, None]
    stored = dict(WeightEncoder(CONFIG, FORMATS).encode(QKV, plain))
    q, k, v = plain.split([1536, 384, 256])
    chunks = [torch.cat([q[:768], k[:192], v[:128]]), torch.cat([q[768:], k[192:], v[128:]])]
    alone = [quantize_blocks(chunk) for chunk in chunks]
    assert torch.equal(stored[f"{QKV.name}_scale_inv"], torch.cat([scales for _, scales in alone]))
    codes = torch.cat([weight.view(torch.uint8) for weight, _ in alone])
    assert torch.equal(stored[QKV.name].view(torch.uint8), codes)


def test_sliding_layers_deal_out_their_own_heads() -> None:
    weight = NamedWeight("model.layers.1.self_attn.qkv_proj.weight", (2816, 128), "qkv", sliding=True)
    plain = values_of(weight)
    stored = dict(WeightEncoder(CONFIG, WeightFormats("plain", "plain", torch.float32)).encode(weight, plain))
    assert torch.equal(stored[weight.name][768:1152], plain[1536:1920])  # two k heads follow the four q heads


@pytest.mark.parametrize(("rows", "sliding", "scale_rows"), [(768, False, 8), (1536, True, 12), (12288, False, 96)])
def test_split_projections_have_the_scale_rows_of_v2_flash(rows: int, sliding: bool, scale_rows: int) -> None:
    weight = NamedWeight("model.layers.0.self_attn.k_proj.weight", (rows, 4096), "qkv", sliding)
    planned = WeightEncoder(ModelConfig.from_dict(V2_FLASH), FORMATS).plan(weight)
    assert planned[1].shape == (scale_rows, 32)


def test_split_projections_with_one_possible_grid_are_quantised_in_one() -> None:
    """Two chunks of 100 rows need as many scale rows as 200 rows: no reader could tell, so it is one grid."""
    config = replace(CONFIG, weight_block_size=(128, 128))
    weight = NamedWeight("a.v_proj.weight", (200, 128), "qkv")
    values = values_of(weight)
    stored = dict(WeightEncoder(config, FORMATS).encode(weight, values))
    restored = expand_block_scales(stored["a.v_proj.weight"], stored["a.v_proj.weight_scale_inv"], torch.float32)
    assert torch.allclose(restored, values, rtol=1 / 15, atol=1e-4)  # half a step of three mantissa bits


@pytest.mark.parametrize("shape", [(128, 2176), (2175, 128), (2176,)])
def test_values_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        CheckpointError, match=r"`model\.layers\.0\.self_attn\.qkv_proj\.weight`: \[2176, 128\] expected"
    ):
        list(WeightEncoder(CONFIG, FORMATS).encode(QKV, torch.zeros(shape)))
