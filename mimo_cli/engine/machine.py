"""The machine and the software a measurement was made with."""

import os
import platform
from importlib import metadata

import psutil
import torch

from mimo_cli.engine.processor import cpu_name

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
