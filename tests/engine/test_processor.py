"""The processor's description: a name everywhere, and bfloat16 told from its flags."""

from pathlib import Path

import pytest

from mimo_cli.engine import processor
from mimo_cli.engine.processor import cpu_name, has_native_bfloat16


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx2", False), ("avx512f avx512_bf16", True), ("amx_bf16", True), ("avx512_bf16x", False)],
)
def test_bfloat16_is_told_from_the_flags(
    flags: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name\t: Some CPU: fast\nflags\t\t: {flags}\n")
    monkeypatch.setattr(processor, "_CPU_INFO", tmp_path / "cpuinfo")
    assert has_native_bfloat16() is expected
    assert cpu_name() == "Some CPU: fast"


def test_without_cpuinfo_there_is_still_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(processor, "_CPU_INFO", tmp_path / "nothing")
    assert cpu_name() and not has_native_bfloat16()
