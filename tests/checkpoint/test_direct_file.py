"""A file read in large parts: what is cached is taken from there, and nobody is asked for more than there is."""

import mmap
import os
from pathlib import Path

import pytest

from mimo_cli.checkpoint import direct_file
from mimo_cli.checkpoint.direct_file import DirectFile, is_cached
from mimo_cli.quant.pages import page_bytes

SIZE = 100_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(os.urandom(SIZE))
    return path


def forget(path: Path, offset: int = 0, size_bytes: int = 0) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), offset, size_bytes, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize("begin", [0, 4096, 98304])
@pytest.mark.parametrize("is_direct", [True, False])
def test_parts_are_the_bytes_of_the_file_up_to_its_end(
    begin: int, is_direct: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_direct:
        monkeypatch.setattr(direct_file, "DIRECT", 0)
    content = path.read_bytes()
    for forgotten in (None, (0, 32768), (0, 0)):
        if forgotten:
            forget(path, *forgotten)
        part = page_bytes(65536)
        with DirectFile(path) as file:
            found = file.read(begin, part)
        assert found == min(65536, SIZE - begin)
        assert bytes(part[:found]) == content[begin : begin + found]


def test_it_knows_what_is_cached(path: Path) -> None:
    path.read_bytes()
    with path.open("rb") as file:
        view = direct_file._map(file.fileno())
    assert isinstance(view, mmap.mmap)
    assert is_cached(view, 0, 65536) and is_cached(view, 98304, 65536)  # to its end
    forget(path)
    assert not is_cached(view, 0, 65536) and not is_cached(view, SIZE, 4096) and not is_cached(None, 0, 4096)


def test_an_empty_or_missing_file_is_no_surprise(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with DirectFile(tmp_path / "empty") as file:
        assert file.read(0, page_bytes(4096)) == 0
    with pytest.raises(FileNotFoundError):
        DirectFile(tmp_path / "none")
