import errno
import os
import stat
from pathlib import Path

import pytest

from mimo_cli.commands.output_file import require_writable, write_atomically
from mimo_cli.errors import CapacityError, MimoError, UsageError


def test_written_file_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "out.md"
    target.write_text("old")
    write_atomically(target, "new né\n")
    assert target.read_bytes() == "new né\n".encode()
    assert os.listdir(tmp_path) == ["out.md"]


def test_writing_follows_a_link_and_spares_devices(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomically(tmp_path / "link", "new")
    assert (tmp_path / "real").read_text() == "new" and (tmp_path / "link").is_symlink()
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    write_atomically(tmp_path / "circle", "new")
    assert (tmp_path / "circle").read_text() == "new"
    write_atomically(Path(os.devnull), "gone")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(MimoError, match="cannot be written: No such file or directory"):
        write_atomically(tmp_path / "missing" / "out.md", "x")


def test_a_full_disk_is_a_matter_of_capacity_and_nothing_masks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def vanished(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(Path, "unlink", vanished)
    with pytest.raises(CapacityError, match=r"out\.md` cannot be written: No space left on device"):
        write_atomically(tmp_path / "out.md", "x")


def test_what_could_not_be_written_is_refused_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "closed").mkdir(mode=0o500)
    wrong = [("missing/a.txt", "there is no folder"), ("file/a.txt", "is a file, a folder was expected")]
    wrong += [(".", "is a folder, a file to write was expected")]
    wrong += [("closed/a.txt", "takes no files of yours")] if os.geteuid() else []
    for name, message in wrong:
        with pytest.raises(UsageError, match=message) as caught:
            require_writable(tmp_path / name)
        assert caught.value.hint
    for name in ("new.txt", "file"):
        require_writable(tmp_path / name)
    require_writable(Path(os.devnull))
    assert sorted(os.listdir(tmp_path)) == ["closed", "file"]
