"""Item: one question with what is right, and folders of items: JSON lines beside the media they name.

A folder holds `TASK.jsonl` files and media, each either a file of the folder or a member of `TASK.zip`. The format is
described in docs/evaluation.md.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, zip_longest
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias, get_args
from zipfile import BadZipFile, ZipFile

from mimo_cli.chat.attachments import Kind, MediaOpener
from mimo_cli.chat.messages import MediaPart, Message, ToolCall
from mimo_cli.chat.openai_messages import read_messages
from mimo_cli.errors import MimoError, UsageError

Scoring: TypeAlias = Literal["exact", "words", "tool_calls"]
_FIELDS = {"id", "task", "kind", "group", "messages", "tools", "answers", "tool_calls", "scoring", "thinking"}


@dataclass(frozen=True)
class ItemFiles:
    """Where an item's media are: a folder, and the archive of its task."""

    folder: Path
    task: str

    def read(self, name: str) -> bytes | Path:
        """Return a medium: its bytes out of the archive, or its path. Raises UsageError where it is neither."""
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts:
            raise UsageError(f"`{name}` is outside of `{self.folder}`", hint="name media relative to the items' folder")
        if (self.folder / place).is_file():
            return self.folder / place
        archive = self._archive
        if archive is None or str(place) not in archive.NameToInfo:
            raise UsageError(f"`{name}` is neither in `{self.folder}` nor in {self.task}.zip")
        return archive.read(str(place))

    @cached_property
    def _archive(self) -> ZipFile | None:
        path = self.folder / f"{self.task}.zip"
        try:
            return ZipFile(path) if path.is_file() else None
        except (OSError, BadZipFile) as err:
            raise UsageError(f"`{path}` cannot be read: {err}") from err


@dataclass(frozen=True)
class Item:
    """One question. `messages` have OpenAI's shape; media are named by `path` (in `files`) or given as bytes (`data`).

    task, kind, group   tasks are reported apart; kinds are kinds of question in a task; a named group (other voices,
                        noise, free words) is reported beside the task's main figure, which is that of group ""
    answers             each of them is right; the first is what a model is made to read where answers are forced on it
    tool_calls          what is right where scoring is "tool_calls"
    """

    id: str
    task: str
    kind: str
    messages: tuple[Mapping[str, Any], ...]
    answers: tuple[str, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    group: str = ""
    scoring: Scoring = "exact"
    thinking: bool = False
    files: ItemFiles | None = field(default=None, compare=False, repr=False)

    @property
    def senses(self) -> frozenset[str]:
        """Which kinds of media the question holds: image, audio, video."""
        parts = chain.from_iterable(m["content"] for m in self.messages if isinstance(m.get("content"), (list, tuple)))
        return frozenset(str(part.get("type")) for part in parts if isinstance(part, Mapping)) & {*get_args(Kind)}

    def read(self, opener: MediaOpener) -> list[Message]:
        """Open the media and return the messages. Raises UsageError and MediaError."""

        def open_media(reference: str | Path | bytes, kind: Kind | None = None) -> MediaPart:
            if isinstance(reference, str) and self.files is not None:
                return opener.open(self.files.read(reference), kind, name=reference)
            return opener.open(reference, kind)

        return read_messages(self.messages, open_media)


def read_item(value: Any, where: str, files: ItemFiles | None = None) -> Item:
    """Return the item that one JSON object describes; raises UsageError naming `where` for anything wrong."""
    if not isinstance(value, Mapping):
        raise UsageError(f"{where} is not an object")
    unknown = sorted(value.keys() - _FIELDS)
    if unknown:
        raise UsageError(f"{where}: unknown field `{unknown[0]}`", hint=f"fields are {', '.join(sorted(_FIELDS))}")
    names = {key: value.get(key, "") for key in ("id", "task", "kind", "group")}
    for key, name in names.items():
        if not isinstance(name, str) or (not name and key in ("id", "task")):
            raise UsageError(f"{where}: `{key}` must be a text, found {name!r}")
    calls = tuple(_call(call, where) for call in _list(value, "tool_calls", where))
    scoring = value.get("scoring", "tool_calls" if calls else "exact")
    if scoring not in get_args(Scoring):
        raise UsageError(f"{where}: scoring {scoring!r} is none of {', '.join(get_args(Scoring))}")
    answers = tuple(_list(value, "answers", where))
    if not all(isinstance(answer, str) for answer in answers) or not (calls if scoring == "tool_calls" else answers):
        raise UsageError(f"{where}: an item needs `answers` (texts), or `tool_calls` where they are scored")
    messages = tuple(_list(value, "messages", where))
    if not messages or not all(isinstance(message, Mapping) for message in messages):
        raise UsageError(f"{where}: `messages` must be a list of objects")
    tools = tuple(_list(value, "tools", where))
    thinking = value.get("thinking") is True
    return Item(
        **names,
        messages=messages,
        answers=answers,
        tool_calls=calls,
        tools=tools,
        scoring=scoring,
        thinking=thinking,
        files=files,
    )


def _list(value: Mapping[str, Any], key: str, where: str) -> list[Any]:
    found = value.get(key, [])
    if not isinstance(found, list):
        raise UsageError(f"{where}: `{key}` must be a list, found {type(found).__name__}")
    return found


def _call(value: Any, where: str) -> ToolCall:
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise UsageError(f"{where}: a tool call has a `name` and `arguments`")
    arguments = value.get("arguments", {})
    if not isinstance(arguments, Mapping):
        raise UsageError(f"{where}: the arguments of a tool call are an object")
    return ToolCall(value["name"], arguments)


def read_items(folder: Path, tasks: Collection[str] | None = None) -> list[Item]:
    """Return the items of a folder, of some tasks or of all, in an order of which every beginning is balanced.

    Raises UsageError where a line is no item or the folder holds none.
    """
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise UsageError(f"`{folder}` holds no items: no file *.jsonl", hint="name a folder as in docs/evaluation.md")
    items: list[Item] = []
    for path in paths:
        if tasks is None or path.stem in tasks:
            items += balanced(_read_file(path))
    return items


def _read_file(path: Path) -> list[Item]:
    files = ItemFiles(path.parent, path.stem)
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as err:
        raise MimoError(f"`{path}` cannot be read: {err}") from err
    items = []
    for number, line in enumerate(lines, 1):
        where = f"`{path}` line {number}"
        try:
            value = json.loads(line) if line.strip() else None
        except ValueError as err:
            raise UsageError(f"{where} is no JSON: {err}") from None
        if value is not None:
            value = {"task": path.stem, **value} if isinstance(value, Mapping) else value
            items.append(read_item(value, where, files))
    return items


def balanced(items: Collection[Item]) -> list[Item]:
    """Return items of one task with groups and kinds taking turns, so that a beginning stands for the whole."""
    kinds: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        kinds.setdefault((item.group, item.kind), []).append(item)
    turns: Iterator[tuple[Item | None, ...]] = zip_longest(*kinds.values())
    return [item for turn in turns for item in turn if item is not None]
