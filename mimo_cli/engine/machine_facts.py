"""What a machine is, as far as it matters here: gathered in a second or two, judged by health.py.

Nothing large is loaded, and no probe lasts longer than it may: who looks at a machine in trouble wants an answer.
"""

import os
import platform
import re
import resource
import shutil
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import psutil

from mimo_cli.engine.cgroup import MemoryGroup, memory_group
from mimo_cli.engine.disk_probe import DiskKind, DiskRate, disk_kind, probe_reads, scratch_file, scratch_path
from mimo_cli.engine.processor import cpu_flags, cpu_name
from mimo_cli.errors import MimoError
from mimo_cli.quant.availability import found_isa, missing_reason, usable_cores

EXPERT_BYTES = 14_155_776
"""One expert of MiMo-V2.5 in int4: the size in which disks are asked."""

PACKAGES = ("mimo-cli", "torch", "numpy", "safetensors", "tokenizers", "av", "soundfile", "opencv-python-headless")
OPTIONAL_PACKAGES = ("huggingface-hub",)
_TOOLS = ("c++", "g++", "clang++", "git", "ffmpeg")

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_CARDS = Path("/proc/driver/nvidia/gpus")
_KERNEL_VERSION = Path("/proc/version")
_PROBE_BYTES = 9 * EXPERT_BYTES
_WRITE_S = 1.0
_PROBE_S = 0.6
_PROBE_FILES = 8
_DISK_S = 2.5
"""All that is asked of a disk must be over by then."""


@dataclass(frozen=True)
class Disk:
    """Where models or caches lie: room left, kind, and the rate at expert size (None and why, where not measured)."""

    folder: Path
    free_bytes: int
    kind: DiskKind
    rate: DiskRate | None
    problem: str | None = None


@dataclass(frozen=True)
class MachineFacts:
    """What was found. Limits are None where there are none; versions are None where a package is missing."""

    system: str
    python: tuple[int, int, int]
    cpu: str
    cpu_flags: frozenset[str]
    isa: str | None
    missing_kernels: str | None
    threads: int
    memory_bytes: int
    available_bytes: int
    swap_used_bytes: int
    group: MemoryGroup | None
    huge_pages: str | None
    memlock_bytes: int | None
    open_files: int | None
    disks: tuple[Disk, ...]
    versions: dict[str, str | None]
    tools: frozenset[str] = field(default_factory=frozenset)
    is_wsl: bool = False
    cards: tuple[str, ...] = ()


def gather_facts(folders: list[Path], *, can_write: bool = True) -> MachineFacts:
    """Look at the machine and at the disks of some folders: about a second for each disk.

    A folder with large files is measured by reading those, another by a file of 130 MB that is deleted afterwards;
    `can_write` False leaves that away.
    """
    memory = psutil.virtual_memory()
    return MachineFacts(
        system=platform.platform(),
        python=sys.version_info[:3],
        cpu=cpu_name(),
        cpu_flags=frozenset(cpu_flags()),
        isa=found_isa(),
        missing_kernels=missing_reason(),
        threads=usable_cores() if found_isa() else os.cpu_count() or 1,
        memory_bytes=memory.total,
        available_bytes=memory.available,
        swap_used_bytes=psutil.swap_memory().used,
        group=memory_group(),
        huge_pages=_huge_pages(),
        memlock_bytes=_limit("RLIMIT_MEMLOCK"),
        open_files=_limit("RLIMIT_NOFILE"),
        disks=tuple(_disk(folder, can_write) for folder in dict.fromkeys(folders)),
        versions={name: _version(name) for name in (*PACKAGES, *OPTIONAL_PACKAGES)},
        tools=frozenset(tool for tool in _TOOLS if shutil.which(tool)),
        is_wsl=_is_wsl(),
        cards=_cards(),
    )


def _cards(folder: Path = _CARDS) -> tuple[str, ...]:
    """Return the names of NVIDIA's cards as its driver tells them; torch is not asked, which takes seconds to load."""
    found = []
    for path in sorted(folder.glob("*/information")):
        with suppress(OSError):
            match = re.search(r"^Model:\s*(.+)$", path.read_text("utf-8", "replace"), re.MULTILINE)
            found.append(match[1].strip() if match else path.parent.name)
    return tuple(found)


def _huge_pages() -> str | None:
    try:
        chosen = re.search(r"\[(\w+)\]", _HUGE_PAGES.read_text())
    except OSError:
        return None
    return chosen[1] if chosen else None


def _limit(name: str) -> int | None:
    soft, _ = resource.getrlimit(getattr(resource, name))
    return None if soft == resource.RLIM_INFINITY else soft


def _is_wsl() -> bool:
    try:
        return "microsoft" in _KERNEL_VERSION.read_text().lower()
    except OSError:
        return False


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _disk(folder: Path, can_write: bool) -> Disk:
    there = folder
    while not there.is_dir() and there != there.parent:
        there = there.parent
    free_bytes, kind = shutil.disk_usage(there).free, disk_kind(there)
    found = _within(_DISK_S, lambda: _rate(folder, there, can_write))
    if found is None:
        with suppress(OSError):  # its thread may never come to that
            scratch_path(there).unlink()
        return Disk(folder, free_bytes, kind, None, f"it did not answer within {_DISK_S} seconds")
    rate = found[0]
    if isinstance(rate, MimoError):
        return Disk(folder, free_bytes, kind, None, str(rate))
    return Disk(folder, free_bytes, kind, rate, None if rate else "not measured: nothing large to read")


def _within(seconds: float, probe: Callable[[], DiskRate | None]) -> tuple[DiskRate | MimoError | None] | None:
    """Return what a probe found, or its error; None where it is not over in time, and left to itself."""
    found: list[DiskRate | MimoError | None] = []

    def run() -> None:
        try:
            found.append(probe())
        except MimoError as err:
            found.append(err)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return (found[0],) if found else None


def _rate(folder: Path, there: Path, can_write: bool) -> DiskRate | None:
    files = [path for path in folder.glob("*") if path.is_file()] if folder.is_dir() else []
    large = [path for path in files if path.stat().st_size >= _PROBE_BYTES][:_PROBE_FILES]
    if large:
        return probe_reads(large, EXPERT_BYTES, _PROBE_S)
    if not can_write or not os.access(there, os.W_OK):
        return None
    with scratch_file(there, _PROBE_BYTES, _WRITE_S) as path:
        return probe_reads([path], EXPERT_BYTES, _PROBE_S)
