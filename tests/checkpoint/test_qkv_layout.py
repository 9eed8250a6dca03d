"""Finding the number of chunks of fused qkv, and dealing the rows out."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mimo_cli.checkpoint.config import AttentionConfig, ModelConfig
from mimo_cli.checkpoint.header import ShardHeader, TensorInfo
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.qkv_layout import find_qkv_layout, fused_row_order, scale_grid_rows
from mimo_cli.errors import CheckpointError
from tests.support.family_configs import V2_5, V2_5_PRO

CONFIG = ModelConfig.from_dict(V2_5)
GLOBAL, SLIDING = CONFIG.global_attention, CONFIG.sliding_attention


def index_of(tensors: dict[str, tuple[int, ...]], **metadata: Any) -> TensorIndex:
    """Make an index of names and shapes alone."""
    path = Path("model.safetensors")
    infos = {name: TensorInfo(name, "F32", torch.float32, shape, path, 0, 0) for name, shape in tensors.items()}
    return TensorIndex(Path("."), [ShardHeader(path, 0, infos, {})], metadata)


def fused_index(rows: int, scale_rows: int | None, layer: int = 0, **metadata: Any) -> TensorIndex:
    name = f"model.layers.{layer}.self_attn.qkv_proj.weight"
    tensors = {name: (rows, 4096)} | ({f"{name}_scale_inv": (scale_rows, 32)} if scale_rows else {})
    return index_of(tensors, **metadata)


def test_the_index_file_states_the_number() -> None:
    layout = find_qkv_layout(fused_index(13568, 108, tp_size=4), CONFIG)
    assert layout.chunks == 4 and layout.assumption is None
    assert find_qkv_layout(index_of({}, tp_size="8"), None).chunks == 8


@pytest.mark.parametrize(("values", "rows", "scale_rows", "chunks"), [(V2_5, 13568, 108, 4), (V2_5_PRO, 27136, 216, 8)])
def test_the_released_grids_prove_their_number(values: dict[str, Any], rows: int, scale_rows: int, chunks: int) -> None:
    layout = find_qkv_layout(fused_index(rows, scale_rows), ModelConfig.from_dict(values))
    assert layout.chunks == chunks and layout.assumption is None


def test_a_contiguous_grid_means_plain_order_and_is_mentioned() -> None:
    layout = find_qkv_layout(fused_index(13568, 106), CONFIG)
    assert layout.chunks == 1 and layout.assumption and "plain order" in layout.assumption


def test_a_stated_number_that_the_grid_contradicts_is_not_believed() -> None:
    layout = find_qkv_layout(fused_index(13568, 106, tp_size=4), CONFIG)
    assert layout.chunks == 1 and layout.assumption and "`tp_size` 4" in layout.assumption


def test_only_global_layers_are_asked() -> None:
    """The grid of sliding layer 1 fits 1, 2 and 4 chunks and proves nothing."""
    layout = find_qkv_layout(fused_index(14848, 116, layer=1), CONFIG)
    assert layout.chunks == 4 and layout.assumption and "without block scales" in layout.assumption
    both = {
        "model.layers.1.self_attn.qkv_proj.weight": (14848, 4096),
        "model.layers.1.self_attn.qkv_proj.weight_scale_inv": (116, 32),
        "model.layers.5.self_attn.qkv_proj.weight": (13568, 4096),
        "model.layers.5.self_attn.qkv_proj.weight_scale_inv": (106, 32),
    }
    assert find_qkv_layout(index_of(both), CONFIG).chunks == 1


def test_without_scales_the_layout_of_the_release_is_assumed_and_said() -> None:
    layout = find_qkv_layout(fused_index(13568, None), CONFIG)
    assert layout.chunks == 4 and layout.assumption and "4 chunks" in layout.assumption


def test_a_grid_that_fits_several_numbers_is_taken_as_the_release() -> None:
    config = replace(CONFIG, weight_block_size=(64, 128))  # every chunk of 3392 rows is whole blocks
    layout = find_qkv_layout(fused_index(13568, 212), config)
    assert layout.chunks == 4 and layout.assumption and "fits others too" in layout.assumption
    assert find_qkv_layout(fused_index(13568, 212, tp_size=2), config).chunks == 2


@pytest.mark.parametrize("scale_rows", [1, 107, 109, 112])
def test_a_grid_that_fits_nothing_is_refused(scale_rows: int) -> None:
    with pytest.raises(CheckpointError, match=f"13568 rows with {scale_rows} scale rows fits no") as error:
        find_qkv_layout(fused_index(13568, scale_rows), CONFIG)
    assert error.value.hint and "`plain` or a number" in error.value.hint


@pytest.mark.parametrize(("override", "chunks"), [("plain", 1), (1, 1), (2, 2), (4, 4)])
def test_the_user_has_the_last_word(override: Any, chunks: int) -> None:
    layout = find_qkv_layout(fused_index(13568, 108, tp_size=4), CONFIG, override)
    assert layout.chunks == chunks and layout.assumption is None


def test_without_config_and_statement_nothing_is_guessed() -> None:
    with pytest.raises(CheckpointError, match="no `tp_size`"):
        find_qkv_layout(fused_index(13568, 108), None)


@pytest.mark.parametrize("tp_size", ["four", -4, 0, 4.0, True, None, [4], 1 << 40])
def test_a_statement_that_is_no_number_says_nothing(tp_size: Any) -> None:
    assert find_qkv_layout(fused_index(13568, 106, tp_size=tp_size), CONFIG).chunks == 1


def test_released_chunks_hold_their_heads() -> None:
    order = fused_row_order(GLOBAL, 4)
    assert order[:3072].tolist() == list(range(3072))  # 16 q heads of chunk 0
    assert order[3072:3264].tolist() == list(range(12288, 12480))  # its k head
    assert order[3264:3392].tolist() == list(range(13056, 13184))  # its v head
    assert int(order[3392]) == 3072  # chunk 1 goes on with q head 16
    sliding = fused_row_order(SLIDING, 4)
    assert int(sliding[3072]) == 12288 and int(sliding[3072 + 384]) == 12288 + 1536 and int(sliding[3712]) == 3072


def test_one_chunk_is_plain_order() -> None:
    assert torch.equal(fused_row_order(GLOBAL, 1), torch.arange(13568))


@given(
    kv_heads=st.integers(1, 6),
    queries=st.integers(1, 4),
    head_dim=st.integers(1, 9),
    v_head_dim=st.integers(1, 9),
    chunks=st.integers(1, 6),
)
def test_every_row_has_one_place_and_every_chunk_the_same_parts(
    kv_heads: int, queries: int, head_dim: int, v_head_dim: int, chunks: int
) -> None:
    attention = AttentionConfig(kv_heads * queries, kv_heads, head_dim, v_head_dim, 0, 1e4, None, False)
    if kv_heads % chunks:
        with pytest.raises(CheckpointError, match="cannot form"):
            fused_row_order(attention, chunks)
        return
    order = fused_row_order(attention, chunks)
    assert order.sort().values.tolist() == list(range(attention.qkv_rows))
    for chunk in order.view(chunks, -1):
        counts = [attention.q_rows // chunks, attention.k_rows // chunks, attention.v_rows // chunks]
        q, k, v = chunk.split(counts)
        assert bool((q < attention.q_rows).all()) and bool((v >= attention.q_rows + attention.k_rows).all())
        assert all(bool((part.diff() == 1).all()) for part in (q, k, v))  # heads stay whole and in order


def test_grids_count_ragged_blocks_of_every_chunk() -> None:
    assert [scale_grid_rows(13568, chunks, 128) for chunks in (1, 2, 4)] == [106, 106, 108]
    assert [scale_grid_rows(14848, chunks, 128) for chunks in (1, 2, 4)] == [116, 116, 116]
