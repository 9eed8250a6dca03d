"""`mimo quantize`: make a packed store of a checkpoint, smaller or just faster to load."""

import json
import math
import sys
import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mimo_cli.commands.model_choice import choose_model
from mimo_cli.commands.options import GeneralOptions
from mimo_cli.errors import CapacityError, CheckpointError, UsageError
from mimo_cli.terminal.console import Terminal, is_terminal
from mimo_cli.terminal.progress import Stage
from mimo_cli.units import format_bytes, format_duration

if TYPE_CHECKING:
    from mimo_cli.store.deletion import Deletion
    from mimo_cli.store.manifest import StoreManifest
    from mimo_cli.store.plan import StorePlan
    from mimo_cli.store.verify import TensorError

EXAMPLES = (
    "mimo quantize ~/models/MiMo-V2.5 ~/models/mimo-q4 --dry-run",
    "mimo quantize ~/models/MiMo-V2.5 ~/models/mimo-q4",
    "mimo quantize ~/models/MiMo-V2.5 ~/models/mimo-fp8 --experts fp8 --verify",
)
VERIFY_FILE = "verify.json"


class Experts(StrEnum):
    """Formats of experts."""

    auto = "auto"
    int4 = "int4"
    mxfp4 = "mxfp4"
    fp8 = "fp8"


class Dense(StrEnum):
    """Formats of dense matrices."""

    keep = "keep"
    int8 = "int8"
    int4 = "int4"


class Recipe(StrEnum):
    """Formats of everything under one name."""

    q4 = "q4"
    q8 = "q8"


_RECIPES: dict[Recipe, tuple[Experts, Dense]] = {
    Recipe.q4: (Experts.int4, Dense.int8),
    Recipe.q8: (Experts.fp8, Dense.int8),
}


def quantize(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Folder or name of a released checkpoint.")],
    destination: Annotated[Path, typer.Argument(metavar="DST", help="Folder of the store; new, empty or unfinished.")],
    general: GeneralOptions,
    experts: Annotated[
        Experts, typer.Option("--experts", metavar="F", help="int4, mxfp4, fp8; auto: mxfp4 as released, else int4.")
    ] = Experts.auto,
    group: Annotated[int, typer.Option("--group", metavar="N", help="Columns per int4 scale: 32, 64, 128.")] = 32,
    dense: Annotated[
        Dense, typer.Option("--dense", metavar="F", help="Dense matrices: keep (as released), int8, int4.")
    ] = Dense.keep,
    recipe: Annotated[
        Recipe | None, typer.Option("--recipe", metavar="R", help="q4: int4 + int8 dense; q8: fp8 + int8 dense.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be written, to the byte.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Then compare every tensor; report in DST/verify.json.")
    ] = False,
    delete_source: Annotated[
        bool, typer.Option("--delete-source-shards", help="Delete each shard of SRC once what it became is verified.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", metavar="N", min=1, help="Experts in work at a time.", hidden=True)
    ] = None,
    as_json: Annotated[bool, typer.Option("-j", "--json", help="One JSON object.")] = False,
) -> None:
    """Write a checkpoint as a packed store: experts in 4 bits (or as released), everything else beside them.

    A store is a folder that every command takes with -m, towers and all. Stopped by Ctrl-C, kill or a full disk, the
    same command goes on where it was. Whatever is not kept exactly is printed with its measured error.
    """
    # Not at the head: the plan needs torch, the help of this command does not.
    from mimo_cli.store.convert import finished_manifest
    from mimo_cli.store.deletion import Deletion
    from mimo_cli.store.journal import emptied_shards
    from mimo_cli.store.plan import QuantizeOptions, plan_store

    terminal = general.terminal()
    pending = Deletion.pending(destination)
    if pending is not None and not dry_run:
        facts = _go_on_deleting(terminal, source, destination, pending, may_delete=delete_source, yes=yes)
        if facts is not None:
            terminal.write(json.dumps({"schema": 1, **facts}) + "\n" if as_json else f"{destination}\n")
            return
    if recipe is not None:
        experts, dense = _RECIPES[recipe]
    options = QuantizeOptions(experts.value, group, dense.value)
    plan = plan_store(choose_model(source).folder, options, emptied_shards(destination))
    finished = finished_manifest(plan, destination)
    facts = _facts(plan, destination)
    for line in _announcement(plan, facts):
        if dry_run and not as_json:  # what a dry run is asked for is its answer
            terminal.write(f"{line}\n")
        else:
            terminal.note(f"mimo: {line}")
    if not dry_run:
        if delete_source and not yes:
            _ask(terminal, plan.source, list(plan.index.shard_bytes))
        # Comparing tensors needs the source until the end.
        facts |= _run(terminal, plan, destination, jobs, finished, empty_shards=delete_source and not verify)
        facts |= _check(terminal, plan, destination, finished is not None or verify or delete_source, verify)
        if delete_source:
            facts["deleted"] = _delete_shards(terminal, plan, destination)
    if as_json:
        terminal.write(json.dumps({"schema": 1, **facts}, ensure_ascii=False) + "\n")
    elif not dry_run:
        terminal.write(f"{destination}\n")


def _facts(plan: "StorePlan", destination: Path) -> dict[str, Any]:
    from mimo_cli.store.convert import missing_bytes

    needed_bytes, free_bytes = missing_bytes(plan, destination)
    return {
        "source": str(plan.source),
        "store": str(destination),
        "precision": plan.precision,
        "bits_per_expert_weight": round(plan.records.bits_per_weight, 3) if plan.records else None,
        "source_bytes": plan.contents.size_bytes,
        "total_bytes": plan.total_bytes,
        "missing_bytes": needed_bytes,
        "free_bytes": free_bytes,
        "lossy": [{"part": loss.part, "was": loss.was, "now": loss.now} for loss in plan.losses({})],
        "files": plan.sizes,
    }


def _announcement(plan: "StorePlan", facts: dict[str, Any]) -> list[str]:
    """Say in lines what is made, how large it is, and what is lost."""
    bits = facts["bits_per_expert_weight"]
    experts = f"experts {plan.precision['experts']}" + (f" ({bits:.2f} bits per weight)" if bits else "")
    sizes = f"{format_bytes(plan.contents.size_bytes)} -> {format_bytes(plan.total_bytes)}"
    return [
        f"{experts}, dense matrices {plan.precision['dense']}, the rest as released",
        f"{sizes} ({plan.total_bytes:,} bytes) in {len(plan.sizes)} files",
        f"{format_bytes(facts['missing_bytes'])} to write, {format_bytes(facts['free_bytes'])} free",
        *(f"lossy: {loss['part']}, {loss['was']} -> {loss['now']}" for loss in facts["lossy"]),
        *([] if facts["lossy"] else ["lossy: nothing"]),
    ]


def _run(
    terminal: Terminal,
    plan: "StorePlan",
    destination: Path,
    jobs: int | None,
    finished: "StoreManifest | None",
    *,
    empty_shards: bool,
) -> dict[str, Any]:
    """Convert, unless that is done already; returns the facts of it."""
    from mimo_cli.store.convert import convert, slowness

    if finished is not None:
        terminal.note(f"mimo: `{destination}` is finished already")
        return {"kept_files": list(finished.files), "seconds": 0.0}
    _refuse_full_disk(plan, destination, empty_shards)
    if slowness():
        terminal.warn(f"{slowness()}; codes are chosen with torch, many times slower")
    started_s = time.perf_counter()
    with Stage(terminal, "converting", "bytes") as stage:
        report = convert(plan, destination, jobs=jobs, empty_shards=empty_shards, on_progress=stage.update)
    seconds = time.perf_counter() - started_s
    if report.kept:
        terminal.note(f"mimo: {len(report.kept)} files of an earlier run were verified and kept")
    for name in report.damaged:
        terminal.warn(f"`{name}` of an earlier run had changed and was made again")
    terminal.note(f"mimo: wrote {format_bytes(plan.total_bytes)} in {format_duration(seconds)}")
    rate = None if report.kept else round(plan.contents.size_bytes / max(seconds, 1e-9) / 1e9, 3)
    return {"kept_files": report.kept, "seconds": round(seconds, 3), "source_gbps": rate}


def _check(
    terminal: Terminal, plan: "StorePlan", destination: Path, check_hashes: bool, compare: bool
) -> dict[str, Any]:
    """Say what was lost; read the store again as far as asked for."""
    from mimo_cli.store.manifest import StoreManifest
    from mimo_cli.store.verify import verify_hashes

    manifest = StoreManifest.from_folder(destination)
    facts: dict[str, Any] = {"lossy": [asdict(loss) for loss in manifest.lossy]}
    if check_hashes:
        with Stage(terminal, "verifying", "bytes") as stage:
            verify_hashes(destination, manifest, stage.update)
        facts["hashes"] = "verified"
    for loss in manifest.lossy:
        terminal.note(f"mimo: lossy: {loss}")
    if compare:
        facts["verify"] = _compare(terminal, plan, destination, manifest)
    return facts


def _compare(terminal: Terminal, plan: "StorePlan", destination: Path, manifest: "StoreManifest") -> dict[str, Any]:
    from mimo_cli.store.verify import compare_tensors

    with Stage(terminal, "comparing", "") as stage:
        errors = []
        for error in compare_tensors(plan, destination, manifest):
            errors.append(error)
            stage.update(len(errors))
    wrong = [error for error in errors if error.is_wrong]
    worst = max(errors, key=lambda error: (error.is_wrong, error.relative_error))
    exact = sum(error.relative_error == 0 for error in errors)
    report = {"tensors": [_numbers(error) for error in errors], "exact": exact, "worst": _numbers(worst)}
    (destination / VERIFY_FILE).write_text(json.dumps({"schema": 1, **report}, indent=1) + "\n", "utf-8")
    terminal.note(
        f"mimo: {len(errors)} tensors compared, {exact} exact; largest relative error "
        f"{worst.relative_error:.2%} in {worst.tensor} (all in {destination / VERIFY_FILE})"
    )
    if wrong:
        names = ", ".join(f"`{error.tensor}`" for error in wrong[:5])
        raise CheckpointError(
            f"{len(wrong)} of {len(errors)} tensors of `{destination}` are not what the source says: {names}",
            hint=f"remove the folder `{destination}` and make the store again; nothing of the source was deleted",
        )
    return report


def _numbers(error: "TensorError") -> dict[str, Any]:
    """A tensor's errors for JSON, which has neither infinity nor NaN."""
    values = asdict(error).items()
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values}


def _refuse_full_disk(plan: "StorePlan", destination: Path, empty_shards: bool) -> None:
    from mimo_cli.store.convert import missing_bytes
    from mimo_cli.store.emptying import peak_bytes
    from mimo_cli.store.journal import emptied_shards

    needed_bytes, free_bytes = missing_bytes(plan, destination)
    place = next(path for path in (destination, *destination.absolute().parents) if path.exists())
    if empty_shards and place.stat().st_dev == plan.source.stat().st_dev:
        done = {name: True for name in plan.sizes if (destination / name).is_file()}
        needed_bytes = peak_bytes(plan, done, emptied_shards(destination))
    if needed_bytes > free_bytes:
        raise CapacityError(
            f"the store needs {format_bytes(needed_bytes)} more in `{destination}`, "
            f"{format_bytes(free_bytes)} are free",
            hint="make room, name a folder on another disk, or choose --experts int4 --group 128",
        )


def _ask(terminal: Terminal, source: Path, shards: list[Path]) -> None:
    size = format_bytes(sum(path.stat().st_size for path in shards if path.is_file()))
    question = f"delete {len(shards)} shards ({size}) of {source} after the conversion? [y/N] "
    if not is_terminal(sys.stdin):
        raise UsageError("--delete-source-shards asks before it deletes, and there is no terminal", hint="add --yes")
    terminal.line(question)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was done", hint="leave --delete-source-shards out to keep the source")


def _delete_shards(terminal: Terminal, plan: "StorePlan", destination: Path) -> list[str]:
    from mimo_cli.store.deletion import deletion_of

    deletion = deletion_of(plan.source, plan.index.shard_bytes)
    deletion.write(destination)
    deleted = deletion.finish(destination)
    terminal.note(f"mimo: deleted {len(deleted)} shards of {plan.source}")
    return deleted


def _go_on_deleting(
    terminal: Terminal, source: str, destination: Path, pending: "Deletion", *, may_delete: bool, yes: bool
) -> dict[str, Any] | None:
    """Finish what an earlier run began to delete; returns the facts of it, None where the source is another one.

    The source may be no checkpoint any more: nothing is planned from it.
    """
    from mimo_cli.store.manifest import StoreManifest
    from mimo_cli.store.verify import verify_hashes

    folder = choose_model(source).folder
    if folder.resolve() != pending.source:
        return None
    if not may_delete:
        raise UsageError(
            f"`{destination}` is finished, and shards of `{folder}` are half deleted",
            hint="the same command with --delete-source-shards deletes the rest",
        )
    if not yes:
        _ask(terminal, folder, [folder / name for name in pending.shards])
    with Stage(terminal, "verifying", "bytes") as stage:
        verify_hashes(destination, StoreManifest.from_folder(destination), stage.update)
    deleted = pending.finish(destination)
    terminal.note(f"mimo: `{destination}` is finished; deleted {len(deleted)} shards of {folder}")
    return {"source": source, "store": str(destination), "hashes": "verified", "deleted": deleted}
