"""The machine and the software a measurement was made with, and what precision its processor is good at."""

import os
import platform
from importlib import metadata
from pathlib import Path

import psutil
import torch

_CPU_INFO = Path("/proc/cpuinfo")
_NATIVE_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
_MEASURED_PACKAGES = ("mimo-cli", "torch", "numpy", "safetensors", "tokenizers")


def describe_machine() -> dict[str, str | int]:
    """Return what belongs beside every measured number: processor, cores, memory, system, versions."""
    versions = {package: _version(package) for package in _MEASURED_PACKAGES}
    return {
        "cpu": cpu_name(),
        "cores": psutil.cpu_count(logical=False) or os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "system": platform.platform(),
        "python": platform.python_version(),
        **versions,
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


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
