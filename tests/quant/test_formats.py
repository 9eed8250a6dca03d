"""Bytes of a matrix, against the stored sizes of the release."""

import sys
from subprocess import run

import pytest

from mimo_cli.quant.formats import BFLOAT16, FLOAT16, FLOAT32, FP8_BLOCK, MXFP4, WeightFormat

HIDDEN, EXPERT_WIDTH = 4096, 2048


def expert_bytes(form: WeightFormat) -> int:
    """Bytes of gate, up and down of one MiMo-V2.5 expert."""
    return 2 * form.size_bytes(EXPERT_WIDTH, HIDDEN) + form.size_bytes(HIDDEN, EXPERT_WIDTH)


@pytest.mark.parametrize(
    ("form", "stored_bytes"), [(FP8_BLOCK, 25_171_968), (MXFP4, 13_369_344), (BFLOAT16, 50_331_648)]
)
def test_one_expert_takes_the_bytes_of_the_release(form: WeightFormat, stored_bytes: int) -> None:
    assert expert_bytes(form) == stored_bytes


@pytest.mark.parametrize(
    ("rows", "chunks", "grid"), [(13568, 4, (108, 32)), (13568, 1, (106, 32)), (14848, 4, (116, 32))]
)
def test_fused_qkv_has_a_grid_per_chunk(rows: int, chunks: int, grid: tuple[int, int]) -> None:
    assert FP8_BLOCK.scale_shape(rows, HIDDEN, chunks) == grid
    assert FP8_BLOCK.size_bytes(rows, HIDDEN, chunks) == rows * HIDDEN + 4 * grid[0] * grid[1]


def test_packed_formats_halve_the_columns() -> None:
    assert MXFP4.weight_shape(EXPERT_WIDTH, HIDDEN) == (2048, 2048)
    assert MXFP4.scale_shape(EXPERT_WIDTH, HIDDEN) == (2048, 128)
    assert FP8_BLOCK.weight_shape(EXPERT_WIDTH, HIDDEN) == (2048, 4096)


def test_mxfp4_takes_four_and_a_quarter_bits() -> None:
    assert MXFP4.bits_per_weight(64, 64) == 4.25


@pytest.mark.parametrize("form", [FLOAT32, BFLOAT16, FLOAT16])
def test_plain_formats_have_no_scales(form: WeightFormat) -> None:
    assert form.scale_shape(3, 5) is None
    assert form.size_bytes(3, 5) == 15 * form.weight_bits // 8


def test_planning_with_formats_needs_no_torch() -> None:
    code = "import sys, mimo_cli.quant.formats; sys.exit('torch' in sys.modules)"
    assert run([sys.executable, "-c", code], check=False).returncode == 0
