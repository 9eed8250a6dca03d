"""What options do before a command runs: threads of the numeric libraries, bounded by variables read at import."""

import subprocess
import sys
from collections.abc import Mapping

import pytest

from mimo_cli.commands.options import ModelOptions

NAMES = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def variables(monkeypatch: pytest.MonkeyPatch, threads: int | None, given: Mapping[str, str]) -> list[str | None]:
    """Return the variables of NAMES after `limit_threads`, in an environment that had `given`."""
    environ = dict(given)
    monkeypatch.setattr("os.environ", environ)
    ModelOptions(threads=threads).limit_threads()
    return [environ.get(name) for name in NAMES]


def test_waiting_threads_sleep_instead_of_spinning(monkeypatch: pytest.MonkeyPatch) -> None:
    assert variables(monkeypatch, None, {}) == ["PASSIVE", None, None]


def test_the_users_own_variables_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "3"}
    assert variables(monkeypatch, None, given) == ["ACTIVE", "3", None]


def test_the_flag_for_threads_beats_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert variables(monkeypatch, 2, {"OMP_NUM_THREADS": "3"}) == ["PASSIVE", "2", "2"]


def test_reading_options_leaves_the_numeric_libraries_alone() -> None:
    """They read the variables when they are imported: nothing may import them before."""
    code = "import sys, mimo_cli.commands.options, mimo_cli.commands.chat; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
