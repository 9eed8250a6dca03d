"""`mimo doctor`: each line ok, warn or fail with the fix, for machines that are made up."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mimo_cli.commands.doctor import disk_of
from mimo_cli.engine.cgroup import MemoryGroup
from mimo_cli.engine.disk_probe import DiskRate
from mimo_cli.engine.health import check_machine
from mimo_cli.engine.machine_facts import Disk, MachineFacts
from mimo_cli.miniature.bundled import bundled_path
from tests.support.cli import Run, run_cli

GOOD = MachineFacts(
    system="Linux",
    python=(3, 12, 1),
    cpu="Some CPU",
    cpu_flags=frozenset({"avx2", "avx512f", "avx512_vnni"}),
    isa="avx512",
    missing_kernels=None,
    threads=8,
    memory_bytes=64_000_000_000,
    available_bytes=60_000_000_000,
    swap_used_bytes=0,
    group=None,
    huge_pages="madvise",
    memlock_bytes=None,
    open_files=1024,
    disks=(Disk(Path("/models"), 10**12, "NVMe", DiskRate(5.0, 10**9, True, 0.01)),),
    versions={"mimo-cli": "1", "torch": "2"},
    tools=frozenset({"g++"}),
)


@pytest.fixture
def doctor(tmp_path: Path) -> Callable[..., Run]:
    """Run `mimo doctor` on a machine of one's choice."""

    def run(facts: MachineFacts, *argv: str) -> Run:
        return run_cli("doctor", *argv, home=tmp_path, engine__machine_facts__gather_facts=lambda *_, **__: facts)

    return run


def lines(run: Run) -> dict[str, str]:
    """The status of each line by what it is about."""
    checks = json.loads(run.out)["checks"]
    return {check["what"]: check["status"] for check in checks}


def test_a_good_machine_is_ok_throughout(doctor: Callable[..., Run]) -> None:
    run = doctor(GOOD, "--json")
    assert run.code == 0 and set(lines(run).values()) == {"ok"}
    assert all(not check["fix"] for check in json.loads(run.out)["checks"] if check["what"] != "huggingface-hub")


WARNINGS: list[tuple[dict[str, Any], str, str]] = [
    ({"isa": None, "missing_kernels": "the native kernels were not built (x)"}, "native kernels", "pip install ."),
    ({"isa": None, "missing_kernels": "MIMO_ISA is `none`"}, "native kernels", "unset MIMO_ISA"),
    ({"cpu_flags": frozenset({"sse2"})}, "processor", "AVX2"),
    ({"available_bytes": 6 * 10**9}, "memory", "close other programs"),
    ({"group": MemoryGroup(4 * 10**9, 10**9, 0, 1)}, "memory limit", "--memory 16g"),
    ({"swap_used_bytes": 3 * 10**9}, "swap", "--ram"),
    ({"huge_pages": "never"}, "huge pages", "madvise"),
    ({"open_files": 64}, "open files", "ulimit -n"),
    ({"disks": (Disk(Path("/d"), 1, "hard disk", DiskRate(0.1, 1, True, 0.1)),)}, "disk of /d", "NVMe"),
    ({"disks": (Disk(Path("/d"), 1, "SSD", DiskRate(2.0, 1, False, 0.1)),)}, "disk of /d", "O_DIRECT"),
    ({"disks": (Disk(Path("/d"), 1, "SSD", None, "no room"),)}, "disk of /d", "-m"),
    ({"is_wsl": True}, "Windows subsystem for Linux", "/mnt"),
]


@pytest.mark.parametrize(("change", "what", "fix"), WARNINGS)
def test_what_makes_it_slow_is_a_warning_with_the_fix(
    doctor: Callable[..., Run], change: dict[str, Any], what: str, fix: str
) -> None:
    run = doctor(replace(GOOD, **change), "--json")
    found = {check["what"]: check for check in json.loads(run.out)["checks"]}
    assert run.code == 0 and found[what]["status"] == "warn" and fix in found[what]["fix"]


def test_without_a_compiler_the_fix_begins_with_one(doctor: Callable[..., Run]) -> None:
    facts = replace(GOOD, isa=None, missing_kernels="the native kernels were not built (x)", tools=frozenset())
    checks = {check["what"]: check for check in json.loads(doctor(facts, "--json").out)["checks"]}
    assert checks["native kernels"]["fix"].startswith("install a C++ compiler")
    assert checks["C++ compiler"]["status"] == "warn"


@pytest.mark.parametrize("change", [{"python": (3, 9, 0)}, {"versions": {"torch": None}}])
def test_what_cannot_work_fails_with_exit_code_1(doctor: Callable[..., Run], change: dict[str, Any]) -> None:
    run = doctor(replace(GOOD, **change), "--json")
    assert run.code == 1 and json.loads(run.out)["failed"] == 1


def test_people_get_a_line_for_each_with_its_fix_below(doctor: Callable[..., Run]) -> None:
    out = doctor(replace(GOOD, huge_pages="never")).out
    assert "ok    Python: 3.12.1, Linux\n" in out
    assert "warn  huge pages: never; reading weights is slower\n      echo madvise | sudo tee" in out


def test_this_machine_can_be_looked_at(tmp_path: Path) -> None:
    run = run_cli("doctor", "--json", home=tmp_path, engine__machine_facts__EXPERT_BYTES=1 << 16)
    assert run.code == 0, run.out
    assert {"Python", "packages", "native kernels", "memory", "huge pages", "open files"} <= lines(run).keys()
    assert not list(tmp_path.rglob(".mimo-probe*"))


def test_a_card_is_named_and_said_to_be_untested() -> None:
    checks = {check.what: check for check in check_machine(replace(GOOD, cards=("NVIDIA H200", "NVIDIA H200")))}
    card = checks["graphics card"]
    assert card.status == "warn" and "NVIDIA H200, NVIDIA H200: untested" in card.found
    assert card.fix is not None and "--device cuda" in card.fix
    assert {check.what: check.status for check in check_machine(GOOD)}["graphics card"] == "ok"


def test_the_disks_of_models_and_of_caches_are_read_each_once(tmp_path: Path) -> None:
    asked: list[list[Path]] = []

    def gather(folders: list[Path]) -> MachineFacts:
        asked.append(folders)
        return GOOD

    model, caches = bundled_path(), tmp_path / ".cache/mimo"
    for disks in ({model: 1, caches: 2}, {model: 1, caches: 1}):
        run_cli(
            "doctor",
            *("-m", str(model)),
            home=tmp_path,
            engine__machine_facts__gather_facts=gather,
            commands__doctor__disk_of=disks.get,
        )
    run_cli("doctor", home=tmp_path, engine__machine_facts__gather_facts=gather)
    assert asked == [[model, caches], [model], [caches]]
    assert disk_of(tmp_path / "not" / "yet") == tmp_path.stat().st_dev
