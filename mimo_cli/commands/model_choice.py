"""Which model a command runs: a folder, a name under the models folder, an id in the hub cache, or the miniature.

Nothing is ever downloaded here.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path

from mimo_cli.chat.named_files import user_path
from mimo_cli.errors import CheckpointError
from mimo_cli.miniature.bundled import bundled_path, is_miniature
from mimo_cli.settings import hub_cache_folder, models_folder

CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class ModelChoice:
    """The folder of a model, the name to call it, and what must be said about it (None for a real model)."""

    folder: Path
    name: str
    notice: str | None


def choose_model(name: str | None) -> ModelChoice:
    """Find a model by folder or name; None is the bundled miniature. Raises CheckpointError saying where it looked."""
    if not name:
        return _choice(bundled_path(), "the bundled miniature")
    given = user_path(name)
    if given.is_dir():
        return _choice(given, given.resolve().name)
    if given.is_file():
        raise CheckpointError(
            f"`{name}` is a file, a model is a folder that holds {CONFIG_FILE} and safetensors",
            hint=f"-m {given.parent}",
        )
    candidates = [models_folder() / name, *_hub_snapshots(name)]
    for folder in candidates:
        if folder.is_dir():
            return _choice(folder, name)
    raise CheckpointError(f"model `{name}` is neither a folder nor a name under `{models_folder()}`", hint=_hint(name))


def _choice(folder: Path, name: str) -> ModelChoice:
    if not (folder / CONFIG_FILE).is_file():
        nested = sorted(path.parent for path in folder.glob(f"*/{CONFIG_FILE}")) if folder.is_dir() else []
        hint = f"-m {nested[0]}" if len(nested) == 1 else f"name the folder that holds {CONFIG_FILE} with -m"
        raise CheckpointError(f"`{folder}` holds no {CONFIG_FILE}, so it is no model", hint=hint)
    return ModelChoice(folder, name, is_miniature(folder))


def _hub_snapshots(name: str) -> list[Path]:
    """Return the snapshot folder of an id such as XiaomiMiMo/MiMo-V2.5 in the hub cache, the one `main` names first."""
    if name.count("/") != 1:
        return []
    repository = hub_cache_folder() / f"models--{name.replace('/', '--')}"
    main = repository / "refs" / "main"
    try:
        wanted = [repository / "snapshots" / main.read_text("utf-8").strip()]
    except OSError:
        wanted = []
    others = sorted((repository / "snapshots").glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
    return [*wanted, *others]


def _hint(name: str) -> str:
    known = sorted(path.name for path in models_folder().glob("*") if path.is_dir())
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"-m {near[0]}"
    return f"-m with one of: {', '.join(known)}" if known else "-m DIR with the folder of a downloaded model"
