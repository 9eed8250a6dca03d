"""The PTX that turns codes into numbers, run by a few lines that know its instructions: every code, every place."""

import re
import struct
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mimo_cli.quant.triton.blocks import FP8_PAIRS, INT4_WORD, MXFP4_WORD

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


def run(asm: str, word: int, outputs: int) -> list[float]:
    """Execute a block of PTX whose input is operand `$outputs`."""
    held: dict[str, int] = {f"${outputs}": word}
    for line in asm.strip("{} \n").split(";"):
        if not line.strip() or ".reg" in line:
            continue
        name, rest = line.split(None, 1)
        operands = [part.strip() for part in re.findall(r"\{[^}]*\}|[^,]+", rest) if part.strip()]
        values = [held[o] if o in held else int(o, 0) for o in operands[1:]]
        result = OPERATIONS[name](*values)
        if operands[0].startswith("{"):
            low, high = (part.strip() for part in operands[0].strip("{}").split(","))
            held[low], held[high] = result & 0xFFFF, result >> 16
        else:
            held[operands[0]] = result
    return [struct.unpack("<f", struct.pack("<I", held[f"${i}"]))[0] for i in range(outputs)]


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
