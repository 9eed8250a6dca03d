"""The package builds where there is no compiler: nothing native is made, and nothing fails."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("cmake", "ninja", "sh", "env", "uname", "cat")


@pytest.fixture
def without_compilers(tmp_path: Path) -> dict[str, str]:
    """Return an environment whose PATH holds build tools but no compiler."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        if found is None and tool in ("cmake", "ninja"):
            pytest.skip(f"{tool} is not installed here")
        if found:
            (folder / tool).symlink_to(found)
    return {"PATH": str(folder), "HOME": str(tmp_path)}


def configure(build: Path, environment: dict[str, str], *options: str) -> str:
    command = ["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(build), *options]
    cmake = str(Path(environment["PATH"].split(os.pathsep)[0]) / "cmake")
    done = subprocess.run([cmake, *command[1:]], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_without_a_compiler_nothing_is_built_and_nothing_fails(
    tmp_path: Path, without_compilers: dict[str, str]
) -> None:
    said = configure(tmp_path / "build", without_compilers)
    assert "no C++ compiler found" in said
    ninja = str(Path(without_compilers["PATH"]) / "ninja")
    built = subprocess.run(
        [ninja, "-C", str(tmp_path / "build")], env=without_compilers, capture_output=True, text=True, check=True
    )
    assert "no work to do" in built.stdout


def test_a_compiler_that_does_not_work_counts_as_none(tmp_path: Path, without_compilers: dict[str, str]) -> None:
    broken = tmp_path / "broken-c++"
    broken.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    said = configure(tmp_path / "build", without_compilers | {"CXX": str(broken)})
    assert "no C++ compiler found" in said


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("hidden", [True, False])
def test_the_wheel_holds_the_data_and_the_kernels_only_where_they_could_be_built(
    hidden: bool, tmp_path: Path, without_compilers: dict[str, str]
) -> None:
    pytest.importorskip("scikit_build_core")
    source, out = tmp_path / "source", tmp_path / "out"
    kept = (
        subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
        .stdout.decode()
        .split("\0")
    )
    if kept == [""]:
        pytest.skip("not a git checkout")
    for name in filter(None, kept):
        if not name.startswith(("tests/", "examples/")) and (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)
    environment = (
        without_compilers
        if hidden
        else {**os.environ, "PATH": f"{without_compilers['PATH']}{os.pathsep}{os.environ['PATH']}"}
    )
    script = f"import scikit_build_core.build as b; b.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", script], cwd=source, env=environment, check=True, timeout=580)
    (wheel,) = out.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith((".so", ".pyd")) for name in names) == (not hidden)
    assert not any(name.endswith((".cpp", ".hpp")) for name in names)
    wanted = [name for name in kept if name.startswith("mimo_cli/") and not name.startswith("mimo_cli/quant/native/")]
    assert set(wanted) <= set(names)
