"""`mimo doctor`: what this machine offers a model, and what to mend. Facts and judgement are engine's."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mimo_cli.commands.model_choice import choose_model
from mimo_cli.commands.options import GeneralOptions
from mimo_cli.errors import MimoError
from mimo_cli.settings import cache_folder, models_folder
from mimo_cli.terminal.console import Terminal

if TYPE_CHECKING:
    from mimo_cli.engine.health import Check

EXAMPLES = ("mimo doctor", "mimo doctor -m ~/models/MiMo-V2.5", "mimo doctor --json")


def doctor(
    general: GeneralOptions,
    model: Annotated[
        str | None, typer.Option("-m", "--model", metavar="MODEL", help="Look at the disk of this model, too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("-j", "--json", help="One JSON object.")] = False,
) -> int:
    """Check this machine: processor and kernels, memory and limits, disks at expert size, versions.

    Each line is ok, warn or fail, with the fix. The disks of the model (with -m) and of the caches are read for a
    moment; a folder without large files gets one of 130 MB that is deleted again. Exits with 1 where something fails.
    """
    terminal = general.terminal()
    terminal.status("looking at the machine")
    checks = _checks(_folders(model))
    terminal.clear_status()
    failed = sum(check.status == "fail" for check in checks)
    if as_json:
        report = {"schema": 1, "failed": failed, "checks": [asdict(check) for check in checks]}
        terminal.write(json.dumps(report, ensure_ascii=False) + "\n")
    else:
        _write(terminal, checks)
    return MimoError.exit_code if failed else 0


def _folders(model: str | None) -> list[Path]:
    """Return the folders whose disks are read: that of the model or of all models, and that of the caches."""
    models, caches = models_folder() if model is None else choose_model(model).folder, cache_folder()
    if not models.is_dir():
        return [caches]
    return [models] if disk_of(models) == disk_of(caches) else [models, caches]


def disk_of(folder: Path) -> int:
    """Return the number of the disk that a folder lies on, or will when it is made: one disk is read once."""
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder.stat().st_dev


def _checks(folders: list[Path]) -> "list[Check]":
    from mimo_cli.engine.health import check_machine
    from mimo_cli.engine.machine_facts import gather_facts

    return check_machine(gather_facts(folders))


def _write(terminal: Terminal, checks: "list[Check]") -> None:
    for check in checks:
        terminal.write(f"{check.status:<4}  {check.what}: {check.found}\n")
        if check.fix:
            terminal.write(f"      {check.fix}\n")
