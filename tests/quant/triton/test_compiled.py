"""The kernels compile for a Hopper card, and what they load lies side by side: 16 bytes a thread, 512 a warp."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(("kind", "way"), [("fp8", "plain"), ("int4", "plain"), ("mxfp4", "cores")])
def test_weights_arrive_16_bytes_a_thread_side_by_side(kind: str, way: str, tmp_path: Path) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "tests.support.hopper", kind, way]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    kernels = {found["kernel"]: found for found in map(json.loads, done.stdout.splitlines())}
    for name in ("gate_up_kernel", "down_kernel"):
        # Gate and up, or down: each is copied ahead in every step.
        assert kernels[name]["copies_of_16"] >= 1, kernels[name]
        assert (kernels[name]["products_of_cores"] > 0) == (way == "cores")
    if way != "cores":
        assert kernels["unpack_kernel"]["loads_of_16"] >= 1
    for found in kernels.values():
        assert "32, 1" in found["layout"], found
