"""Messages in OpenAI's shape, as dicts, to Message objects; media are opened by whoever the caller hands in.

Beside OpenAI's parts it reads local ones, `{"type": "image", "path": "cat.png"}`. Nothing is dropped in silence.
Source: chat specification, section 10.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from mimo_cli.chat.attachments import Kind, decode_base64
from mimo_cli.chat.messages import (
    AudioPart,
    ImagePart,
    MediaPart,
    Message,
    Part,
    Role,
    TextPart,
    ToolCall,
    VideoPart,
)
from mimo_cli.chat.reasoning import THINK_END, THINK_START
from mimo_cli.chat.template_input import decode_arguments
from mimo_cli.errors import UsageError

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_KINDS: tuple[Kind, ...] = ("image", "audio", "video")
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")


class OpenMedia(Protocol):
    """Opens a path, an address or bytes as a kind of medium; `MediaOpener.open` is one."""

    def __call__(self, reference: str | Path | bytes, kind: Kind | None = None) -> MediaPart:
        """Return the opened medium or raise UsageError."""
        ...


def read_messages(values: Sequence[Mapping[str, Any] | Message], open_media: OpenMedia) -> list[Message]:
    """Return messages; tool results come out in the order of the calls they answer, as the template needs them.

    Raises UsageError naming the message: unknown roles and parts, results for calls that were not made, calls without
    a result, arguments that are no object.
    """
    if isinstance(values, (str, bytes, Mapping)) or not values:
        raise UsageError("messages must be a list of at least one message")
    messages = [
        value if isinstance(value, Message) else _message(value, f"message {number}", open_media)
        for number, value in enumerate(values, 1)
    ]
    return _with_sorted_results(messages)


def split_inline_reasoning(content: str) -> tuple[str | None, str]:
    """Take reasoning out of an answer that holds it inline, as the template does; (None, content) if there is none."""
    if THINK_END not in content:
        return None, content
    reasoning = content.split(THINK_END)[0].split(THINK_START)[-1]
    return reasoning, content.split(THINK_END)[-1]


def _message(value: Any, where: str, open_media: OpenMedia) -> Message:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where} is not an object with a role")
    role = _ROLES.get(str(value.get("role")))
    if role is None:
        raise UsageError(f"{where}: unknown role {value.get('role')!r}", hint=f"one of {', '.join(_ROLES)}")
    message = Message(
        role,
        _parts(value.get("content"), where, open_media),
        tool_call_id=_optional_text(value, "tool_call_id", where),
        name=_optional_text(value, "name", where),
    )
    return _assistant(message, value, where) if role == "assistant" else message


def _optional_text(value: Mapping[str, Any], key: str, where: str) -> str | None:
    text = value.get(key)
    if text is not None and not isinstance(text, str):
        raise UsageError(f"{where}: `{key}` must be a string, found {type(text).__name__}")
    return text


def _assistant(message: Message, value: Mapping[str, Any], where: str) -> Message:
    reasoning = next((value[key] for key in _REASONING_KEYS if isinstance(value.get(key), str)), None)
    if reasoning is None and not message.media:
        reasoning, content = split_inline_reasoning(message.text)
        message = replace(message, parts=(TextPart(content),) if content else ())
    calls = tuple(_call(call, where) for call in value.get("tool_calls") or ())
    return replace(message, reasoning=reasoning, tool_calls=calls)


def _call(value: Any, where: str) -> ToolCall:
    function = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UsageError(f"{where}: a tool call is not a function with a name")
    arguments = function.get("arguments")
    return ToolCall(
        function["name"],
        decode_arguments({} if arguments is None else arguments, where),
        _optional_text(value, "id", where),
    )


def _parts(content: Any, where: str, open_media: OpenMedia) -> tuple[Part, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextPart(content),) if content else ()
    if not isinstance(content, (list, tuple)):
        raise UsageError(f"{where}: content must be a string or a list of parts, found {type(content).__name__}")
    return tuple(_part(part, where, open_media) for part in content)


def _part(part: Any, where: str, open_media: OpenMedia) -> Part:
    if isinstance(part, (TextPart, ImagePart, VideoPart, AudioPart)):
        return part
    if isinstance(part, str):
        return TextPart(part)
    if not isinstance(part, Mapping):
        raise UsageError(f"{where}: a content part must be an object, found {type(part).__name__}")
    if part.get("type") == "input_audio" or "input_audio" in part:
        return open_media(_input_audio(part.get("input_audio"), where), "audio")
    for kind in _KINDS:
        if part.get("type") in (kind, f"{kind}_url") or kind in part or f"{kind}_url" in part:
            return open_media(_reference(part, kind, where), kind)
    if isinstance(part.get("text"), str):
        return TextPart(part["text"])
    raise UsageError(f"{where}: unknown content part of type {part.get('type')!r}")


def _reference(part: Mapping[str, Any], kind: Kind, where: str) -> str | Path | bytes:
    """Find what a media part points to: `{kind}_url` (text or {url}), `{kind}`, `path`, `url`, or raw `data`."""
    for key in (f"{kind}_url", kind, "path", "url", "data"):
        value = part.get(key)
        if isinstance(value, Mapping):
            value = value.get("url")
        if isinstance(value, (str, Path, bytes)) and value:
            return value
    raise UsageError(f"{where}: the {kind} part says nothing about where the {kind} is", hint="give it a path or a url")


def _input_audio(value: Any, where: str) -> bytes:
    data = value.get("data") if isinstance(value, Mapping) else None
    if not isinstance(data, str):
        raise UsageError(f"{where}: input_audio has no base64 `data`")
    return decode_base64(data)


def _with_sorted_results(messages: list[Message]) -> list[Message]:
    """Put each run of tool results into the order of the calls before it: the model tells them apart by order alone."""
    ordered: list[Message] = []
    position = 0
    while position < len(messages):
        message = messages[position]
        stop = position + 1
        while stop < len(messages) and messages[stop].role == "tool":
            stop += 1
        results = messages[position + 1 : stop]
        if message.role == "tool" or (results and not message.tool_calls):
            number = position + 1 if message.role == "tool" else position + 2
            raise UsageError(f"message {number}: a tool result follows no tool call of the assistant")
        ordered.append(message)
        if results or (message.tool_calls and stop < len(messages)):
            ordered += _match_results(message.tool_calls, results, position + 1)
        position = stop
    return ordered


def _match_results(calls: Sequence[ToolCall], results: list[Message], number: int) -> list[Message]:
    """Pair results with calls: by id where results carry one, else by place."""
    if any(result.tool_call_id is not None for result in results) and all(call.id is not None for call in calls):
        by_id = {result.tool_call_id: result for result in results}
        wanted = [call.id for call in calls]
        if len(by_id) != len(results) or set(by_id) != set(wanted):
            raise UsageError(f"message {number}: results for calls {list(by_id)}, but the calls made are {wanted}")
        return [by_id[call_id] for call_id in wanted]
    if len(results) != len(calls):
        raise UsageError(f"message {number}: {len(calls)} tool call(s), {len(results)} result(s)")
    return results
