"""Looking at a machine: quick on a busy one, and over in time whatever a disk does."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mimo_cli.engine import machine_facts
from mimo_cli.engine.disk_probe import scratch_path
from mimo_cli.engine.machine_facts import gather_facts
from mimo_cli.errors import MimoError
from tests.support.kernels import kernels, needs_kernels
from tests.support.source_tree import ROOT


def test_looking_at_a_machine_loads_nothing_large() -> None:
    code = "import sys, mimo_cli.engine.health; print(sorted({'torch', 'numpy', 'cv2'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_a_disk_that_does_not_answer_is_left_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hangs(*_: object) -> None:
        scratch_path(tmp_path).write_bytes(b"half")
        released.wait(30)

    monkeypatch.setattr(machine_facts, "_rate", hangs)
    monkeypatch.setattr(machine_facts, "_DISK_S", 0.2)
    started = time.monotonic()
    (disk,) = gather_facts([tmp_path]).disks
    released.set()
    assert time.monotonic() - started < 10
    assert disk.rate is None and disk.problem == "it did not answer within 0.2 seconds"
    assert list(tmp_path.iterdir()) == []


def test_the_error_of_a_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise MimoError("the disk is on fire")

    monkeypatch.setattr(machine_facts, "_rate", fails)
    (disk,) = gather_facts([tmp_path]).disks
    assert disk.rate is None and disk.problem == "the disk is on fire"


def test_a_folder_without_large_files_is_measured_and_left_clean(tmp_path: Path) -> None:
    (disk,) = gather_facts([tmp_path / "not" / "there"]).disks
    assert disk.rate is None or disk.rate.gbps > 0
    assert list(tmp_path.iterdir()) == [] and disk.free_bytes > 0


@needs_kernels
def test_the_kernels_are_those_that_a_run_opens(tmp_path: Path) -> None:
    facts = gather_facts([])
    assert facts.isa == kernels().isa and facts.missing_kernels is None and facts.threads >= 1
