"""Whether the native kernels run on this machine, in which variant and on how many cores. Loads nothing large.

The extension `_native` is optional: where it was not built, or the processor has neither AVX2 nor AVX-512, the package
computes with torch.
"""

import os
from collections.abc import Mapping

try:
    from mimo_cli.quant import _native
except ImportError as error:
    _native = None  # type: ignore[assignment]
    _import_error = str(error)

ISA_VARIABLE = "MIMO_ISA"
"""Environment variable that asks for one instruction set (`avx512`, `avx2`) or `none`, for comparisons."""

_BEST_FIRST = ("avx512", "avx2")


def missing_reason() -> str | None:
    """Say why there are no native kernels here; None where there are."""
    if _native is None:
        return f"the native kernels were not built ({_import_error})"
    wanted = wanted_isa()
    features = _native.cpu_features()
    if wanted == "none":
        return f"{ISA_VARIABLE} is `none`"
    if wanted not in ("auto", *features):
        return f"{ISA_VARIABLE} is `{wanted}`; auto, none, {' or '.join(features)} expected"
    if not (features.get(wanted) if wanted != "auto" else any(features.values())):
        return f"this processor lacks {'AVX2' if wanted == 'auto' else wanted}"
    return None


def wanted_isa() -> str:
    """Return the variant that was asked for, `auto` by default."""
    return os.environ.get(ISA_VARIABLE, "auto")


def found_isa() -> str | None:
    """Return the variant that `load_kernels` opens; None where it opens none."""
    if _native is None or missing_reason():
        return None
    features: Mapping[str, bool] = _native.cpu_features()
    wanted = wanted_isa()
    return next(isa for isa in _BEST_FIRST if features.get(isa)) if wanted == "auto" else wanted


def usable_cores() -> int:
    """Return the cores this process may run on, counting one thread where two share a core."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for cpu in allowed:
        try:
            with open(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", encoding="ascii") as file:
                cores.add(file.read().strip())
        except OSError:
            cores.add(str(cpu))
    return max(1, len(cores))
