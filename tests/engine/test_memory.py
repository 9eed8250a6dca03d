"""Memory figures: a large allocation moves the peak, and a container's limit counts."""

from pathlib import Path

import numpy as np
import psutil
import pytest

from mimo_cli.engine import memory
from mimo_cli.engine.memory import available_bytes, peak_rss_bytes, reset_peak_rss

MB = 2**20


def test_the_peak_remembers_memory_that_was_given_back() -> None:
    reset_peak_rss()
    before = peak_rss_bytes()
    block = np.ones(200 * MB, np.uint8)
    del block
    assert peak_rss_bytes() - before > 150 * MB


def test_a_reset_peak_starts_at_the_present_size() -> None:
    block = np.ones(200 * MB, np.uint8)
    del block
    high = peak_rss_bytes()
    if not reset_peak_rss():
        pytest.skip("this system cannot reset the peak")
    assert peak_rss_bytes() < high - 100 * MB


def test_available_memory_is_no_more_than_the_machine_has() -> None:
    assert 0 < available_bytes() <= psutil.virtual_memory().total


def cgroup(folder: Path, limit: str, used: int, cached: int) -> Path:
    (folder / "memory.max").write_text(limit)
    (folder / "memory.current").write_text(str(used))
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 0\n")
    return folder


def test_a_containers_limit_counts_and_page_cache_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", cgroup(tmp_path, str(100 * MB), used=70 * MB, cached=30 * MB))
    assert available_bytes() == 60 * MB


def test_a_container_without_limit_leaves_the_machines_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_CGROUP", cgroup(tmp_path, "max", used=70 * MB, cached=0))
    assert available_bytes() > 100 * MB


def test_without_proc_the_peak_comes_from_the_system_call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    exact = peak_rss_bytes()
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "nothing")
    assert peak_rss_bytes() >= exact * 0.9
