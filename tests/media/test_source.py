"""Files, pipes and bytes: bounded reading, clear errors, temporary copies that go away."""

import gc
import os
import stat
import threading
from pathlib import Path

import pytest

from mimo_cli.errors import MediaError
from mimo_cli.media.source import MediaFile, local_path, read_all, read_head, settle, source_name


def test_a_head_is_the_first_bytes_of_file_or_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    assert read_head(path, 4) == read_head(b"0123456789", 4) == b"0123"
    assert read_all(path, 10) == b"0123456789"


def test_more_bytes_than_the_limit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x" * 3_000_001)
    with pytest.raises(MediaError, match="larger than the limit of 3 MB"):
        read_all(path, 3_000_000)
    with pytest.raises(MediaError, match="`standard input` is larger"):
        read_all(b"x" * 11, 10)


def test_nothing_at_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    for source in (path, b""):
        with pytest.raises(MediaError, match=r"is empty \(0 bytes\)"):
            read_all(source, 10)


@pytest.mark.parametrize("name", ["missing.png", "x" * 5000, "zero\0byte"])
def test_paths_that_name_no_file_are_clear_errors(tmp_path: Path, name: str) -> None:
    with pytest.raises(MediaError, match=r"does not exist|not a usable path"):
        read_head(tmp_path / name, 10)


def test_a_folder_is_no_media_file(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="is a folder"):
        read_head(tmp_path, 10)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_without_read_permission_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(MediaError, match="cannot be read: Permission denied"):
        read_head(path, 10)


def test_a_pipe_is_read_into_memory_because_it_can_be_read_only_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"data",))
    writer.start()
    assert settle(pipe) == b"data"
    writer.join()
    regular = tmp_path / "file"
    regular.touch()
    assert settle(regular) == regular


def test_an_endless_device_is_cut_off() -> None:
    with pytest.raises(MediaError, match="larger than the limit"):
        settle(Path("/dev/zero"), 100_000)


def test_bytes_become_a_private_file_that_goes_with_its_owner() -> None:
    file = MediaFile(b"content")
    path = Path(file.path)
    assert path.read_bytes() == b"content"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    del file
    gc.collect()
    assert not path.exists()


def test_a_given_file_is_used_in_place_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    file = MediaFile(path)
    assert file.path == str(path.resolve())
    del file
    gc.collect()
    assert path.exists()


def test_a_full_disk_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(MediaError, match=r"temporary copy of 3 bytes .* No space left"):
        MediaFile(b"abc")


def test_no_path_can_pass_for_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_path(Path("http:/example.org/x.mp4")) == str(tmp_path.resolve() / "http:/example.org/x.mp4")
    assert source_name(Path("a.png")) == "a.png" and source_name(b"x") == "standard input"
