"""The reference's own storage code: every code of every format, and files that the public library reads."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.reference.packed import copy_set, pack
from tests.reference.random_values import RandomValues
from tests.reference.storage import (
    E4M3,
    Stored,
    decode_bfloat16,
    decode_e2m1,
    decode_e8m0,
    encode_bfloat16,
    encode_e4m3,
    read_file,
    store,
    write_file,
)

VALUES = RandomValues(1).near_normal((20_000,), 100.0)
TORCH_TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn}


def test_every_e4m3_code_has_torchs_value() -> None:
    theirs = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float().numpy()
    assert np.array_equal(E4M3, theirs, equal_nan=True)


def test_rounding_to_e4m3_is_torchs() -> None:
    middles = (E4M3[:126] + E4M3[1:127]) / 2  # ties, all of them
    values = np.concatenate([VALUES.clip(-448, 448), VALUES / 1e4, middles, -middles, [0.0, 448.0, -448.0]])
    theirs = torch.from_numpy(values).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    assert encode_e4m3(values) == theirs.tobytes()


def test_rounding_to_bfloat16_is_torchs() -> None:
    ties = (np.arange(2**15, dtype=np.uint32)[::7] << 16 | 0x8000).view(np.float32)
    values = np.concatenate([VALUES, ties[np.isfinite(ties) & (ties < 3e38)]])
    theirs = torch.from_numpy(values).to(torch.bfloat16)
    assert encode_bfloat16(values) == theirs.view(torch.uint8).numpy().tobytes()
    assert np.array_equal(decode_bfloat16(encode_bfloat16(values)), theirs.float().numpy())


def test_e2m1_reads_the_lower_half_first_and_bit_3_as_sign() -> None:
    assert decode_e2m1(np.array([[0x71, 0x9F]], np.uint8)).tolist() == [[0.5, 6.0, -6.0, -0.5]]


@pytest.mark.parametrize(("code", "value"), [(127, 1.0), (130, 8.0), (0, 2.0**-127), (254, 2.0**127)])
def test_e8m0_is_a_power_of_two_subnormal_ones_included(code: int, value: float) -> None:
    assert decode_e8m0(np.array([code], np.uint8))[0] == np.float32(value)


def test_a_written_file_is_what_the_public_library_reads(tmp_path) -> None:
    tensors = {f"x.{dtype}": store(VALUES[:12].reshape(3, 4), dtype) for dtype in TORCH_TYPES}
    tensors["codes"] = Stored("U8", (5,), bytes(range(5)))
    write_file(tmp_path / "a.safetensors", tensors)
    theirs = load_file(tmp_path / "a.safetensors")
    assert set(theirs) == set(tensors)
    for dtype, torch_type in TORCH_TYPES.items():
        assert theirs[f"x.{dtype}"].dtype == torch_type
        assert np.array_equal(theirs[f"x.{dtype}"].float().numpy(), tensors[f"x.{dtype}"].numbers())
    assert theirs["codes"].tolist() == [0, 1, 2, 3, 4]
    assert read_file(tmp_path / "a.safetensors") == tensors


def test_a_packed_file_comes_back_byte_by_byte(tmp_path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    write_file(source / "a.safetensors", {dtype: store(VALUES, dtype) for dtype in TORCH_TYPES})
    before = (source / "a.safetensors").read_bytes()
    assert pack(source / "a.safetensors").stat().st_size < 0.9 * len(before)
    (source / "a.safetensors").unlink()
    copy_set(source, tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["a.safetensors"]
    assert (tmp_path / "copy" / "a.safetensors").read_bytes() == before


def test_random_values_are_spread_as_asked() -> None:
    random = RandomValues(3)
    values = random.near_normal((200_000,), 0.5, 2.0)
    assert values.mean() == pytest.approx(2.0, abs=0.01) and values.std() == pytest.approx(0.5, rel=0.01)
    factors = random.from_one_to_two((20_000,))
    assert 1 <= factors.min() < 1.01 and 1.99 < factors.max() <= 2.0 and factors.mean() == pytest.approx(1.5, abs=0.01)
