"""Saved conversations: a readable JSONL file, one message a line after a first line that says what it is.

    {"mimo_chat": 1, "tokenizer": "9f...", "tools": null}
    {"role": "user", "content": [{"type": "image", "path": "/home/ada/cat.png"}, {"type": "text", "text": "?"}]}
    {"role": "assistant", "content": [...], "reasoning": "...", "ids": [...], "thinking": true}

Media are saved as paths, those that came as bytes as base64. Ids of answers are used again only with the tokenizer that
made them.
"""

import base64
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mimo_cli.chat.conversation import Conversation
from mimo_cli.chat.messages import Generated, MediaPart, Message, Part, TextPart, ToolCall
from mimo_cli.chat.named_files import write_error
from mimo_cli.chat.openai_messages import OpenMedia
from mimo_cli.chat.tokenizer import Tokenizer
from mimo_cli.errors import UsageError

VERSION = 1


def save_conversation(path: Path, conversation: Conversation, tokenizer: Tokenizer) -> None:
    """Write a conversation; the file appears whole or not at all, readable by its owner only.

    Raises MimoError naming a file that cannot be written, UsageError for a medium that came from nowhere.
    """
    head = {"mimo_chat": VERSION, "tokenizer": tokenizer.sha256, "tools": conversation.tools}
    lines = [json.dumps(line, ensure_ascii=False) for line in (head, *map(_line, conversation.messages))]
    text = ("\n".join(lines) + "\n").encode("utf-8", "replace")
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
        partial.replace(path)
    except OSError as err:
        raise write_error(path, err) from err
    finally:
        with suppress(OSError):  # what is wrong with the folder was said already
            partial.unlink(missing_ok=True)


def load_conversation(path: Path, open_media: OpenMedia, tokenizer: Tokenizer) -> Conversation:
    """Read a conversation back; ids are dropped where another tokenizer made them.

    Raises UsageError naming the line, MediaError where a medium is gone.
    """
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"`{path}` cannot be read as a saved conversation: {err}") from err
    values = [_json(line, f"`{path}` line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    head = values[0] if values else {}
    if head.get("mimo_chat") != VERSION:
        raise UsageError(f"`{path}` is no conversation saved by mimo (version {VERSION})")
    ids_of = tokenizer if head.get("tokenizer") == tokenizer.sha256 else None
    messages = []
    for number, value in enumerate(values[1:], 2):
        try:
            messages.append(_message(value, open_media, ids_of))
        except (KeyError, TypeError, ValueError) as err:
            raise UsageError(f"`{path}` line {number} is damaged: {type(err).__name__}: {err}") from err
    return Conversation(messages, head.get("tools"))


def _json(line: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as err:
        raise UsageError(f"{where} is not JSON: {err}") from err
    if not isinstance(value, dict):
        raise UsageError(f"{where} is not an object")
    return value


def _line(message: Message) -> dict[str, Any]:
    line: dict[str, Any] = {"role": message.role, "content": [_part_value(part) for part in message.parts]}
    calls = [{"name": call.name, "arguments": dict(call.arguments), "id": call.id} for call in message.tool_calls]
    optional = {
        "reasoning": message.reasoning,
        "tool_calls": calls or None,
        "tool_call_id": message.tool_call_id,
        "name": message.name,
    }
    line |= {key: value for key, value in optional.items() if value is not None}
    if message.generated is not None:
        line |= {"ids": list(message.generated.ids), "thinking": message.generated.thinking}
    return line


def _part_value(part: Part) -> dict[str, Any]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    if isinstance(part.origin, bytes):
        return {"type": part.kind, "base64": base64.b64encode(part.origin).decode("ascii")}
    if part.origin is None:
        raise UsageError(f"`{part.media.source}` cannot be saved: where it came from is not known")
    return {"type": part.kind, "path": str(part.origin.resolve())}


def _message(value: Mapping[str, Any], open_media: OpenMedia, ids_of: Tokenizer | None) -> Message:
    if value["role"] not in ("system", "user", "assistant", "tool"):
        raise ValueError(f"unknown role {value['role']!r}")
    generated = None
    if ids_of is not None and "ids" in value:
        generated = Generated(tuple(value["ids"]), bool(value["thinking"]))
        if not all(isinstance(token_id, int) and ids_of.knows(token_id) for token_id in generated.ids):
            raise ValueError("an id is not in the vocabulary")
    return Message(
        value["role"],
        tuple(_part(part, open_media) for part in value["content"]),
        reasoning=value.get("reasoning"),
        tool_calls=tuple(ToolCall(c["name"], c["arguments"], c.get("id")) for c in value.get("tool_calls") or ()),
        tool_call_id=value.get("tool_call_id"),
        name=value.get("name"),
        generated=generated,
    )


def _part(value: Mapping[str, Any], open_media: OpenMedia) -> TextPart | MediaPart:
    if value["type"] == "text":
        return TextPart(str(value["text"]))
    if value["type"] not in ("image", "video", "audio"):
        raise ValueError(f"unknown part {value['type']!r}")
    if "base64" in value:
        return open_media(base64.b64decode(value["base64"], validate=True), value["type"])
    return open_media(Path(value["path"]), value["type"])
