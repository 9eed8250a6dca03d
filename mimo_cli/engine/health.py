"""Judging a machine: each fact ok, a warning or a failure, and what to do about it. No fact is gathered here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mimo_cli.engine.machine_facts import OPTIONAL_PACKAGES, Disk, MachineFacts
from mimo_cli.units import format_bytes

Status: TypeAlias = Literal["ok", "warn", "fail"]

LEAST_PYTHON = (3, 11)
LEAST_RAM_BYTES = 12_000_000_000
"""What MiMo-V2.5 takes before its first expert, with dense matrices in int8."""

FEW_FILES = 256
SLOW_DISK_GBPS = 0.5
_SWAP_BYTES = 500_000_000
_COMPILERS = ("c++", "g++", "clang++")


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, what was found, and the fix where there is something to mend."""

    status: Status
    what: str
    found: str
    fix: str | None = None


def check_machine(facts: MachineFacts) -> list[Check]:
    """Judge everything, in the order in which it should be mended."""
    checks: list[Callable[[MachineFacts], Check]] = [
        _python,
        _packages,
        _kernels,
        _card,
        _processor,
        _memory,
        _group,
        _swap,
        _huge_pages,
        _open_files,
        _locked_memory,
    ]
    found = [check(facts) for check in checks]
    found += [check for disk in facts.disks for check in _disk(disk)]
    return [*found, *_optional(facts)]


def _python(facts: MachineFacts) -> Check:
    version = ".".join(map(str, facts.python))
    if facts.python < LEAST_PYTHON:
        return Check("fail", "Python", version, "install Python 3.11 or newer and set mimo up with it")
    return Check("ok", "Python", f"{version}, {facts.system}")


def _packages(facts: MachineFacts) -> Check:
    missing = [name for name, version in facts.versions.items() if not version and name not in OPTIONAL_PACKAGES]
    if missing:
        return Check("fail", "packages", f"{', '.join(missing)} missing", f"pip install {' '.join(missing)}")
    listed = [f"{name} {version}" for name, version in facts.versions.items() if version]
    return Check("ok", "packages", ", ".join(listed))


def _kernels(facts: MachineFacts) -> Check:
    if facts.isa is not None:
        threads = f"{facts.threads} thread{'s' if facts.threads > 1 else ''}"
        return Check("ok", "native kernels", f"{facts.isa}, {threads}")
    reason = facts.missing_kernels or "not loaded"
    if "not built" not in reason:
        return Check("warn", "native kernels", f"{reason}; torch computes, many times slower", "unset MIMO_ISA")
    compiler = "" if facts.tools.intersection(_COMPILERS) else "install a C++ compiler (g++ or clang++), then "
    return Check("warn", "native kernels", f"{reason}; torch computes, many times slower", f"{compiler}pip install .")


def _card(facts: MachineFacts) -> Check:
    """Say what cards there are, and that nobody has tried the paths for them."""
    if not facts.cards:
        return Check("ok", "graphics card", "none; the processor computes")
    fix = "mimo chat --device cuda uses it; compare with --device cpu first"
    found = f"{', '.join(facts.cards)}: untested, no kernel of mimo ever ran on a card; the processor computes"
    return Check("warn", "graphics card", found, fix)


def _processor(facts: MachineFacts) -> Check:
    names = {"avx512_vnni": "AVX-512 VNNI", "avx512_bf16": "AVX-512 BF16", "avx512f": "AVX-512", "avx2": "AVX2"}
    has = [name for flag, name in names.items() if flag in facts.cpu_flags]
    found = f"{facts.cpu}: {', '.join(has) or 'neither AVX2 nor AVX-512'}"
    if not has:
        return Check("warn", "processor", found, "use a processor with AVX2 or AVX-512; here torch computes")
    return Check("ok", "processor", found)


def _memory(facts: MachineFacts) -> Check:
    free_bytes = facts.available_bytes if facts.group is None else min(facts.available_bytes, facts.group.free_bytes)
    found = f"{format_bytes(free_bytes)} free of {format_bytes(facts.memory_bytes)}"
    if free_bytes < LEAST_RAM_BYTES:
        fix = f"close other programs: MiMo-V2.5 needs {format_bytes(LEAST_RAM_BYTES)}; mimo plan tells more"
        return Check("warn", "memory", found, fix)
    return Check("ok", "memory", found)


def _group(facts: MachineFacts) -> Check:
    if facts.group is None:
        return Check("ok", "memory limit", "none")
    group = facts.group
    found = (
        f"{format_bytes(group.limit_bytes)} by the control group (version {group.version}), "
        f"{format_bytes(group.used_bytes)} in use"
    )
    if group.limit_bytes < LEAST_RAM_BYTES:
        return Check("warn", "memory limit", found, "raise the container's limit, for example docker run --memory 16g")
    return Check("ok", "memory limit", found)


def _swap(facts: MachineFacts) -> Check:
    found = f"{format_bytes(facts.swap_used_bytes)} in use"
    if facts.swap_used_bytes > _SWAP_BYTES:
        return Check("warn", "swap", found, "close other programs, or give mimo less: --ram")
    return Check("ok", "swap", found)


def _huge_pages(facts: MachineFacts) -> Check:
    if facts.huge_pages is None:
        return Check("ok", "huge pages", "not a matter of this system")
    if facts.huge_pages == "never":
        fix = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"
        return Check("warn", "huge pages", "never; reading weights is slower", fix)
    return Check("ok", "huge pages", facts.huge_pages)


def _open_files(facts: MachineFacts) -> Check:
    if facts.open_files is not None and facts.open_files < FEW_FILES:
        return Check("warn", "open files", f"{facts.open_files} at most", f"ulimit -n {4 * FEW_FILES}")
    return Check("ok", "open files", "no limit" if facts.open_files is None else f"{facts.open_files:,} at most")


def _locked_memory(facts: MachineFacts) -> Check:
    limit = "no limit" if facts.memlock_bytes is None else f"{format_bytes(facts.memlock_bytes)} at most"
    return Check("ok", "locked memory", f"{limit} (mimo locks none)")


def _disk(disk: Disk) -> list[Check]:
    what = f"disk of {disk.folder}"
    room = f"{format_bytes(disk.free_bytes)} free"
    if disk.rate is None:
        return [Check("warn", what, f"{room}; {disk.problem}", "name a folder on it with -m, or make it writable")]
    way = "past the system's cache" if disk.rate.is_direct else "through the system's cache"
    found = f"{disk.rate.gbps:.2f} GB/s in reads of one expert {way}, {room}, {disk.kind}"
    if disk.rate.gbps < SLOW_DISK_GBPS:
        return [Check("warn", what, found, "keep models on an NVMe disk: experts are read from it for every token")]
    if not disk.rate.is_direct:
        return [Check("warn", what, found, "use a file system that knows O_DIRECT (ext4, xfs, btrfs)")]
    return [Check("ok", what, found)]


def _optional(facts: MachineFacts) -> list[Check]:
    found = []
    if facts.is_wsl:
        fix = "keep models inside the Linux file system, not below /mnt"
        found.append(Check("warn", "Windows subsystem for Linux", "reads from Windows' disks are slow", fix))
    if not facts.tools.intersection(_COMPILERS):
        fix = "install g++ or clang++ where the native kernels should be built again"
        found.append(Check("warn" if facts.isa is None else "ok", "C++ compiler", "none", fix))
    if not facts.versions.get("huggingface-hub"):
        found.append(Check("ok", "huggingface-hub", "missing; only downloads need it", "pip install huggingface-hub"))
    return found
