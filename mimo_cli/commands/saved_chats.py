"""Where dialogues are saved by themselves, and how one is found again. Files are private to the user."""

import difflib
import time
from pathlib import Path

from mimo_cli.chat.named_files import user_path
from mimo_cli.errors import UsageError
from mimo_cli.settings import state_folder

_SUFFIX = ".jsonl"


def chats_folder() -> Path:
    """Return the folder of saved dialogues, existing or not."""
    return state_folder() / "chats"


def new_chat_path() -> Path:
    """Return a name for a new dialogue, from the time of day; creates the folder."""
    folder = chats_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    stem = time.strftime("%Y-%m-%d-%H%M%S")
    path, number = folder / f"{stem}{_SUFFIX}", 2
    while path.exists():
        path, number = folder / f"{stem}-{number}{_SUFFIX}", number + 1
    return path


def saved_chats() -> list[Path]:
    """Return all saved dialogues, the latest first."""
    return sorted(chats_folder().glob(f"*{_SUFFIX}"), key=lambda path: (path.stat().st_mtime, path.name), reverse=True)


def find_chat(name: str | None) -> Path:
    """Find a dialogue by name or path; None is the latest. Raises UsageError that says which there are."""
    chats = saved_chats()
    if name is None:
        if not chats:
            raise UsageError(f"there is no saved dialogue in `{chats_folder()}`", hint="mimo chat")
        return chats[0]
    for path in (chats_folder() / f"{name.removesuffix(_SUFFIX)}{_SUFFIX}", user_path(name)):
        if path.is_file():
            return path
    known = [path.stem for path in chats]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.3) or known[:1]
    raise UsageError(f"there is no saved dialogue `{name}`", hint=f"mimo chat --resume {near[0]}" if near else None)
