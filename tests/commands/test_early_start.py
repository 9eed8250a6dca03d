"""A command that loads a model begins to read before torch is there, and loads no library it does not need."""

import gc
import json
import mmap
import subprocess
import sys
from pathlib import Path

import pytest

from mimo_cli.checkpoint import bulk_read, early_read, reader
from mimo_cli.commands.early_start import early_start, end_start
from mimo_cli.errors import MimoError
from tests.support.cli import run_cli
from tests.support.source_tree import ROOT
from tests.support.stores import made_store

ASK = """
import sys
from mimo_cli.app import main
code = main(["chat", "-q", "hi", "-n", "3"])
print("\\nCODE", code)
print("LOADED", *[name for name in ("av", "cv2", "soundfile") if name in sys.modules])
"""


def run(code: str) -> list[str]:
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return found.stdout.splitlines()


def test_a_question_in_words_loads_no_library_of_media() -> None:
    lines = run(ASK)
    assert lines[-2:] == ["CODE 0", "LOADED"]


def test_garbage_is_looked_for_again_when_the_model_is_loaded_or_was_not(tmp_path: Path) -> None:
    with early_start(tmp_path):
        assert not gc.isenabled()
        end_start()
        assert gc.isenabled() and gc.get_freeze_count() > 0
        end_start()
    with pytest.raises(MimoError), early_start(tmp_path):
        raise MimoError("no such picture")
    assert gc.isenabled() and gc.get_freeze_count() == 0


def test_reading_begins_without_torch() -> None:
    assert run("import sys, mimo_cli.commands.early_start; print({'torch', 'numpy'} & {*sys.modules})") == ["set()"]


def test_a_store_that_was_read_early_gives_the_same_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = ("chat", "-m", str(made_store("miniature", dense="int8")), "hi", "-n", "4", "--seed", "1", "--json")
    usual = run_cli(*ask, home=tmp_path)
    taken: list[bool] = []
    original = early_read.take

    def take(path: Path, offset: int, size_bytes: int) -> tuple[mmap.mmap, int] | None:
        found = original(path, offset, size_bytes)
        taken.append(found is not None)
        return found

    monkeypatch.setattr(early_read, "take", take)
    monkeypatch.setattr(early_read, "LEAST_BYTES", 1024)
    monkeypatch.setattr(reader, "BULK_BYTES", 1024)
    monkeypatch.setattr(bulk_read, "_LINE_BYTES", 1)  # matrices of such a small model begin anywhere
    early = run_cli(*ask, home=tmp_path)
    assert usual.code == early.code == 0, early.err
    assert json.loads(usual.out)["content"] == json.loads(early.out)["content"]
    assert sum(taken) > 10  # its packed matrices
    assert not early_read._parts
