"""`mimo plan`: one object with stable keys, a page with a verdict, exit code 4 only where nothing works."""

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mimo_cli.engine import measured_machine
from mimo_cli.miniature.bundled import bundled_path
from tests.support.cli import Run, run_cli

KEYS = {
    *("schema", "model", "machine", "context_tokens", "placement", "totals", "least_ram_bytes", "expert_slots"),
    *("resident_share", "is_below_cycle", "forecast", "verdict", "shortage", "changes", "measured"),
    *("least_vram_bytes", "card_slots"),
}
MODEL_KEYS = {
    *("name", "parameters", "stored_bytes", "experts_format", "dense_format", "is_released", "experts"),
    *("experts_per_token", "expert_bytes", "parts"),
}
MACHINE_KEYS = {"ram_bytes", "disk_bytes", "vram_bytes", "memory_gbps", "disk_gbps", "source"}
FORECAST_KEYS = {
    *("is_measured", "decode_tps", "prefill_tps", "prefill_tokens", "hit_rate", "bytes_per_token_by_tier"),
    *("decode_limit", "prefill_limit"),
}
CHANGE_KEYS = {"what", "decode_factor", "prefill_factor", "decode_tps", "is_lossy"}

Plan = Callable[..., Run]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Run `mimo plan` in an empty home on a machine that reads 40 GB/s and multiplies bfloat16."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mimo_cli.engine.load.has_native_bfloat16", lambda: True)
    return lambda *argv, **options: run_cli(
        "plan", *argv, home=tmp_path, engine__machine_rates__memory_gbps=lambda *_: 40.0, **options
    )


def document(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run.out)
    return found


def test_the_json_document_keeps_its_keys(plan: Plan) -> None:
    run = plan("--shape", "v2.5", "--ram", "64G", "--json")
    values = document(run)
    assert run.code == 0 and run.err == ""
    assert values.keys() == KEYS and values["schema"] == 1
    assert values["model"].keys() == MODEL_KEYS
    assert values["machine"].keys() == MACHINE_KEYS
    assert values["forecast"].keys() == FORECAST_KEYS and values["forecast"]["is_measured"] is False
    assert values["changes"] and all(change.keys() == CHANGE_KEYS for change in values["changes"])
    assert {row["place"] for row in values["placement"]} == {"ram", "disk"} == values["totals"].keys()
    assert values["totals"]["ram"] <= 64_000_000_000


def test_the_page_has_parts_places_a_forecast_and_what_helps(plan: Plan) -> None:
    out = plan("--shape", "v2.5", "--ram", "24G").out
    for part in ("dense", "embedding", "experts", "vision", "audio", "KV cache", "buffers", "MTP", "total"):
        assert part in out
    assert "v2.5: 311 B parameters, 316 GB on disk; experts fp8, dense as released" in out
    assert "verdict   RUNS SLOWLY" in out
    assert "held back by the disk" in out
    assert "helps     experts in int4 instead of fp8" in out


def test_without_a_name_it_is_about_the_release(plan: Plan) -> None:
    assert document(plan("--ram", "64G", "--json"))["model"]["name"] == "v2.5"


def test_slow_is_no_failure_and_no_place_is_exit_code_4(plan: Plan) -> None:
    assert plan("--shape", "v2.5", "--ram", "15G").code == 0
    too_small = plan("--shape", "v2.5", "--ram", "8G", "--json")
    values = document(too_small)
    assert too_small.code == 4 and values["verdict"] == "does not fit" and values["forecast"] is None
    assert "8 GB given" in values["shortage"]
    assert any("RAM" in change["what"] for change in values["changes"])


def test_disk_space_counts_as_given_unless_it_is_named(plan: Plan) -> None:
    assert plan("--shape", "v2.5-pro", "--ram", "64G").code == 0
    short = plan("--shape", "v2.5-pro", "--ram", "64G", "--disk", "500G", "--json")
    assert short.code == 4 and "of disk, 500 GB given" in document(short)["shortage"]
    assert plan("--shape", "v2.5", "--ram", "64G", "--disk", "200G", "--experts-format", "int4").code == 0


def test_formats_of_a_store_are_planned_before_it_exists(plan: Plan) -> None:
    values = document(
        plan("--shape", "v2.5", "--ram", "64G", "--experts-format", "int4", "--dense-format", "int8", "--json")
    )
    model = values["model"]
    assert (model["experts_format"], model["dense_format"], model["is_released"]) == ("int4 g32", "int8", False)
    assert model["expert_bytes"] == 14_155_776


def test_more_memory_is_never_slower(plan: Plan) -> None:
    speeds = [
        document(plan("--shape", "v2.5", "--ram", f"{size}G", "--json"))["forecast"]["decode_tps"]
        for size in (16, 20, 28, 48, 96, 200, 400)
    ]
    assert all(a["low"] <= b["low"] and a["high"] <= b["high"] for a, b in pairwise(speeds))


def test_a_folder_needs_no_weights(plan: Plan, tmp_path: Path) -> None:
    whole = document(plan("-m", str(bundled_path()), "--ram", "1G", "--json"))
    (tmp_path / "bare").mkdir()
    shutil.copy(bundled_path() / "config.json", tmp_path / "bare")
    bare = document(plan("-m", str(tmp_path / "bare"), "--ram", "1G", "--json"))
    assert whole["model"]["experts"] == bare["model"]["experts"] > 0
    assert whole["model"]["expert_bytes"] == bare["model"]["expert_bytes"]


def test_contexts_beyond_the_model_are_refused(plan: Plan) -> None:
    run = plan("--shape", "v2.5", "--ctx", "2m", "--ram", "64G")
    assert run.code == 2 and "1 to 1,048,576 are possible" in run.err


def test_contradictions_are_refused(plan: Plan) -> None:
    assert plan("--shape", "v2.5", "-m", str(bundled_path())).code == 2
    assert plan("-m", str(bundled_path()), "--layers", "2").code == 2
    assert plan("--shape", "v9").code == 2


def test_a_card_takes_the_dense_part_and_the_context_and_no_speed_is_promised(plan: Plan) -> None:
    run = plan("--vram", "24G", "--ram", "128G", "--experts-format", "int4", "--json")
    values = document(run)
    by_place = {(row["name"], row["place"]): row for row in values["placement"]}
    assert run.code == 0 and values["forecast"] is None and values["verdict"] == "fits" and values["changes"] == []
    assert {"dense", "KV cache", "experts", "transfer buffers", "buffers", "process"} == {
        name for name, place in by_place if place == "vram"
    }
    assert ("dense", "ram") not in by_place and ("KV cache", "ram") not in by_place and ("vision", "ram") in by_place
    assert values["totals"]["vram"] <= 24e9 and by_place["experts", "vram"]["count"] == values["card_slots"] > 500
    assert values["machine"]["vram_bytes"] == 24e9


def test_a_smaller_form_of_the_dense_part_leaves_more_room_for_experts(plan: Plan) -> None:
    argv = ("--vram", "24G", "--ram", "128G", "--experts-format", "int4", "--json")
    slots = [document(plan(*argv, "--gpu-dense", name))["card_slots"] for name in ("bf16", "int8", "nf4")]
    assert slots == sorted(slots) and slots[0] < slots[-1]


def test_too_small_a_card_is_told(plan: Plan) -> None:
    run = plan("--vram", "8G", "--ram", "128G")
    assert run.code == 4 and "of graphics memory are needed at least, 8 GB given" in run.out
    assert "untested" in run.out


@pytest.mark.parametrize("argv", [("--vram", "auto"), ("--vram", "50%"), ("--vram", "24G", "--measure")])
def test_a_share_of_no_card_is_refused_before_anything_is_measured(
    plan: Plan, argv: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measured_machine, "measure_machine", lambda *_: pytest.fail("it was measured"))
    assert plan(*argv, "--ram", "64G").code == 2


def test_the_usual_model_does_not_stand_in_the_way_of_a_shape(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "mimo.toml").write_text('model = "/no/such/model"\n')
    for environ in ({}, {"MIMO_MODEL": "/nor/this"}):
        run = plan("--shape", "v2.5", "--json", environ=environ)
        assert run.code in (0, 4) and "v2.5" in document(run)["model"]["name"].lower()
    typed = plan("--shape", "v2.5", "-m", "/no/such/model")
    assert typed.code == 2 and "--shape and -m exclude each other" in typed.err
