"""`benchmarks.gpu` runs from a bare source tree, keeps what it found whatever happens; no card is needed to try it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu_report
from benchmarks.gpu_report import Report, Skipped

ROOT = Path(__file__).resolve().parents[3]

BARE = """
import importlib.abc, sys

POISONED = set(sys.argv[1].split(","))

class Poison(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in POISONED or name == "mimo_cli.quant._native":
            raise ImportError(name)

sys.meta_path.insert(0, Poison())
sys.argv = ["gpu"]
import benchmarks.gpu
print(*sorted(name for name in sys.modules if name.startswith("mimo_cli")))
"""


def test_it_imports_torch_triton_and_the_kernels_alone() -> None:
    poisoned = "accelerate,av,bitsandbytes,huggingface_hub,jinja2,cv2,prompt_toolkit,psutil,rich,soundfile,tokenizers"
    command = [sys.executable, "-c", BARE, f"{poisoned},typer,transformers,pytest,tests,hypothesis"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    ours = done.stdout.split()
    allowed = ("mimo_cli.quant.triton", "mimo_cli.quant.packed", "mimo_cli.quant.slot_layout", "mimo_cli.errors")
    assert "mimo_cli.quant.triton.experts" in ours
    assert [name for name in ours if not name.startswith(allowed)] == ["mimo_cli", "mimo_cli.quant"]


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    # Sections that free the card's memory and keep figures need no card to be tried.
    monkeypatch.setattr(Report, "_free", lambda self, name: None)
    return Report(tmp_path / "gpu.json", 100, set())


def written(report: Report) -> dict:  # type: ignore[type-arg]
    assert report.path
    return dict(json.loads(report.path.read_text("utf-8")))


def test_a_failed_section_loses_neither_the_others_nor_what_it_found(report: Report) -> None:
    def fails() -> None:
        report.row("half", 0.5, 0.55, 0.8)
        raise RuntimeError("no such instruction")

    assert report.section("first", 1, fails) is None
    assert report.section("second", 1, lambda: report.row("whole", 1.0, None, None, unit="us")) is None
    found = written(report)
    assert found["rows"] == [
        {"id": "half", "value": 0.5, "floor": 0.55, "goal": 0.8},
        {"id": "whole", "value": 1.0, "floor": None, "goal": None, "unit": "us"},
    ]
    assert found["failures"] == {"first": "RuntimeError: no such instruction"}


def test_a_row_is_not_measured_on_kernels_that_are_wrong_or_were_never_checked(report: Report) -> None:
    report.check("dense fp8", 1e-3, 1e-2)
    report.check("decode int4 ptx", float("nan"), 1e-2)
    report.need("dense")
    for prefix in ("decode", "attention"):
        with pytest.raises(Skipped, match=prefix):
            report.need(prefix)
    assert report.section("layer", 1, lambda: report.need("attention")) is None
    assert "not measured" in written(report)["failures"]["layer"]


def test_ptx_is_used_where_it_was_found_right_and_arithmetic_where_it_was_not(report: Report) -> None:
    for name in ("unpack fp8 portable", "decode fp8 portable", "unpack fp8 ptx"):
        report.check(name, 0.0, 1e-3)
    assert not report.fast("fp8")  # one of its two checks is missing
    report.check("decode fp8 ptx", 0.0, 1e-3)
    assert report.fast("fp8")
    with pytest.raises(Skipped):
        report.fast("mxfp4")


def test_a_section_starts_while_there_is_time_for_it(report: Report) -> None:
    report.deadline = report.began + 1
    assert report.section("long", 1000, lambda: 1) is None
    assert "no time left" in report.failures["long"]


def test_a_run_started_again_goes_on_behind_the_section_that_broke_it(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(gpu_report.os, "execv", lambda program, arguments: started.append(arguments))
    report.section("machine", 1, lambda: (4e12, 5e10))
    report._restart("decode fp8", "left the card unusable")
    assert started[0][1:3] == ["-m", "benchmarks.gpu"] and f"--out={report.path}" in started[0]
    again = Report(report.path, 100, set(), report.began)
    again.resume()
    assert again.section("machine", 1, lambda: pytest.fail("was done")) == [4e12, 5e10]
    assert again.section("decode fp8", 1, lambda: pytest.fail("broke the card")) is None
    assert again.section("layer", 1, lambda: {"fp8": 80.0}) == {"fp8": 80.0}
    assert again.failures == {"decode fp8": "left the card unusable"}


@pytest.mark.slow
def test_every_section_runs_through_on_tiny_shapes_and_leaves_no_figures(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--simulate", "--out", str(tmp_path / "gpu.json")]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text("utf-8"))
    assert set(found["failures"]) == {"prefill", "nf4"} and all(row["value"] is None for row in found["rows"])
    assert all(check["right"] for check in found["checks"].values())
    needed = {"moe_decode_mxfp4_over_copy", "moe_decode_fp8_over_copy", "sliding_layer_us", "eager_over_graph"}
    needed |= {"offload_step_over_resident", "pinned_upload_over_peak", "extrapolated_mxfp4_tokens_s"}
    assert needed <= {row["id"] for row in found["rows"]}
