"""The processor as the system describes it: name, features, what precision it is good at. Loads nothing large."""

import platform
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")
_NATIVE_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def cpu_name() -> str:
    """Return the processor's name as the system gives it, or the architecture."""
    for line in _cpu_info_lines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def has_native_bfloat16() -> bool:
    """Tell whether the processor multiplies bfloat16 itself (AVX-512 BF16, AMX, Arm BF16)."""
    return not _NATIVE_BFLOAT16_FLAGS.isdisjoint(cpu_flags())


def cpu_flags() -> list[str]:
    """Return the processor's features under their names in /proc/cpuinfo; none where the system does not tell."""
    for line in _cpu_info_lines():
        if line.startswith(("flags", "Features")):
            return line.partition(":")[2].split()
    return []


def _cpu_info_lines() -> list[str]:
    try:
        return _CPU_INFO.read_text().splitlines()
    except OSError:
        return []
