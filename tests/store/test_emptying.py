"""Emptying the source while it is converted loses nothing by a crash, a damaged disk, links or a repeated command."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mimo_cli.errors import CheckpointError
from mimo_cli.store import emptying
from mimo_cli.store.convert import convert
from mimo_cli.store.emptying import made_of, peak_bytes
from mimo_cli.store.journal import emptied_shards
from mimo_cli.store.manifest import STORE_FILE
from mimo_cli.store.plan import QuantizeOptions, StorePlan, plan_store
from tests.support.source_tree import ROOT
from tests.support.stores import SOURCES, file_sizes, flip_byte, made_store

OPTIONS = QuantizeOptions("int4", 32)


def _source(folder: Path) -> Path:
    shutil.copytree(SOURCES["text"], folder / "source")
    return folder / "source"


def _plan(source: Path, store: Path) -> StorePlan:
    return plan_store(source, OPTIONS, emptied_shards(store))


def _expect_whole(store: Path) -> None:
    expected = made_store("text", "int4")
    for name in set(file_sizes(expected)) - {STORE_FILE}:
        assert (store / name).read_bytes() == (expected / name).read_bytes(), name


def test_every_file_of_experts_and_dense_tensors_is_made_of_some_shard() -> None:
    plan = plan_store(SOURCES["text"], OPTIONS)
    files = made_of(plan)
    assert set().union(*files.values()) == {name for name in plan.sizes if name.endswith((".bin", ".safetensors"))}
    assert set(files) <= set(plan.index.shard_bytes)


def test_shards_are_empty_at_the_end_and_the_store_is_the_same(tmp_path: Path) -> None:
    source, store = _source(tmp_path), tmp_path / "store"
    before = {path: path.stat().st_size for path in source.glob("*.safetensors")}
    convert(_plan(source, store), store, empty_shards=True)
    assert all(path.stat().st_size < size for path, size in before.items())
    _expect_whole(store)


KILLED = """
import os, signal, sys
from pathlib import Path
from mimo_cli.store import emptying
from mimo_cli.store.convert import convert
from mimo_cli.store.plan import QuantizeOptions, plan_store
cut = emptying._cut_off
def cut_off(shard, size):
    if sys.argv[3] == "after":
        cut(shard, size)
    os.kill(os.getpid(), signal.SIGKILL)
emptying._cut_off = cut_off
from mimo_cli.store.journal import emptied_shards
plan = plan_store(Path(sys.argv[1]), QuantizeOptions("int4", 32), emptied_shards(Path(sys.argv[2])))
convert(plan, Path(sys.argv[2]), jobs=1, empty_shards=True)
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_around_an_emptied_shard_loses_nothing(moment: str, tmp_path: Path) -> None:
    source, store = _source(tmp_path), tmp_path / "store"
    run = subprocess.run([sys.executable, "-c", KILLED, str(source), str(store), moment], cwd=ROOT, check=False)
    assert run.returncode == -signal.SIGKILL and len(emptied_shards(store)) == 1
    report = convert(_plan(source, store), store, empty_shards=True)
    assert report.kept and not report.damaged
    _expect_whole(store)


def test_what_is_not_as_written_keeps_its_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, store = _source(tmp_path), tmp_path / "store"
    read = emptying.file_entry

    def damaged(path: Path) -> object:
        if path.suffix == ".bin":
            flip_byte(path, 100)
        return read(path)

    monkeypatch.setattr(emptying, "file_entry", damaged)
    with pytest.raises(CheckpointError, match="is not what was written; no shard that it is made of was deleted"):
        convert(_plan(source, store), store, empty_shards=True)
    plan = plan_store(source, OPTIONS, emptied_shards(store))
    assert all(
        shard.stat().st_size == plan.index.shard_bytes[shard]
        for shard, files in made_of(plan).items()
        if any(name.endswith(".bin") for name in files)
    )


def test_a_file_that_must_be_made_again_of_an_emptied_shard_is_named(tmp_path: Path) -> None:
    source, store = _source(tmp_path), tmp_path / "store"
    subprocess.run([sys.executable, "-c", KILLED, str(source), str(store), "after"], cwd=ROOT, check=False)
    plan = _plan(source, store)
    shard = next(shard for shard in plan.index.shard_bytes if shard.name in emptied_shards(store))
    lost = sorted(made_of(plan)[shard])[0]
    flip_byte(store / lost, (store / lost).stat().st_size // 2)
    with pytest.raises(CheckpointError, match=r"must be made again, and its shard .* is deleted already"):
        convert(plan, store, empty_shards=True)


def test_links_and_files_of_several_names_belong_to_others(tmp_path: Path) -> None:
    source, store = _source(tmp_path), tmp_path / "store"
    shards = sorted(source.glob("*.safetensors"))
    (tmp_path / "blobs").mkdir()
    for number, shard in enumerate(shards):
        kept = tmp_path / "blobs" / shard.name
        if number % 2:
            os.link(shard, kept)
        else:
            shard.rename(kept)
            shard.symlink_to(kept)
    sizes = [shard.stat().st_size for shard in shards]
    convert(_plan(source, store), store, empty_shards=True)
    assert [shard.stat().st_size for shard in shards] == sizes


def test_emptied_shards_make_room_for_what_follows() -> None:
    plan = plan_store(SOURCES["text"], OPTIONS)
    peak = peak_bytes(plan, {}, {})
    assert max(plan.sizes.values()) <= peak < plan.total_bytes
    assert peak_bytes(plan, dict.fromkeys(plan.sizes), {}) == 0
