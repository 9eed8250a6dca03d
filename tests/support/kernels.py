"""Native kernels for tests, and a mark for those that need them."""

import pytest

from mimo_cli.quant.kernels import Kernels, load_kernels, missing_reason

needs_kernels = pytest.mark.skipif(missing_reason() is not None, reason=f"no native kernels: {missing_reason()}")


def kernels(threads: int = 2) -> Kernels:
    """Return the kernels of this machine; a test that calls this is marked `needs_kernels`."""
    found = load_kernels(threads)
    assert found is not None
    return found
