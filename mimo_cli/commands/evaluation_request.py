"""What `mimo eval` is asked to do, checked before any model is loaded."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from mimo_cli.commands.model_choice import ModelChoice
from mimo_cli.commands.options import ModelOptions
from mimo_cli.errors import UsageError
from mimo_cli.evaluation.bundled import TASKS, items_folder
from mimo_cli.evaluation.item import Item, read_items
from mimo_cli.evaluation.needle import TASK as NEEDLE

Output: TypeAlias = Literal["table", "json", "jsonl"]


@dataclass(frozen=True)
class EvalRequest:
    """One run. `items` are those asked from files, by task, `read` those whose right answers are read.

    `text` is the name and content of a file of one's own.
    """

    choice: ModelChoice
    against: ModelChoice | None
    model: ModelOptions
    tasks: tuple[str, ...]
    items: dict[str, list[Item]]
    read: dict[str, list[Item]]
    limit: int | None
    text: tuple[str, str] | None
    output: Output


def choose_tasks(text: str | None, folder: Path | None = None) -> tuple[str, ...]:
    """Read `pictures,words`, `none` or nothing (all tasks there are); raises UsageError for an unknown task.

    A folder of one's own has the tasks its files are named after.
    """
    if folder is not None:
        read_items(folder, ())  # which says so where it is no folder of items
    known = TASKS if folder is None else (*sorted(path.stem for path in folder.glob("*.jsonl")), NEEDLE)
    if text is None or text.strip() == "all":
        return known if folder is None else known[:-1]
    if text.strip() == "none":
        return ()
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1) or [", ".join(known)]
            raise UsageError(f"there is no task `{name}`", hint=f"--tasks {near[0]}")
    if not names:
        raise UsageError("--tasks names no task", hint=f"--tasks {','.join(known)}, or none")
    return tuple(dict.fromkeys(names))


def items_by_task(
    tasks: Collection[str], folder: Path | None = None, limit: int | None = None
) -> dict[str, list[Item]]:
    """Return the items of every task that is asked from files; `limit` holds for each group of a task."""
    wanted = [task for task in tasks if task != NEEDLE]
    items = read_items(folder or items_folder(), wanted) if wanted else []
    found: dict[str, list[Item]] = {task: [] for task in wanted}
    for item in items:
        found.setdefault(item.task, []).append(item)
    return {task: first_of_groups(of_task, limit) for task, of_task in found.items()}


def first_of_groups(items: Sequence[Item], limit: int | None) -> list[Item]:
    """Return at most `limit` items of each group, in their order."""
    taken: dict[str, int] = {}
    kept = []
    for item in items:
        taken[item.group] = taken.get(item.group, 0) + 1
        if limit is None or taken[item.group] <= limit:
            kept.append(item)
    return kept
