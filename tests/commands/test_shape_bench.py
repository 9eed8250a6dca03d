"""`mimo bench --shape`: its JSON keeps its keys, its table says what was measured, what cannot be done is refused."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from mimo_cli.checkpoint import release_shapes
from mimo_cli.commands.shape_bench import shape_json, write_shape_table
from mimo_cli.engine import slice as slice_module
from mimo_cli.engine.budgeting import divide_memory
from mimo_cli.engine.machine import describe_machine
from mimo_cli.engine.routing_trace import read_trace
from mimo_cli.engine.shape_bench import run_shape_bench
from mimo_cli.engine.slice import DiskTier, ShapeSpec
from mimo_cli.offload.budget import RamSetting
from mimo_cli.offload.reading import Reading
from mimo_cli.terminal.console import Terminal
from tests.support.cli import Run, run_cli
from tests.support.kernels import needs_kernels
from tests.support.source_tree import ROOT
from tests.support.tiny_shape import tiny_compute, tiny_release, tiny_report, tiny_spec

Bench = Callable[..., Run]

ROW_KEYS = {
    *("context_tokens", "depth_tokens", "prompt_tokens", "decode_tokens", "repeats", "cache_state"),
    *(
        f"{name}{part}"
        for name in ("prefill_tps", "decode_tps", "ttft_ms")
        for part in ("", "_low", "_high", "_deviation")
    ),
    *("hit_rate", "bytes_per_token", "bytes_per_token_by_tier", "kv_bytes", "peak_rss_bytes"),
    *("non_kernel_share", "attention_share", "dispatch_share"),
    *("weights_gbps", "read_ceiling_gbps", "ceiling_share", "layer_decode_ms"),
    *("disk_read_gbps", "disk_ceiling_gbps", "disk_ceiling_share", "io_ms", "compute_ms", "overlap", "wait_share"),
}
DISK_KEYS = {
    *("ram_bytes", "slots", "resident_share", "files_bytes", "mode", "threads", "read_bytes", "probe_bytes"),
}
MOE_KEYS = {
    *("weights_gbps", "read_ceiling_gbps", "ceiling_share", "decode_ms", "prefill_tps", "prefill_tokens"),
    *("experts", "experts_per_token", "bits_per_weight", "weight_bytes", "working_set_bytes"),
    "precision",
}
FORECAST_KEYS = {"context_tokens", "layers", "global_layers", "sliding_layers", "prefill_tps", "decode_tps"}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Run `mimo bench` in an empty home."""
    monkeypatch.chdir(tmp_path)
    return lambda *argv, **options: run_cli("bench", *argv, home=tmp_path, **options)


def report() -> dict[str, Any]:
    return shape_json("tiny", tiny_report(), describe_machine())


@needs_kernels
def test_the_json_document_keeps_its_keys() -> None:
    values = json.loads(json.dumps(report()))
    assert values.keys() == {
        *("schema", "shape", "compute", "routing", "moe_layer", "disk", "rows", "extrapolated", "hardware", "versions")
    }
    assert values["schema"] == 1
    assert values["shape"]["layers"] == ["global dense", "sliding moe", "global moe"]
    assert {"name", "experts_format", "dense_format", "bits_per_weight", "weights"} <= values["shape"].keys()
    assert values["moe_layer"].keys() == MOE_KEYS
    assert all(row.keys() == ROW_KEYS for row in values["rows"])
    assert values["extrapolated"]["is_measured"] is False
    assert all(row.keys() == FORECAST_KEYS for row in values["extrapolated"]["rows"])
    assert {"cpu", "cores", "memory_bytes", "system", "isa", "threads"} == values["hardware"].keys()
    assert {"mimo-cli", "torch", "python"} <= values["versions"].keys()


@needs_kernels
def test_numbers_are_numbers_and_agree_with_one_another() -> None:
    for row in report()["rows"]:
        assert row["prefill_tps_low"] <= row["prefill_tps"] <= row["prefill_tps_high"]
        assert row["bytes_per_token"] == row["bytes_per_token_by_tier"]["ram"] > 0
        assert row["bytes_per_token_by_tier"]["disk"] == 0
        assert row["non_kernel_share"] == pytest.approx(row["attention_share"] + row["dispatch_share"])
        assert row["ceiling_share"] == pytest.approx(row["weights_gbps"] / row["read_ceiling_gbps"])
        assert len(row["layer_decode_ms"]) == 3


@needs_kernels
def test_every_key_is_documented() -> None:
    text = (ROOT / "docs" / "bench.md").read_text("utf-8")
    named = set(re.findall(r"`(\w+)`", text))
    spread = {key for key in ROW_KEYS if key.endswith(("_low", "_high", "_deviation"))}
    assert {
        *report(),
        *ROW_KEYS - spread,
        *MOE_KEYS,
        *DISK_KEYS,
        *FORECAST_KEYS,
        "_low",
        "_high",
        "_deviation",
    } <= named


@needs_kernels
def test_the_table_says_what_was_measured_and_what_is_an_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    write_shape_table(Terminal.standard("never", quiet=True), report())
    out = capsys.readouterr().out
    assert "tiny, random weights: 3 layers (global dense, sliding moe, global moe), experts int4, dense int8" in out
    assert "routing uniform: " in out and "one layer of experts: " in out and " of " in out
    assert re.search(r"^ +8 +0 .* ± .* ± .* s .* GB/s .*%", out, re.MULTILINE)
    assert out.count("estimate of 4 layers (2 global + 2 sliding) at ") == 2
    assert "threads" in out and "torch" in out


@needs_kernels
def test_the_command_measures_a_shape(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(release_shapes.SHAPES, "v2.5", dict(tiny_release().raw))
    monkeypatch.setattr(slice_module, "ShapeSpec", partial(ShapeSpec, probe_bytes=1 << 20))
    run = bench("--shape", "v2.5", "-p", "8", "-n", "2", "-r", "1", "--routing", "skewed", "--json", "-q")
    assert run.code == 0 and run.err == ""
    values = json.loads(run.out)
    assert values["shape"]["experts_format"] == "int4" and values["shape"]["dense_format"] == "int8"
    assert values["routing"]["kind"] == "skewed" and len(values["rows"]) == 1
    assert values["moe_layer"]["decode_ms"] > 0
    table = bench("--shape", "v2.5", "--layers", "1", "-p", "8", "-n", "2", "-r", "1", "-q")
    assert table.code == 0 and "1 layers (global dense)" in table.out and "no estimate of all 4 layers" in table.out


def disk_spec_of(tmp_path: Path, **overrides: Any) -> Any:
    """Experts in files, memory for some of them, whatever the process takes already."""
    fixed = divide_memory(
        RamSetting(),
        tiny_spec().config,
        [],
        dtype=torch.float32,
        slot_bytes=1,
        reading_bytes=0,
        context_tokens=tiny_spec().bench.context_tokens + 12,
    ).fixed_bytes
    tier = DiskTier(RamSetting(size_bytes=fixed + 2_000_000), tmp_path, reading=Reading(mode="direct"))
    return tiny_spec(disk=tier, **overrides)


@needs_kernels
def test_a_disk_tier_reports_what_reading_reached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measured = run_shape_bench(disk_spec_of(tmp_path), tiny_compute())
    values = json.loads(json.dumps(shape_json("tiny", measured, describe_machine())))
    assert values["disk"].keys() == DISK_KEYS and values["moe_layer"] is None and not values["extrapolated"]["rows"]
    assert values["disk"]["read_bytes"] > 0 and values["disk"]["probe_bytes"] > 0
    for row in values["rows"]:
        assert row.keys() == ROW_KEYS
        assert row["disk_ceiling_gbps"] > 0 and row["compute_ms"] > 0 and row["overlap"] >= 1 - 1e-6
        assert 0 <= row["wait_share"] < 1 and row["hit_rate"] is not None
    write_shape_table(Terminal.standard("never", quiet=True), values)
    assert re.search(r"experts on disk: .* slots .* read direct by \d+ threads", capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == []


@needs_kernels
def test_a_recorded_routing_is_driven_again(tmp_path: Path) -> None:
    recorded = tmp_path / "routing.jsonl"
    run_shape_bench(tiny_spec(record=recorded, prompt_tokens=(8,)), tiny_compute())
    trace = read_trace(recorded)
    again = tmp_path / "again.jsonl"
    report = run_shape_bench(tiny_spec(trace=trace, record=again, prompt_tokens=(8,)), tiny_compute())
    decoded, driven = trace.decoded, read_trace(again).decoded
    assert [one.experts for one in driven] == [decoded[i % len(decoded)].experts for i in range(len(driven))]
    assert report.routing.kind == "trace"


@needs_kernels
def test_the_command_measures_a_disk_tier(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(release_shapes.SHAPES, "v2.5", dict(tiny_release().raw))
    kept = tmp_path / "kept"
    run = bench(
        "--shape", "v2.5", "--ram", "4G", "--scratch", str(kept), "-p", "8", "-n", "2", "-r", "1", "--json", "-q"
    )
    assert run.code == 0, run.err
    assert json.loads(run.out)["disk"]["files_bytes"] == sum(path.stat().st_size for path in kept.glob("*.bin"))
    for argv in (("--scratch", "x"), ("--trace", "x")):
        assert bench(*argv).code == 2
    assert bench("--shape", "v2.5", "--scratch", "x").code == 2


@needs_kernels
def test_too_little_memory_is_refused_with_exit_code_4(bench: Bench) -> None:
    run = bench("--shape", "v2.5", "--experts-format", "fp8", engine__slice__available_bytes=lambda: 8_000_000_000)
    assert run.code == 4 and run.out == ""
    assert (
        "3 layers with fp8 experts need 1" in run.err
        and "8 GB are free" in run.err
        and "TRY: fewer --layers" in run.err
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--shape", "v3"), "shape `v3` is unknown"),
        (("--shape", "v2.5", "--layers", "49"), "49 layers are not possible"),
        (("--shape", "v2.5", "--layers", "0"), "'--layers'"),
        (("--shape", "v2.5", "-m", "somewhere"), "exclude each other"),
        (("--shape", "v2.5", "--csv"), "goes with none of"),
        (("--shape", "v2.5", "--cold"), "goes with none of"),
        (("--shape", "v2.5", "--device", "mps"), "not supported"),
        (("--layers", "3"), "--layers goes with --shape"),
        (("--routing", "skewed"), "--routing goes with --shape"),
        (("--experts-format", "fp8"), "mimo bench --shape v2.5 --experts-format fp8"),
    ],
)
def test_wrong_input_is_one_line(bench: Bench, argv: tuple[str, ...], message: str) -> None:
    run = bench(*argv)
    assert run.code == 2 and run.out == "" and run.err.count("\n") == 1 and message in run.err


def test_the_usual_model_does_not_stand_in_the_way_of_a_shape(bench: Bench) -> None:
    run = bench("--shape", "v3", environ={"MIMO_MODEL": "/no/such/model"})
    assert run.code == 2 and "shape `v3` is unknown" in run.err
