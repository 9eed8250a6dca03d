"""A header is believed only as far as it was checked."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from mimo_cli.checkpoint.header import DTYPES, read_header
from mimo_cli.errors import CheckpointError
from tests.support.checkpoint_files import GOLDEN, entry, safetensors_bytes

SHARD = GOLDEN / "text" / "model_pp0_ep0_shard1.safetensors"
GOOD = {"a": entry("F32", [2, 3], 0, 24), "b": entry("BF16", [2], 24, 28)}


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    path.write_bytes(safetensors_bytes(header, data))
    return path


def test_names_shapes_and_bytes_agree_with_the_safetensors_library() -> None:
    header = read_header(SHARD)
    with safe_open(SHARD, framework="pt") as file:
        assert set(file.keys()) == set(header.tensors)
        for name, info in header.tensors.items():
            tensor = file.get_tensor(name)
            assert (info.shape, info.dtype) == (tuple(tensor.shape), tensor.dtype)
            stored = SHARD.read_bytes()[info.offset : info.offset + info.size_bytes]
            assert stored == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def test_a_good_header_is_read(tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "a.safetensors", {"__metadata__": {"format": "pt"}, **GOOD}, bytes(28)))
    assert header.metadata == {"format": "pt"}
    assert header.tensors["b"].shape == (2,) and header.tensors["b"].stored_dtype == "BF16"
    assert header.tensors["b"].offset + 4 == header.file_bytes


@pytest.mark.parametrize("name", DTYPES)
def test_every_known_dtype_has_its_size(name: str, tmp_path: Path) -> None:
    size = 3 * DTYPES[name].itemsize
    header = read_header(write(tmp_path / "a.safetensors", {"a": entry(name, [3], 0, size)}, bytes(size)))
    assert header.tensors["a"].dtype == DTYPES[name]


def test_empty_and_scalar_tensors_are_allowed(tmp_path: Path) -> None:
    header = {"none": entry("F32", [0, 4], 0, 0), "one": entry("F32", [], 0, 4)}
    tensors = read_header(write(tmp_path / "a.safetensors", header, bytes(4))).tensors
    assert tensors["none"].size_bytes == 0 and tensors["one"].shape == ()


@pytest.mark.parametrize(
    ("header", "data_bytes", "message"),
    [
        ({"a": entry("F8_E5M2", [4], 0, 4)}, 4, "F8_E5M2, which is not implemented"),
        ({"a": entry("F4", [8], 0, 4)}, 4, "F4, which is not implemented"),
        ({"a": {**entry("F32", [1], 0, 4), "dtype": ["F32"]}}, 4, "which is not implemented"),
        ({"a": {"dtype": "F32", "shape": [1]}}, 4, "no dtype, shape and data_offsets"),
        ({"a": [1, 2]}, 4, "no dtype, shape and data_offsets"),
        ({"a": entry("F32", [-1], 0, 4)}, 4, "impossible shape"),
        ({"a": entry("F32", [True], 0, 4)}, 4, "impossible shape"),
        ({"a": {**entry("F32", [1], 0, 4), "shape": "1"}}, 4, "impossible shape"),
        ({"a": entry("F32", [1.0], 0, 4)}, 4, "impossible shape"),  # type: ignore[list-item]
        ({"a": entry("F32", [1] * 9, 0, 4)}, 4, "impossible shape"),
        ({"a": entry("F32", [1 << 70], 0, 4)}, 4, "impossible shape"),
        ({"a": entry("F32", [1 << 40, 1 << 40], 0, 4)}, 4, "its byte range holds 4"),
        ({"a": entry("F32", [2], 0, 4)}, 4, r"shape \[2\] of F32 needs 8 bytes"),
        ({"a": entry("F32", [1], 4, 0)}, 4, "impossible byte range"),
        ({"a": entry("F32", [1], -4, 0)}, 4, "impossible byte range"),
        ({"a": {**entry("F32", [1], 0, 4), "data_offsets": [0, 4, 8]}}, 4, "impossible byte range"),
        ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 2, 6)}, 6, "`b` .* overlaps the tensor before it"),
        ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 0, 4)}, 4, "overlaps the tensor before it"),
        ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 8, 12)}, 12, "`b` .* leaves a hole"),
        ({"a": entry("F32", [1], 4, 8)}, 8, "leaves a hole"),
        ({"a": entry("F32", [1], 0, 4)}, 9, "5 bytes after its last tensor"),
        ({"__metadata__": "pt"}, 0, "`__metadata__` must be an object"),
        (b"", 0, "not JSON"),
        (b"\xff\xfe{}", 0, "not JSON"),
        (b"[" * 100_000, 0, "not JSON"),
        (b"[]", 0, "must be a JSON object"),
        (b"9" * 5000, 0, "not JSON"),
        (b'{"a": 1, "a": 2}', 0, "names `a` twice"),
    ],
)
def test_a_bad_header_is_refused_with_its_reason(header: Any, data_bytes: int, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.safetensors", header, bytes(data_bytes))
    with pytest.raises(CheckpointError, match=message) as error:
        read_header(path)
    assert "bad.safetensors" in str(error.value)


def test_a_truncated_shard_names_tensors_sizes_and_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(SHARD.read_bytes()[:2_000_000])
    with pytest.raises(CheckpointError, match=r"`cut.safetensors` is truncated: 4.72 MB expected, 2 MB found") as error:
        read_header(path)
    assert "it cuts `" in str(error.value) and "more" in str(error.value)
    assert error.value.hint and "fetch that shard again" in error.value.hint


@pytest.mark.parametrize("kept_bytes", [0, 7, 8, 100])
def test_a_file_cut_inside_its_header_is_refused(kept_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(SHARD.read_bytes()[:kept_bytes])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
        read_header(path)


def test_a_header_length_beyond_reason_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="no sane header length"):
        read_header(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is missing"):
        read_header(tmp_path / "none.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_header(tmp_path / "folder.safetensors")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_header(tmp_path / "pipe.safetensors")


def test_a_link_to_a_shard_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link.safetensors").symlink_to(SHARD)
    assert len(read_header(tmp_path / "link.safetensors").tensors) == len(read_header(SHARD).tensors)


def test_names_in_messages_cannot_steer_a_terminal(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"\x1b[2Jname\n" + "x" * 500: entry("F32", [2], 0, 4)}, bytes(4))
    with pytest.raises(CheckpointError) as error:
        read_header(path)
    assert str(error.value).isprintable() and len(str(error.value)) < 400


@given(position=st.integers(0, 200), value=st.integers(0, 255))
def test_one_changed_byte_is_an_error_or_a_sound_header(
    position: int, value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = bytearray(safetensors_bytes(GOOD, bytes(28)))
    data[position % len(data)] = value
    path = tmp_path_factory.mktemp("fuzz") / "a.safetensors"
    path.write_bytes(bytes(data))
    try:
        header = read_header(path)
    except CheckpointError:
        return
    end = max(info.offset + info.size_bytes for info in header.tensors.values())
    assert end == len(data) == header.file_bytes
