import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mimo_cli.commands.bench import parse_sizes
from mimo_cli.errors import UsageError
from tests.support.cli import Run, run_cli

Bench = Callable[..., Run]
SMALL = ("-p", "8,16", "-n", "2", "-d", "0,4", "-r", "2")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Run `mimo bench` on the bundled miniature."""
    monkeypatch.chdir(tmp_path)
    return lambda *argv, **options: run_cli("bench", *argv, home=tmp_path, **options)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("512", (512,)),
        ("512,4k", (512, 4096)),
        ("1-10+3", (1, 4, 7, 10)),
        ("64-512*2,1", (64, 128, 256, 512, 1)),
        ("0", (0,)),
    ],
)
def test_sizes_are_lists_and_ranges(text: str, sizes: tuple[int, ...]) -> None:
    assert parse_sizes(text) == sizes


@pytest.mark.parametrize("text", ["", "many", "5-1+1", "1-5", "1-5+0", "0-8*2", "1-8*1", "-3"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_sizes(text)


def test_table_has_a_row_for_each_pair_and_names_the_machine(bench: Bench) -> None:
    run = bench("-q", *SMALL)
    assert (run.code, run.err) == (0, "")
    head, _, *rows = run.out.split("\n\n")[0].splitlines()
    assert head.split()[:4] == ["prompt", "depth", "prefill", "t/s"]
    assert [tuple(row.split()[:2]) for row in rows] == [("8", "0"), ("16", "0"), ("8", "4"), ("16", "4")]
    assert all(row.count("±") == 2 for row in rows)
    assert "median ± standard deviation of 2 warm runs, 2 tokens decoded" in run.out and "torch" in run.out


def test_json_carries_machine_and_versions(bench: Bench) -> None:
    report = json.loads(bench("--json", "-q", *SMALL).out)
    assert report["schema"] == 1 and report["model"]["name"] == "the bundled miniature"
    assert {"cpu", "cores", "threads", "memory_bytes", "system"} == report["hardware"].keys()
    assert {"mimo-cli", "python", "torch", "numpy"} <= report["versions"].keys()
    assert report["compute"]["dtype"] == "float32"
    row = report["rows"][0]
    assert row["prefill_tps"] > 0 and row["ttft_ms_low"] <= row["ttft_ms"] <= row["ttft_ms_high"]
    assert row["repeats"] == 2 and row["kv_bytes"] > 0 and row["peak_rss_bytes"] > 0


def test_csv_is_flat_with_one_line_for_each_row(bench: Bench) -> None:
    rows = list(csv.DictReader(io.StringIO(bench("--csv", "-q", *SMALL).out)))
    pairs = [(row["prompt_tokens"], row["depth_tokens"]) for row in rows]
    assert pairs == [("8", "0"), ("16", "0"), ("8", "4"), ("16", "4")]
    assert float(rows[0]["decode_tps"]) > 0 and rows[0]["cpu"]


def test_cold_runs_say_so(bench: Bench) -> None:
    run = bench("-q", "--cold", "-p", "4", "-n", "1", "-r", "1")
    assert "1 cold runs" in run.out


def test_a_text_of_ones_own_is_read_and_must_be_long_enough(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("only a few words\n")
    run = bench("--text", "short.txt", "-p", "512")
    assert run.code == 2 and "the prompt text has " in run.err
    assert bench("-q", "--text", "short.txt", "-p", "4", "-n", "1", "-r", "1").code == 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--json", "--csv"), "exclude each other"),
        (("-n", "1,2"), "-n takes one number"),
        (("-r", "0"), "'--repeats'"),
        (("-p", "0", "-n", "0"), "measures nothing"),
        (("-m", "no/model"), "is neither a folder nor a name"),
    ],
)
def test_wrong_input_is_one_line(bench: Bench, argv: tuple[str, ...], message: str) -> None:
    run = bench(*argv)
    assert run.code in (2, 3) and run.out == "" and run.err.count("\n") == 1 and message in run.err
