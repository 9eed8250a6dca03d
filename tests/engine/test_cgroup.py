"""The limit of a control group is found in both versions, for the process's own group and those above it."""

from pathlib import Path

from mimo_cli.engine.cgroup import memory_group


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(str(value))


def membership(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "membership"
    path.write_text(text)
    return path


def test_version_2_counts_page_cache_as_free(tmp_path: Path) -> None:
    stat = "anon 500\ninactive_file 200\nactive_file 100\n"
    write(tmp_path / "job", memory__max=1000, memory__current=800, memory__stat=stat)
    group = memory_group(tmp_path, membership(tmp_path, "0::/job\n"))
    assert group is not None and group.version == 2
    assert (group.limit_bytes, group.used_bytes, group.cache_bytes, group.free_bytes) == (1000, 800, 300, 500)


def test_version_1_is_found_below_its_own_mount(tmp_path: Path) -> None:
    stat = "inactive_file 1\nactive_file 2\ntotal_inactive_file 30\ntotal_active_file 40\n"
    folder = tmp_path / "memory" / "a" / "b"
    write(folder, memory__limit_in_bytes=5000, memory__usage_in_bytes=1000, memory__stat=stat)
    group = memory_group(tmp_path, membership(tmp_path, "9:cpu:/x\n4:memory:/a/b\n0::/\n"))
    assert group is not None and group.version == 1
    assert group.free_bytes == 5000 - 1000 + 70


def test_the_tightest_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    write(tmp_path / "outer", memory__max=700, memory__current=600)
    write(tmp_path / "outer" / "inner", memory__max=10_000, memory__current=600)
    group = memory_group(tmp_path, membership(tmp_path, "0::/outer/inner\n"))
    assert group is not None and group.free_bytes == 100


def test_without_a_limit_there_is_none(tmp_path: Path) -> None:
    write(tmp_path / "job", memory__max="max", memory__current=10)
    write(tmp_path / "memory", memory__limit_in_bytes=9223372036854771712, memory__usage_in_bytes=10)
    assert memory_group(tmp_path, membership(tmp_path, "0::/job\n4:memory:/\n")) is None
    assert memory_group(tmp_path / "nothing", tmp_path / "nothing") is None


def test_a_group_that_is_full_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path, memory__max=100, memory__current=150)
    group = memory_group(tmp_path, tmp_path / "nothing")
    assert group is not None and group.free_bytes == 0


def test_what_throttles_counts_like_what_kills(tmp_path: Path) -> None:
    write(tmp_path / "job", memory__max="max", memory__high=900, memory__current=100)
    group = memory_group(tmp_path, membership(tmp_path, "0::/job\n"))
    assert group is not None and group.limit_bytes == 900
    write(tmp_path / "job", memory__max=500)
    group = memory_group(tmp_path, membership(tmp_path, "0::/job\n"))
    assert group is not None and group.limit_bytes == 500
