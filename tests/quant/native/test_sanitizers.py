"""The kernels under the address and undefined-behaviour sanitizers: a small C++ program runs odd shapes."""

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[3] / "mimo_cli" / "quant" / "native"
SOURCES = ("capi", "compute", "attention", "block", "packing", "quantize", "encode")
SOURCES += ("pool", "cpu", "isa", "avx2", "avx512")
SOURCES_512 = ("avx512", "quantize_avx512", "spans_avx512")
FLAGS = ["-std=c++17", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{NATIVE}"]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = [*AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "vl", "dq", "vnni", "bf16", "vbmi"))]


def compile_one(source: Path, folder: Path) -> str:
    extra = AVX512 if source.stem in SOURCES_512 else AVX2 if source.stem == "avx2" else []
    out = str(folder / f"{source.stem}.o")
    subprocess.run(["g++", *FLAGS, *extra, "-c", str(source), "-o", out], check=True)
    return out


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_odd_shapes_touch_nothing_beyond_their_ends(tmp_path: Path) -> None:
    sources = [NATIVE / f"{name}.cpp" for name in {*SOURCES, *SOURCES_512}] + [
        Path(__file__).with_name("odd_shapes.cpp")
    ]
    with ThreadPoolExecutor(2) as workers:
        objects = list(workers.map(lambda source: compile_one(source, tmp_path), sources))
    program = str(tmp_path / "odd_shapes")
    subprocess.run(["g++", *FLAGS, *objects, "-lpthread", "-o", program], check=True)
    # a thread is started and ended thousands of times; leaks are looked for as well
    done = subprocess.run([program], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "0 differ" in done.stdout
