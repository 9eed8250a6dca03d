"""The PTX of the kernels, run by a few lines that know its instructions: every code, every place, every lane."""

import math
import re
import struct
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mimo_cli.quant.triton.blocks import FP8_PAIRS, INT4_WORD, MXFP4_WORD
from mimo_cli.quant.triton.cores import INT4_PRODUCTS, MXFP4_PRODUCTS

E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]


def halves(bits: int) -> np.ndarray:
    """The two float16 of 32 bits, the low one first."""
    return np.array([bits & 0xFFFF, bits >> 16], np.uint16).view(np.float16)


def bits_of(pair: np.ndarray) -> int:
    low, high = pair.astype(np.float16).view(np.uint16).tolist()
    return int(low | high << 16)


def e4m3_pair(bits: int) -> int:
    values = torch.tensor([bits & 255, bits >> 8], dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    return bits_of(values)


OPERATIONS: dict[str, Callable[..., int]] = {
    "shl.b32": lambda a, b: a << b & 0xFFFFFFFF,
    "shr.u32": lambda a, b: a >> b,
    "and.b32": lambda a, b: a & b,
    "lop3.b32": lambda a, b, c, table: (a & b) | c if table == 0xEA else 1 / 0,
    "mov.b32": lambda a: a,
    "cvt.rn.f16x2.e4m3x2": e4m3_pair,
    "sub.rn.f16x2": lambda a, b: bits_of(halves(a) - halves(b)),
    "fma.rn.f16x2": lambda a, b, c: bits_of(halves(a).astype(float) * halves(b) + halves(c)),
    "cvt.f32.f16": lambda a: struct.unpack("<I", struct.pack("<f", float(halves(a)[0])))[0],
}


def floats(bits: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


def float_bits(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def bfloats(bits: int) -> list[float]:
    """The two bfloat16 of 32 bits, the low one first."""
    return [floats(bits << 16 & 0xFFFF0000), floats(bits & 0xFFFF0000)]


def bfloat_bits(low: float, high: float) -> int:
    assert not float_bits(low) & 0xFFFF and not float_bits(high) & 0xFFFF, "no bfloat16: it would be rounded"
    return float_bits(low) >> 16 | float_bits(high) & 0xFFFF0000


def permuted(a: int, b: int, selector: int) -> int:
    source = (b << 32 | a).to_bytes(8, "little")
    return int.from_bytes(bytes(source[selector >> 4 * i & 7] for i in range(4)), "little")


OPERATIONS |= {
    "mov.u32": lambda a: a,
    "mov.f32": lambda a: a,
    "xor.b32": lambda a, b: a ^ b,
    "add.u32": lambda a, b: a + b,
    "setp.eq.u32": lambda a, b: a == b,
    "setp.ne.u32": lambda a, b: a != b,
    "selp.f32": lambda a, b, which: a if which else b,
    "mul.f32": lambda a, b: float_bits(floats(a) * floats(b)),
    "prmt.b32": permuted,
    "fma.rn.bf16x2": lambda a, b, c: bfloat_bits(
        *(x * y + z for x, y, z in zip(bfloats(a), bfloats(b), bfloats(c), strict=True))
    ),
}


def number(operand: str) -> int:
    return int(operand[2:], 16) if operand.startswith("0f") else int(operand, 0)


def multiply(lanes: list[dict[str, int]], parts: list[list[str]]) -> None:
    """mma.m16n8k16 of bfloat16: its fragments as the PTX manual lays them out over the lanes."""
    out, a, b, c = parts
    rows, columns = np.zeros((16, 16)), np.zeros((16, 8))
    for lane, held in enumerate(lanes):
        quad, place = divmod(lane, 4)
        for index, name in enumerate(a):
            row, k = quad + 8 * (index % 2), 2 * place + 8 * (index // 2)
            rows[row, k : k + 2] = bfloats(held[name])
        for index, name in enumerate(b):
            k = 2 * place + 8 * index
            columns[k : k + 2, quad] = bfloats(held[name])
    product = rows @ columns
    for lane, held in enumerate(lanes):
        quad, place = divmod(lane, 4)
        for index, (name, before) in enumerate(zip(out, c, strict=True)):
            row, column = quad + 8 * (index // 2), 2 * place + index % 2
            held[name] = float_bits(floats(held[before]) + product[row, column])


def run_lanes(asm: str, given: list[list[int]], outputs: int) -> list[list[float]]:
    """Execute a block of PTX on lanes whose inputs are the operands from `$outputs` on."""
    lanes = [{f"${outputs + i}": v for i, v in enumerate(one)} | {"%laneid": n} for n, one in enumerate(given)]
    for line in asm.strip("{} \n").split(";"):
        if not line.strip() or ".reg" in line:
            continue
        name, rest = line.split(None, 1)
        operands = [part.strip() for part in re.findall(r"\{[^}]*\}|[^,\s]+", rest)]
        if name.startswith("mma."):
            multiply(lanes, [re.findall(r"\w+", part) for part in operands])
            continue
        for held in lanes:
            result = OPERATIONS[name](*(held[o] if o in held else number(o) for o in operands[1:]))
            if operands[0].startswith("{"):
                low, high = re.findall(r"\w+", operands[0])
                held[low], held[high] = result & 0xFFFF, result >> 16
            else:
                held[operands[0]] = result
    return [[floats(held[f"${i}"]) for i in range(outputs)] for held in lanes]


def run(asm: str, word: int, outputs: int) -> list[float]:
    """Execute a block of PTX whose input is operand `$outputs`."""
    return run_lanes(asm, [[word]], outputs)[0]


@pytest.mark.parametrize(("asm", "values"), [(INT4_WORD, range(-8, 8)), (MXFP4_WORD, [v / 64 for v in E2M1])])
def test_a_word_of_eight_codes_becomes_its_eight_columns(asm: object, values: object) -> None:
    table = list(values)  # type: ignore[call-overload]
    for seed in range(40):
        codes = np.random.default_rng(seed).integers(0, 16, 8)
        word = sum(int(code) << (8 * (k % 4) + 4 * (k // 4)) for k, code in enumerate(codes))
        assert run(asm.value, word, 8) == [table[code] for code in codes]  # type: ignore[attr-defined]


def test_two_units_of_fp8_become_first_and_second_columns() -> None:
    for code in range(0, 256, 3):
        if code & 127 == 127:
            continue
        word = code | 0x38 << 8 | (code ^ 0x80) << 16 | 0x40 << 24
        value = torch.tensor([code], dtype=torch.uint8).view(torch.float8_e4m3fn).item()
        assert run(FP8_PAIRS.value, word, 4) == [value, -value, 1.0, 2.0]


@pytest.mark.parametrize(("asm", "values"), [(INT4_PRODUCTS, range(-8, 8)), (MXFP4_PRODUCTS, E2M1)])
def test_lanes_share_the_sums_of_four_rows_over_each_group_of_lines(asm: object, values: object) -> None:
    table = np.array(list(values))  # type: ignore[call-overload]
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 16, (2, 16, 4, 8))  # four of rows, line, row, column
    inputs = rng.integers(-64, 64, (16, 8)) / 8  # exact in bfloat16, so all sums are exact in float32
    given = []
    for lane in range(32):
        four, line = divmod(lane, 16)
        words = [sum(int(c) << (8 * (k % 4) + 4 * (k // 4)) for k, c in enumerate(row)) for row in codes[four, line]]
        pairs = [bfloat_bits(inputs[line, k], inputs[line, k + 1]) for k in range(0, 8, 2)]
        given.append([*words, *pairs, *range(lane, 128, 32)])
    found = np.array(run_lanes(asm.value, given, 4)).reshape(2, 4, 4, 4)  # type: ignore[attr-defined]
    # [four, group of lines, line in the group, row]: two of the four lines of a group hold half of its sum each.
    expected = np.einsum("qlrk,lk->qlr", table[codes], inputs).reshape(2, 4, 4, 4).sum(axis=2)
    assert np.array_equal(found.sum(axis=2), expected)
    for wrong in (lambda place: (place + 1) % 128, lambda place: place ^ 32):  # another lane; another row
        moved = [[*one[:8], *map(wrong, one[8:])] for one in given]
        assert all(math.isnan(value) for one in run_lanes(asm.value, moved, 4) for value in one)  # type: ignore[attr-defined]
