"""The usage file: what was saved comes back, and anything else is ignored."""

from pathlib import Path

import pytest

from mimo_cli.offload.usage_file import load_usage, save_usage
from tests.support.kernels import needs_kernels
from tests.support.offload_faults import LAYER, open_store, step


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    usage = {1: [0.5, 0.25], 7: [0.0, 1.0]}
    save_usage(tmp_path / "cache" / "usage.json", usage)
    assert load_usage(tmp_path / "cache" / "usage.json") == usage
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["usage.json"]


@pytest.mark.parametrize("text", ["", "[1]", '{"1": 3}', '{"x": [1]}', '{"1": ["a"]}', '{"1": [NaN]}', "\x00"])
def test_a_damaged_file_is_no_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "usage.json").write_text(text)
    assert load_usage(tmp_path / "usage.json") == {} and load_usage(tmp_path / "none.json") == {}


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    save_usage(tmp_path / "file" / "usage.json", {1: [1.0]})


@needs_kernels
def test_a_second_run_begins_with_what_the_first_used_most(tmp_path: Path) -> None:
    first = open_store("store", 4)
    for _ in range(10):
        first.run(LAYER, *step(1, 0))
    save_usage(tmp_path / "usage.json", first.cache.policy.usage())
    first.close()
    second = open_store("store", 4)
    second.cache.policy.remember(load_usage(tmp_path / "usage.json"))
    second.warm()
    while not second.cache.is_idle:
        pass
    second.run(LAYER, *step(1, 0))
    assert (second.hits, second.misses) == (4, 0) and second.counters.used_prefetch == 4
    second.close()
