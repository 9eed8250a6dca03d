"""Small questions for tests of the evaluation, and a folder of them as files."""

import io
import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import soundfile

from mimo_cli.evaluation.item import Item
from tests.support.media_files import encode_picture, smooth_picture

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tell the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}


def item(question: str = "How many?", **changes: Any) -> Item:
    """Return a question in text, answered "two" unless told otherwise."""
    values = {"id": "one", "task": "text", "kind": "sum", "answers": ("two",), **changes}
    return Item(messages=({"role": "user", "content": question},), **values)


def ogg() -> bytes:
    """Return half a second of quiet noise."""
    samples = np.random.default_rng(0).standard_normal(8000) * 0.01
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, format="OGG", subtype="VORBIS")
    return file.getvalue()


def write_items(folder: Path, task: str, lines: list[dict[str, Any]], media: dict[str, bytes] | None = None) -> None:
    """Write `TASK.jsonl` and, where there are media, `TASK.zip`."""
    text = "".join(json.dumps({"id": f"{task}-{i}", **line}) + "\n" for i, line in enumerate(lines))
    (folder / f"{task}.jsonl").write_text(text)
    if media:
        with ZipFile(folder / f"{task}.zip", "w") as archive:
            for name, content in media.items():
                archive.writestr(name, content)


def asked(text: str, *media: tuple[str, str]) -> list[dict[str, Any]]:
    """Return one user message with media, (kind, path) pairs, before its text."""
    parts = [{"type": kind, "path": path} for kind, path in media]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def small_folder(folder: Path) -> Path:
    """Write two pictures, three recordings (one in noise), two questions in text and one for a tool."""
    picture = encode_picture(smooth_picture(), ".png")
    questions = [asked("What colour?", ("image", f"{i}.png")) for i in (0, 1)]
    colours = [{"kind": "colour", "messages": question, "answers": ["red"]} for question in questions]
    write_items(folder, "pictures", colours, {"0.png": picture, "1.png": picture})
    phrase = {"messages": asked("Write it down", ("audio", "a.ogg")), "answers": ["go left"], "scoring": "words"}
    phrases = [{"group": group, **phrase} for group in ("", "", "noise")]
    write_items(folder, "speech", phrases, {"a.ogg": ogg()})
    write_items(
        folder,
        "text",
        [
            {"kind": "sum", "messages": asked("1 + 1?"), "answers": ["2", "two"]},
            {"kind": "copy", "messages": asked("Say: go left"), "answers": ["go left"]},
        ],
    )
    call = {"name": "weather", "arguments": {"city": "Rome", "days": 2}}
    write_items(folder, "tools", [{"messages": asked("Rome, two days?"), "tools": [WEATHER], "tool_calls": [call]}])
    return folder
