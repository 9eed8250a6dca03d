"""Kernels written in Triton: as they are on a card, else interpreted; nothing is collected without Triton."""

import importlib.util

if importlib.util.find_spec("triton"):
    import tests.support.triton_interpreter  # noqa: F401  before any kernel is imported

    collect_ignore_glob: list[str] = []
else:
    collect_ignore_glob = ["test_*.py"]
