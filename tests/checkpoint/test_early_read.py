"""Early reads hold what loading would read, and whatever is wrong with them is left to loading."""

import json
import os
from pathlib import Path

import pytest

from mimo_cli.checkpoint import early_read
from mimo_cli.checkpoint.bulk_read import read_bytes

MATRICES = {"model.layers.0.a.weight.packed": 70_016, "model.layers.1.b.weight.packed": 4096}
OTHERS = {"model.embed_tokens.weight": 640, "model.mtp.layers.0.c.weight.packed": 640}


@pytest.fixture(autouse=True)
def _small_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_read, "LEAST_BYTES", 1024)
    early_read.forget()


def store(folder: Path) -> tuple[Path, dict[str, tuple[int, int]], bytes]:
    """Write a store's file of tensors; returns it, where its tensors lie, and its bytes."""
    places, entries, at = {}, {}, 0
    for name, size_bytes in {**OTHERS, **MATRICES}.items():
        entries[name] = {"dtype": "U8", "shape": [size_bytes], "data_offsets": [at, at + size_bytes]}
        places[name] = (at, size_bytes)
        at += size_bytes
    head = json.dumps(entries).encode()
    head += b" " * (-(8 + len(head)) % 64)
    content = len(head).to_bytes(8, "little") + head + os.urandom(at)
    path = folder / "text.safetensors"
    path.write_bytes(content)
    (folder / early_read.STORE_FILE).write_text("{}")
    first = 8 + len(head)
    return path, {name: (first + offset, size_bytes) for name, (offset, size_bytes) in places.items()}, content


def taken(path: Path, offset: int, size_bytes: int) -> bytes | None:
    found = early_read.take(path, offset, size_bytes)
    return None if found is None else bytes(memoryview(found[0])[found[1] : found[1] + size_bytes])


def test_packed_matrices_are_there_when_loading_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_read, "PIECE_BYTES", 8192)  # several pieces
    path, places, content = store(tmp_path)
    early_read.begin(tmp_path, 1 << 20)
    for name, (offset, size_bytes) in places.items():
        expected = content[offset : offset + size_bytes] if name in MATRICES else None
        assert taken(path, offset, size_bytes) == expected
        assert taken(path, offset, size_bytes) is None  # its memory belongs to who took it


def test_loading_takes_them(tmp_path: Path) -> None:
    path, places, content = store(tmp_path)
    early_read.begin(tmp_path, 1 << 20)
    offset, size_bytes = places["model.layers.0.a.weight.packed"]
    data = read_bytes(path, offset, size_bytes)
    assert data is not None and data.numpy().tobytes() == content[offset : offset + size_bytes]
    assert early_read.take(path, offset, size_bytes) is None


def test_what_would_not_fit_is_not_begun(tmp_path: Path) -> None:
    path, places, _ = store(tmp_path)
    early_read.begin(tmp_path, sum(MATRICES.values()) - 1)
    assert all(early_read.take(path, *place) is None for place in places.values())


def test_a_folder_that_is_no_store_is_left_alone(tmp_path: Path) -> None:
    path, places, _ = store(tmp_path)
    (tmp_path / early_read.STORE_FILE).unlink()
    early_read.begin(tmp_path, 1 << 20)
    early_read.begin(tmp_path / "none", 1 << 20)
    assert all(early_read.take(path, *place) is None for place in places.values())


@pytest.mark.parametrize("damage", ["cut", "no json", "strange", "empty"])
def test_a_damaged_file_is_left_to_loading(damage: str, tmp_path: Path) -> None:
    path, places, content = store(tmp_path)
    offset, size_bytes = places["model.layers.1.b.weight.packed"]
    damaged = {"cut": content[:-100], "no json": content[:8] + b"x" * 500, "empty": b""}
    strange = json.dumps({"a.packed": 5}).encode()
    path.write_bytes(damaged.get(damage, len(strange).to_bytes(8, "little") + strange))
    early_read.begin(tmp_path, 1 << 20)
    assert early_read.take(path, offset, size_bytes) is None


def test_what_nobody_took_is_given_back(tmp_path: Path) -> None:
    path, places, _ = store(tmp_path)
    early_read.begin(tmp_path, 1 << 20)
    early_read.forget()
    assert all(early_read.take(path, *place) is None for place in places.values())


@pytest.mark.parametrize("head", [b"[]", b"[" * 90_000, b'{"a.packed": {"data_offsets": [0, 1e999]}}', b"\xff"])
def test_a_damaged_header_is_left_to_loading(head: bytes, tmp_path: Path) -> None:
    (tmp_path / early_read.STORE_FILE).write_text("{}")
    (tmp_path / "text.safetensors").write_bytes(len(head).to_bytes(8, "little") + head)
    early_read.begin(tmp_path, 1 << 20)
    assert early_read.held_bytes() == 0


def test_what_is_held_is_known_until_it_is_taken_or_forgotten(tmp_path: Path) -> None:
    path, places, _ = store(tmp_path)
    early_read.begin(tmp_path, 1 << 20)
    names = list(MATRICES)
    assert taken(path, *places[names[0]]) is not None
    early_read._parts[str(path), *places[names[1]]].is_over.wait()
    assert early_read.held_bytes() >= MATRICES[names[1]]
    early_read.forget()
    assert early_read.held_bytes() == 0
