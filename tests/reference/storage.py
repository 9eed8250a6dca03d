"""The bytes of a checkpoint and the numbers they mean: safetensors files and the four storage formats, in numpy alone.

A safetensors file is the length of a header (8 bytes, little end first), the header (JSON: per tensor its dtype, shape
and range of bytes behind the header) and the data. Written from the format's description and used by nothing but tests,
so that the package's own reader and writer are measured against something else.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
WIDTHS = {"F32": 4, "BF16": 2, "F8_E4M3": 1, "U8": 1}
ALIGNMENT_ORDER = ("F32", "BF16", "F8_E4M3", "U8")


@dataclass(frozen=True)
class Stored:
    """One tensor as it lies in a file: what its bytes are, how many there are along each axis, and the bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes

    def numbers(self) -> Array:
        """Return the values as float32; U8 has no values of its own and is refused."""
        return DECODERS[self.dtype](self.data).reshape(self.shape)

    def codes(self) -> NDArray[np.uint8]:
        """Return the bytes, one code each, in the tensor's shape."""
        return np.frombuffer(self.data, np.uint8).reshape(self.shape)


# --- formats ---


def decode_bfloat16(data: bytes) -> Array:
    """Widen bfloat16, which is the upper half of a float32."""
    return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)


def encode_bfloat16(values: Array) -> bytes:
    """Round finite float32 to the nearest bfloat16, ties to the even one."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()


def _e4m3_table() -> Array:
    """The value of each code: sign, 4 bits of exponent (bias 7), 3 bits behind the point; 0x7F is no number."""
    code = np.arange(256)
    exponent, fraction = (code >> 3) & 15, code & 7
    size = np.where(exponent > 0, np.ldexp(8.0 + fraction, exponent - 10), np.ldexp(1.0 * fraction, -9))
    size[(code & 127) == 127] = np.nan
    return np.where(code < 128, size, -size).astype(np.float32)


E4M3 = _e4m3_table()
_E4M3_SIZES = E4M3[:127]
# Between two neighbours: exact in float64, and so is the tie, which goes to the even code.
_E4M3_MIDDLES = (_E4M3_SIZES[1:].astype(np.float64) + _E4M3_SIZES[:-1]) / 2


def decode_e4m3(data: bytes) -> Array:
    """Look up float8_e4m3fn codes."""
    return E4M3[np.frombuffer(data, np.uint8)]


def encode_e4m3(values: Array) -> bytes:
    """Round finite float32 of at most 448 to the nearest float8_e4m3fn, ties to the even code."""
    sizes = np.abs(values).astype(np.float64)
    code = np.searchsorted(_E4M3_MIDDLES, sizes, side="left")
    tie = (code < len(_E4M3_MIDDLES)) & (sizes == _E4M3_MIDDLES[np.minimum(code, len(_E4M3_MIDDLES) - 1)])
    code = np.where(tie & (code % 2 == 1), code + 1, code)
    return (code | np.where(np.signbit(values), 128, 0)).astype(np.uint8).tobytes()


def decode_e2m1(codes: NDArray[np.uint8]) -> Array:
    """Unpack bytes [.., n] of two 4-bit numbers, the lower half first, to [.., 2 n]; bit 3 of a number is its sign."""
    sizes = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
    table = np.concatenate([sizes, -sizes])
    return np.stack([table[codes & 15], table[codes >> 4]], -1).reshape(*codes.shape[:-1], -1)


def decode_e8m0(codes: NDArray[np.uint8]) -> Array:
    """Return the powers of two 2^(code - 127); code 0 is subnormal in float32, and exact."""
    return np.ldexp(np.float32(1), codes.astype(np.int32) - 127).astype(np.float32)


DECODERS = {
    "F32": lambda data: np.frombuffer(data, "<f4").astype(np.float32),
    "BF16": decode_bfloat16,
    "F8_E4M3": decode_e4m3,
}
ENCODERS = {
    "F32": lambda values: np.ascontiguousarray(values, "<f4").tobytes(),
    "BF16": encode_bfloat16,
    "F8_E4M3": encode_e4m3,
}


def store(values: Array, dtype: str) -> Stored:
    """Round values to a storage format."""
    return Stored(dtype, values.shape, ENCODERS[dtype](values))


# --- files ---


def read_file(path: Path) -> dict[str, Stored]:
    """Read every tensor of a safetensors file."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = Stored(entry["dtype"], tuple(entry["shape"]), content[begin:end])
    return tensors


def write_file(path: Path, tensors: Mapping[str, Stored]) -> None:
    """Write a safetensors file in the usual order: widest numbers first, then by name; the header padded to 8 bytes."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    order = sorted(tensors, key=lambda name: (ALIGNMENT_ORDER.index(tensors[name].dtype), name))
    offset = 0
    for name in order:
        tensor = tensors[name]
        size = math.prod(tensor.shape) * WIDTHS[tensor.dtype]
        assert size == len(tensor.data), f"{name} has {len(tensor.data)} bytes, {size} expected"
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(tensors[name].data for name in order))


def read_folder(folder: Path) -> dict[str, Stored]:
    """Read a checkpoint: every tensor its index names, or those of its only file `model.safetensors`."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return read_file(folder / "model.safetensors")
    weight_map = json.loads(index.read_text())["weight_map"]
    files = {name: read_file(folder / name) for name in sorted(set(weight_map.values()))}
    return {name: files[file][name] for name, file in weight_map.items()}
