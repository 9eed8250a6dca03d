"""Reading weights: exactly the reference numbers, from fused and split storage, and nothing from damaged files."""

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mimo_cli.checkpoint import reader
from mimo_cli.checkpoint.config import AttentionConfig, ModelConfig
from mimo_cli.checkpoint.index import TensorIndex
from mimo_cli.checkpoint.reader import CheckpointReader
from mimo_cli.errors import CheckpointError
from mimo_cli.quant.fp8 import chunked_row_blocks, quantize_blocks
from tests.support.checkpoint_files import GOLDEN, copy_golden, open_golden, save_tensors

LAYER_0 = "model.layers.0.self_attn"
UP_PROJ = "model.layers.0.mlp.up_proj.weight"
CHECKS = [
    (folder, name, check)
    for folder in ("text", "text_mxfp4")
    for name, check in json.loads((GOLDEN / folder / "dequant_checks.json").read_text()).items()
]


def read_named(config: ModelConfig, reader: CheckpointReader, name: str) -> Tensor:
    """Read a matrix of dequant_checks.json; `...self_attn.q` is a part of the de-interleaved projection."""
    match = re.fullmatch(r"(.*layers\.(\d+)\.self_attn)\.([qkv])", name)
    if not match:
        return reader.read(f"{name}.weight", torch.float32)
    attention = config.sliding_attention if "mtp" in name else config.attention(int(match[2]))
    qkv = reader.qkv(match[1], attention, torch.float32)
    parts = qkv.split([attention.q_rows, attention.k_rows, attention.v_rows])
    return parts["qkv".index(match[3])]


@pytest.mark.parametrize(("folder", "name", "check"), CHECKS, ids=[f"{folder}-{name}" for folder, name, _ in CHECKS])
def test_dequantized_matrices_equal_the_reference_exactly(folder: str, name: str, check: Mapping[str, Any]) -> None:
    matrix = read_named(*open_golden(folder), name)
    assert list(matrix.shape) == check["shape"] and matrix.dtype == torch.float32
    assert matrix[0, :4].tolist() == check["first"] and matrix[-1, -4:].tolist() == check["last"]
    # Sums of some 200,000 float64 numbers: their order differs, so the last digits may.
    assert matrix.double().sum().item() == pytest.approx(check["sum"], abs=1e-9)
    assert matrix.double().abs().sum().item() == pytest.approx(check["abs_sum"], rel=1e-13)


def test_plain_tensors_are_converted_into_memory_of_their_own() -> None:
    _, reader = open_golden("text")
    stored = reader.raw("model.norm.weight")
    read = reader.read("model.norm.weight", torch.bfloat16)
    assert torch.equal(read, stored) and read.data_ptr() != stored.data_ptr()
    assert reader.read("model.norm.weight", torch.float32).dtype == torch.float32


def test_raw_tensors_are_views_of_the_file_and_raise_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, reader = open_golden("text")
        first, second = reader.raw(UP_PROJ), reader.raw(UP_PROJ)
    assert first.dtype == torch.float8_e4m3fn and first.data_ptr() == second.data_ptr()


def test_bfloat16_is_the_rounded_float32_matrix() -> None:
    config, reader = open_golden("text")
    in_float32 = reader.qkv(LAYER_0, config.attention(0), torch.float32)
    assert torch.equal(reader.qkv(LAYER_0, config.attention(0), torch.bfloat16), in_float32.to(torch.bfloat16))
    assert torch.equal(reader.read(UP_PROJ, torch.bfloat16), reader.read(UP_PROJ, torch.float32).to(torch.bfloat16))


def test_tensors_outlive_the_reader() -> None:
    _, reader = open_golden("text")
    raw, copy = reader.raw("model.norm.weight"), reader.read("model.norm.weight", torch.bfloat16)
    reader.close()
    assert torch.equal(raw, copy) and torch.equal(reader.read("model.norm.weight", torch.bfloat16), copy)


def test_released_pages_come_back_when_they_are_read_again() -> None:
    _, reader = open_golden("text")
    reader.release(UP_PROJ)  # nothing is mapped yet
    before = reader.raw(UP_PROJ).view(torch.uint8).clone()
    reader.release(UP_PROJ)
    assert torch.equal(reader.raw(UP_PROJ).view(torch.uint8), before)


def test_an_unexpected_shape_names_tensor_shard_expected_and_found() -> None:
    _, reader = open_golden("text")
    message = (
        rf"`{re.escape(UP_PROJ)}` in `model_pp0_ep0_shard1.safetensors` has shape \[256, 128\], \[128, 128\] expected"
    )
    with pytest.raises(CheckpointError, match=message):
        reader.read(UP_PROJ, torch.float32, shape=(128, 128))


def test_stored_bytes_count_weight_and_scales() -> None:
    _, reader = open_golden("text")
    assert reader.stored_bytes(UP_PROJ) == 256 * 128 + 2 * 1 * 4
    _, reader = open_golden("text_mxfp4")
    assert reader.stored_bytes("model.layers.1.mlp.experts.0.up_proj.weight") == 64 * 128 * 17 // 32


# --- bite: what must change the numbers ---


def flip_byte(folder: Path, name: str, position: int) -> None:
    """Change the exponent of one stored number."""
    info = TensorIndex.open(folder)[name]
    data = bytearray(info.shard.read_bytes())
    data[info.offset + position] ^= 0x01
    info.shard.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("name", "position", "changed_rows"),
    [
        (f"{UP_PROJ}_scale_inv", 6, slice(128, 256)),  # the scale of the second block of rows
        (UP_PROJ, 130 * 128, slice(130, 131)),
    ],
)
def test_one_flipped_bit_changes_the_matrix_where_it_lies(
    name: str, position: int, changed_rows: slice, tmp_path: Path
) -> None:
    folder = copy_golden("text", tmp_path / "model")
    flip_byte(folder, name, position)
    _, reader = open_golden("text")
    before = reader.read(UP_PROJ, torch.float32)
    after = CheckpointReader(TensorIndex.open(folder)).read(UP_PROJ, torch.float32)
    changed = (before != after).any(dim=1)
    assert bool(changed[changed_rows].all()) and int(changed.sum()) == len(range(256)[changed_rows])


def test_a_flipped_scale_of_a_chunk_touches_that_chunk_only(tmp_path: Path) -> None:
    folder = copy_golden("text", tmp_path / "model")
    flip_byte(folder, f"{LAYER_0}.qkv_proj.weight_scale_inv", 4 * 17 + 2)  # the last, ragged block of the second chunk
    config, reader = open_golden("text")
    attention = config.attention(0)
    before = reader.qkv(LAYER_0, attention, torch.float32)
    after = CheckpointReader(TensorIndex.open(folder), config).qkv(LAYER_0, attention, torch.float32)
    changed = (before != after).any(dim=1).nonzero().flatten()
    first_v_of_chunk = attention.q_rows + attention.k_rows + attention.v_rows // 2
    assert changed.tolist() == list(range(first_v_of_chunk + 64, attention.qkv_rows))  # 1088 rows: 64 in the last block


@pytest.mark.parametrize("chunks", ["plain", 1])
def test_another_number_of_chunks_gives_other_q_k_and_v(chunks: Any) -> None:
    """The grid of a sliding layer fits one chunk as well as two: only the number says which rows are whose."""
    config, reader = open_golden("text")
    attention, prefix = config.sliding_attention, "model.layers.1.self_attn"
    right = reader.qkv(prefix, attention, torch.float32)
    wrong = CheckpointReader(reader.index, config, qkv_chunks=chunks).qkv(prefix, attention, torch.float32)
    rows = [attention.q_rows, attention.k_rows, attention.v_rows]
    assert all(not torch.equal(a, b) for a, b in zip(right.split(rows), wrong.split(rows), strict=True))
    assert torch.equal(right.sort(dim=0).values, wrong.sort(dim=0).values)  # the same rows, dealt out otherwise


@pytest.mark.parametrize("chunks", ["plain", 1])
def test_chunks_that_contradict_the_scale_grid_are_refused(chunks: Any) -> None:
    config, reader = open_golden("text")
    with pytest.raises(CheckpointError, match=r"has shape \[18, 1\], 17 rows expected for 1 qkv chunks") as error:
        CheckpointReader(reader.index, config, qkv_chunks=chunks).qkv(LAYER_0, config.attention(0), torch.float32)
    assert error.value.hint and "`plain` or a number" in error.value.hint


@pytest.mark.parametrize("chunks", [3, 4, 8, 0, -1])
def test_heads_that_cannot_be_dealt_out_are_refused(chunks: int) -> None:
    config, reader = open_golden("text")
    with pytest.raises(CheckpointError, match="cannot form"):
        CheckpointReader(reader.index, config, qkv_chunks=chunks).qkv(LAYER_0, config.attention(0), torch.float32)


# --- storage other than the reference sets' ---

ATTENTION = AttentionConfig(
    num_heads=8,
    num_kv_heads=4,
    head_dim=192,
    v_head_dim=128,
    rotary_dim=64,
    rope_theta=1e4,
    window=None,
    has_sink=False,
)


def random_matrix(rows: int, columns: int = 40, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def reader_of(folder: Path, tensors: Mapping[str, Tensor], **options: Any) -> CheckpointReader:
    save_tensors(folder / "model.safetensors", tensors)
    return CheckpointReader(TensorIndex.open(folder), **options)


def split_tensors(k_chunks: int) -> tuple[dict[str, Tensor], Tensor]:
    """Return FP8 q, k and v as V2-Flash stores them, and what they are; k was quantised in `k_chunks` parts."""
    stored, parts = {}, []
    for projection, rows, chunks in (("q", 1536, 1), ("k", 768, k_chunks), ("v", 512, 1)):
        row_blocks = chunked_row_blocks(rows, chunks, 128)
        weight, scales = quantize_blocks(
            random_matrix(rows) * torch.linspace(1, 50, rows)[:, None], row_blocks=row_blocks
        )
        stored[f"a.{projection}_proj.weight"], stored[f"a.{projection}_proj.weight_scale_inv"] = weight, scales
        parts.append(weight.float() * scales[row_blocks].repeat_interleave(128, 1)[:, :40])
    return stored, torch.cat(parts)


@pytest.mark.parametrize("k_chunks", [1, 4])
def test_split_projections_join_whatever_grid_k_has(k_chunks: int, tmp_path: Path) -> None:
    """768 rows of k have 6 scale rows in one grid, 8 in the four chunks of V2-Flash's global layers."""
    stored, expected = split_tensors(k_chunks)
    assert stored["a.k_proj.weight_scale_inv"].shape[0] == {1: 6, 4: 8}[k_chunks]
    assert torch.equal(reader_of(tmp_path, stored).qkv("a", ATTENTION, torch.float32), expected)


def test_plain_split_projections_join(tmp_path: Path) -> None:
    parts = {f"a.{name}_proj.weight": random_matrix(rows) for name, rows in (("q", 1536), ("k", 768), ("v", 512))}
    assert torch.equal(reader_of(tmp_path, parts).qkv("a", ATTENTION, torch.float32), torch.cat(list(parts.values())))


def test_a_split_grid_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    stored, _ = split_tensors(1)
    stored["a.k_proj.weight_scale_inv"] = torch.ones(7, 1)
    with pytest.raises(CheckpointError, match=r"`a.k_proj.weight` in .*grid is \[7, 1\], \[6, 1\] expected"):
        reader_of(tmp_path, stored).qkv("a", ATTENTION, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unquantised_fused_rows_are_dealt_out_too(dtype: torch.dtype, tmp_path: Path) -> None:
    """Two chunks of [4 q heads, 2 k heads, 2 v heads], built here by hand."""
    plain = random_matrix(ATTENTION.qkv_rows).to(dtype)
    q, k, v = plain.split([1536, 768, 512])
    fused = torch.cat([q[:768], k[:384], v[:256], q[768:], k[384:], v[256:]])
    reader = reader_of(tmp_path, {"a.qkv_proj.weight": fused}, qkv_chunks=2)
    assert torch.equal(reader.qkv("a", ATTENTION, dtype), plain)


def test_an_unaligned_header_is_read_all_the_same(tmp_path: Path) -> None:
    tensors = {"x": torch.arange(5, dtype=torch.uint8), "y": torch.tensor([1.5, -2.0])}
    reader = reader_of(tmp_path, tensors)
    shifts = {reader.index["y"].offset % 4}
    for length in range(1, 4):  # names of other lengths move the data by single bytes
        folder = tmp_path / str(length)
        folder.mkdir()
        reader = reader_of(folder, {"x" * (length + 1): tensors["x"], "y": tensors["y"]})
        shifts.add(reader.index["y"].offset % 4)
        assert reader.read("y", torch.float32).tolist() == [1.5, -2.0]
    assert len(shifts) > 1


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"w": torch.ones(2, 2).to(torch.float8_e4m3fn)}, "float8_e4m3fn without scales"),
        ({"w": torch.ones(2, 2, dtype=torch.uint8)}, "uint8 without scales"),
        ({"w": torch.ones(2, 2), "w_scale_inv": torch.ones(1, 1)}, "block FP8 needs a matrix"),
        ({"w": torch.ones(2, 2), "w_scale": torch.ones(1, 1)}, "MXFP4 needs a matrix"),
        ({"w": torch.ones(2, 2).to(torch.float8_e4m3fn), "w_scale_inv": torch.ones(2, 1)}, r"\[1, 1\] expected"),
        ({"w": torch.ones(2, 2).to(torch.float8_e4m3fn), "w_scale_inv": torch.ones(1)}, r"\[1, 1\] expected"),
        ({"w": torch.ones(2, 16, dtype=torch.uint8), "w_scale": torch.ones(2, 2, dtype=torch.uint8)}, "do not cover"),
    ],
)
def test_a_weight_whose_scales_do_not_fit_is_named(tensors: dict[str, Tensor], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"tensor `w` in `model.safetensors`: .*{message}"):
        reader_of(tmp_path, tensors).read("w", torch.float32)


def test_a_missing_projection_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"`a\.k_proj\.weight` is missing"):
        reader_of(tmp_path, {"a.q_proj.weight": random_matrix(1536)}).qkv("a", ATTENTION, torch.float32)


def test_a_fused_projection_of_other_heads_is_refused(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, {"a.qkv_proj.weight": random_matrix(100)}, qkv_chunks=1)
    with pytest.raises(CheckpointError, match=r"shape \[100, 40\], 2816 rows expected"):
        reader.qkv("a", ATTENTION, torch.float32)


def test_a_shard_that_shrank_since_it_was_opened_is_refused(tmp_path: Path) -> None:
    reader = reader_of(tmp_path, {"w": torch.ones(64)})
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="changed while it was open"):
        reader.read("w", torch.float32)


def test_what_was_assumed_is_noted_once(tmp_path: Path) -> None:
    config = ModelConfig.from_file(GOLDEN / "text" / "config.json")
    rows = random_matrix(config.global_attention.qkv_rows)
    reader = reader_of(tmp_path, {"a.qkv_proj.weight": rows, "b.qkv_proj.weight": rows}, config=config)
    for prefix in "ab":
        reader.qkv(prefix, config.global_attention, torch.float32)
    assert reader.notes == ["fused qkv without block scales is taken as 2 chunks, the release's layout"]
    assert not open_golden("text")[1].notes


def test_a_large_tensor_that_is_kept_can_stay_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "BULK_BYTES", 1024)
    table = torch.randn(64, 32)
    save_tensors(tmp_path / "model.safetensors", {"large": table, "small": table[:1].clone()})
    opened = CheckpointReader(TensorIndex.open(tmp_path))
    mapped = opened.mapped("large", torch.float32)
    assert mapped is not None and torch.equal(mapped, table)
    assert mapped.data_ptr() == opened.raw("large").data_ptr()
    assert opened.mapped("large", torch.bfloat16) is None and opened.mapped("small", torch.float32) is None
    assert torch.equal(opened.own("large"), table) and opened.own("large").data_ptr() != mapped.data_ptr()


def test_what_was_dropped_is_read_again_when_it_is_needed() -> None:
    config, reader = open_golden("text")
    name = "model.layers.1.self_attn.o_proj.weight"
    before = reader.read(name, torch.float32)
    for from_cache in (False, True):
        reader.drop([name], from_cache=from_cache)
        assert torch.equal(reader.read(name, torch.float32), before)
    reader.drop(["no such tensor"], from_cache=True)
    assert config.hidden_size in before.shape
