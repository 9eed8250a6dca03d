"""Plans over the whole family: split and fused projections, odd row counts, tied embeddings, unquantised sources."""

from pathlib import Path
from typing import Any

import pytest
import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.encoder import WeightFormats
from mimo_cli.checkpoint.writer import StorageLayout, write_checkpoint
from mimo_cli.engine.load import load_engine
from mimo_cli.errors import UsageError
from mimo_cli.store.convert import convert
from mimo_cli.store.opened import open_model
from mimo_cli.store.plan import QuantizeOptions, StorePlan, plan_store
from tests.support.checkpoint_files import random_weights
from tests.support.stores import file_sizes, make_plan
from tests.support.tiny_config import tiny_values

LAYOUT = StorageLayout(ranks=1, shards=1, num_mtp=1, has_vision=False, has_audio=False)


def _source(folder: Path, formats: WeightFormats | None = None, **overrides: Any) -> Path:
    values = tiny_values(**overrides)
    write_checkpoint(folder, values, random_weights(ModelConfig.from_dict(values), LAYOUT), LAYOUT, formats)
    return folder


def _converted(source: Path, folder: Path, options: QuantizeOptions) -> StorePlan:
    plan = plan_store(source, options)
    convert(plan, folder)
    assert file_sizes(folder) == plan.sizes
    return plan


@pytest.mark.parametrize("layout", ["split", "fused_qkv"])
@pytest.mark.parametrize("quantised", [True, False])
def test_packed_qkv_is_in_plain_order_whatever_the_source_has(tmp_path: Path, layout: str, quantised: bool) -> None:
    """k has 12 rows here, which is no multiple of a block's 16."""
    formats = WeightFormats("fp8", "fp8") if quantised else WeightFormats("plain", "plain")
    source = _source(tmp_path / "source", formats, attention_projection_layout=layout)
    _converted(source, tmp_path / "store", QuantizeOptions("int4", 32, "int8"))
    config = ModelConfig.from_file(source / "config.json")
    direct, packed = (open_model(tmp_path / name, config).reader() for name in ("source", "store"))
    for layer in range(config.num_hidden_layers):
        prefix, attention = f"model.layers.{layer}.self_attn", config.attention(layer)
        expected = direct.qkv(prefix, attention, torch.float32)
        found = packed.qkv(prefix, attention, torch.float32)
        assert float((found - expected).norm() / expected.norm()) < 0.01  # one part in 254 of a row's largest
    opened = open_model(tmp_path / "store", config)
    assert not opened.require_whole().problems
    with load_engine(tmp_path / "store", dtype="float32") as engine, load_engine(source, dtype="float32") as released:
        found, expected = engine.logits([3, 1, 4, 1, 5]), released.logits([3, 1, 4, 1, 5])
        assert found.isfinite().all() and not torch.equal(found, expected)
        assert len(engine.draft_logits([3, 1, 4])) == 1


def test_an_unquantised_source_is_kept_or_quantised(tmp_path: Path) -> None:
    source = _source(tmp_path / "source", WeightFormats("plain", "plain"))
    for experts, bound in (("int4", 0.12), ("mxfp4", 0.16), ("fp8", 0.04)):
        plan = _converted(source, tmp_path / experts, QuantizeOptions(experts))  # type: ignore[arg-type]
        manifest = open_model(tmp_path / experts, plan.config).manifest
        assert manifest is not None and manifest.lossy[0].was == "BF16"
        assert 0 < float(manifest.lossy[0].relative_error) < bound


def test_a_tied_head_stays_an_embedding(tmp_path: Path) -> None:
    source = _source(tmp_path / "source", tie_word_embeddings=True)
    plan = _converted(source, tmp_path / "store", QuantizeOptions("int4", 32, "int4"))
    assert "lm_head.weight" not in plan.packed
    with load_engine(tmp_path / "store", dtype="float32") as engine:
        assert engine.logits([1, 2]).isfinite().all()


def test_a_model_without_experts_has_no_records(tmp_path: Path) -> None:
    source = _source(tmp_path / "source", moe_layer_freq=[0, 0, 0, 0])
    plan = _converted(source, tmp_path / "store", QuantizeOptions("int4", 32, "int8"))
    assert plan.records is None and plan.precision["experts"] == "none"
    assert [loss.part for loss in plan.losses({})] == ["dense"]
    with load_engine(tmp_path / "store", dtype="float32") as engine:
        assert engine.logits([1, 2]).isfinite().all()


def test_auto_keeps_mxfp4_and_chooses_int4_elsewhere() -> None:
    assert make_plan("text_mxfp4").experts_format == "mxfp4"
    assert make_plan("text").experts_format == "int4"


def test_another_source_has_another_identity(tmp_path: Path) -> None:
    one, two = _source(tmp_path / "a"), _source(tmp_path / "b", sliding_window_size=6)
    options = QuantizeOptions("int4")
    assert plan_store(one, options).conversion == plan_store(one, options).conversion
    assert plan_store(one, options).identity["config_sha256"] != plan_store(two, options).identity["config_sha256"]
    assert plan_store(one, options).conversion != plan_store(one, QuantizeOptions("int4", 64)).conversion


def test_fp8_in_blocks_that_cannot_be_packed_is_refused_by_size(tmp_path: Path) -> None:
    quantization = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [8, 8]}
    source = _source(tmp_path / "source", WeightFormats("fp8", "fp8"), quantization_config=quantization)
    with pytest.raises(UsageError, match=r"FP8 with blocks of \(8, 8\) cannot be packed"):
        plan_store(source, QuantizeOptions("fp8"))
    _converted(source, tmp_path / "store", QuantizeOptions("int4", 32, "int8"))
