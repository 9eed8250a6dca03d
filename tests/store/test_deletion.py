"""kill -9 at any moment of `mimo quantize --delete-source-shards`: the same command ends with a whole store, no shard
and no trace."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mimo_cli.errors import MimoError
from mimo_cli.store.deletion import DELETING_FILE, Deletion, deletion_of
from mimo_cli.store.manifest import JOURNAL_FILE, STORE_FILE
from tests.support.cli import Run, run_cli
from tests.support.source_tree import ROOT
from tests.support.stores import SOURCES, file_sizes, made_store

# Forks a run of the command for each moment, as loading torch anew for each would take minutes. Moments are counted in
# changes of the file system: files opened for writing, flushed, renamed, removed, cut off.
KILLER = """
import json, os, shutil, signal, sys
from pathlib import Path
import torch
from mimo_cli.app import main
from mimo_cli.store import convert, emptying, plan, verify, deletion
torch.set_num_threads(1)
pristine, work, moments = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
count, limit = 0, None

def happens():
    global count
    count += 1
    if count == limit:
        os.kill(os.getpid(), signal.SIGKILL)

def audit(event, arguments):
    if event in ("os.remove", "os.rename"):
        happens()
    elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wa+"):
        happens()

def counted(function):
    def call(*arguments):
        happens()
        return function(*arguments)
    return call

os.fsync, emptying._cut_off = counted(os.fsync), counted(emptying._cut_off)
sys.addaudithook(audit)

def run(source, store, moment):
    global count, limit
    pid = os.fork()
    if not pid:
        count, limit = 0, moment
        os.dup2(os.open(store.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        os.dup2(2, 1)
        count = 0
        code = main(["quantize", str(source), str(store), "--delete-source-shards", "--yes", "--jobs", "1"])
        (store.parent / "count").write_text(str(count))
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

for number, moment in enumerate(moments):
    home = work / str(number)
    shutil.copytree(pristine, home / "source")
    first = run(home / "source", home / "store", moment)
    second = run(home / "source", home / "store", None) if first == -9 else None
    print(json.dumps([moment, first, second, int((home / "count").read_text())]), flush=True)
"""


def _killed_at(work: Path, moments: list[int | None]) -> list[list[int | None]]:
    """Run the command once for each moment, and again where it was killed: [moment, codes, count of changes]."""
    command = [sys.executable, "-c", KILLER, str(SOURCES["text"]), str(work), json.dumps(moments)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def test_a_kill_at_any_moment_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    ((_, code, _, total),) = _killed_at(tmp_path / "whole", [None])
    assert code == 0 and total is not None
    draw = random.Random(5)
    # All of the end, where the journal goes and shards are deleted; some of the rest.
    moments: list[int | None] = [*sorted(draw.sample(range(1, total - 8), 5)), *range(total - 8, total + 1)]
    work = tmp_path / "killed"
    found = _killed_at(work, moments)
    assert [row[1] for row in found] == [-9] * len(moments)
    expected = made_store("text", "int4")
    for number, (moment, _, second, _) in enumerate(found):
        home = work / str(number)
        log = (home / "log").read_text()
        assert second == 0, f"after a kill at {moment}: {log}"
        assert not list((home / "source").glob("*.safetensors")) and (home / "source" / "config.json").is_file(), moment
        assert set(file_sizes(home / "store")) == set(file_sizes(expected)), moment
        for name in set(file_sizes(expected)) - {STORE_FILE}:
            assert (home / "store" / name).read_bytes() == (expected / name).read_bytes(), (moment, name)


def _finished(tmp_path: Path) -> tuple[Path, Path]:
    """Return a source of which the first shard is deleted and the second emptied, and its finished store."""
    source, store = tmp_path / "source", tmp_path / "store"
    shutil.copytree(SOURCES["text"], source)
    shutil.copytree(made_store("text", "int4"), store)
    first, second = sorted(source.glob("*.safetensors"))[:2]
    deletion_of(source, sorted(source.glob("*.safetensors"))).write(store)
    first.unlink()
    second.write_bytes(second.read_bytes()[:100])
    return source, store


def _quantize(home: Path, *arguments: str | Path) -> Run:
    return run_cli("quantize", *map(str, arguments), home=home)


def test_without_the_flag_nothing_more_is_deleted_and_the_way_on_is_told(tmp_path: Path) -> None:
    source, store = _finished(tmp_path)
    left = sorted(source.iterdir())
    run = _quantize(tmp_path, source, store)
    assert run.code == 2 and "half deleted" in run.err and "--delete-source-shards" in run.err
    assert sorted(source.iterdir()) == left


def test_it_asks_before_it_goes_on_deleting(tmp_path: Path) -> None:
    source, store = _finished(tmp_path)
    run = _quantize(tmp_path, source, store, "--delete-source-shards")
    assert run.code == 2 and "add --yes" in run.err and list(source.glob("*.safetensors"))


def test_a_store_that_changed_meanwhile_keeps_what_is_left_of_its_source(tmp_path: Path) -> None:
    source, store = _finished(tmp_path)
    left = sorted(source.iterdir())
    with next(store.glob("experts-*.bin")).open("r+b") as file:
        file.write(b"x")
    run = _quantize(tmp_path, source, store, "--delete-source-shards", "--yes")
    assert run.code == 3 and "another hash" in run.err and sorted(source.iterdir()) == left


def test_what_is_left_is_deleted_by_the_same_command(tmp_path: Path) -> None:
    source, store = _finished(tmp_path)
    run = _quantize(tmp_path, source, store, "--delete-source-shards", "--yes", "--json")
    assert run.code == 0 and len(json.loads(run.out)["deleted"]) >= 2
    assert not list(source.glob("*.safetensors")) and not (store / DELETING_FILE).exists()
    assert not (store / JOURNAL_FILE).exists()


def test_the_list_of_another_source_is_no_reason_to_delete(tmp_path: Path) -> None:
    _, store = _finished(tmp_path)
    other = Path(shutil.copytree(SOURCES["text"], tmp_path / "other"))
    run = _quantize(tmp_path, other, store, "--delete-source-shards", "--yes", "--experts", "fp8")
    assert run.code == 2 and list(other.glob("*.safetensors"))


def test_a_damaged_list_is_told_and_names_outside_the_source_are_left(tmp_path: Path) -> None:
    (tmp_path / DELETING_FILE).write_text("{")
    with pytest.raises(MimoError, match="cannot be read"):
        Deletion.pending(tmp_path)
    (tmp_path / DELETING_FILE).write_text(json.dumps({"source": str(tmp_path), "shards": ["../x", "a.safetensors"]}))
    pending = Deletion.pending(tmp_path)
    assert pending is not None and pending.shards == ("a.safetensors",)
