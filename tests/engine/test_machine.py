"""The machine's description: every field filled, and bfloat16 told from the processor's flags."""

from pathlib import Path

import pytest

from mimo_cli.engine import machine
from mimo_cli.engine.machine import cpu_name, describe_machine, has_native_bfloat16


def test_every_measurement_can_say_where_it_was_made() -> None:
    found = describe_machine()
    assert found["cores"] >= 1 and found["threads"] >= 1 and found["memory_bytes"] > 10**8
    assert all(found[key] for key in ("cpu", "system", "python", "torch", "numpy"))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx2", False), ("avx512f avx512_bf16", True), ("amx_bf16", True), ("avx512_bf16x", False)],
)
def test_bfloat16_is_told_from_the_flags(
    flags: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name\t: Some CPU: fast\nflags\t\t: {flags}\n")
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "cpuinfo")
    assert has_native_bfloat16() is expected
    assert cpu_name() == "Some CPU: fast"


def test_without_cpuinfo_there_is_still_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_CPU_INFO", tmp_path / "nothing")
    assert cpu_name() and not has_native_bfloat16()
