"""Messages and tools as a chat template wants them: the checks and small repairs before rendering.

The raw template answers bad input with jinja errors or with silently odd output; here it becomes a UsageError that
names the message. Nothing that renders correctly is changed. Source: chat specification, end of section 4.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mimo_cli.errors import UsageError


def template_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return copies of OpenAI-style messages, ready for a template.

    Null or missing content becomes empty, bare strings and `input_audio` among the parts become text and audio parts,
    arguments are decoded. Raises UsageError for no messages and for wrong types.
    """
    if not messages:
        raise UsageError("no messages", hint="give at least one user message")
    return [_message(message, f"message {i}") for i, message in enumerate(messages, 1)]


def check_tool_results(messages: Sequence[Mapping[str, Any]]) -> None:
    """Raise UsageError where a tool result does not follow an assistant's calls or another result."""
    in_tool_run = False
    for number, message in enumerate(messages, 1):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role == "tool" and not in_tool_run:
            raise UsageError(f"message {number}: a tool result follows no tool call of the assistant")
        in_tool_run = role == "tool" or (role == "assistant" and bool(message.get("tool_calls")))


def template_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Return the tool list as a template wants it; each tool, wrapped in `function` or flat, must have a name."""
    if tools is None:
        return None
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise UsageError(f"tools must be a list of functions, found {type(tools).__name__}")
    for number, tool in enumerate(tools, 1):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise UsageError(f"tool {number} is not a function with a name")
    return [dict(tool) for tool in tools]


def decode_arguments(arguments: Any, where: str) -> dict[str, Any]:
    """Return a call's arguments as a dict; a JSON string is decoded. Raises UsageError unless it is an object."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except ValueError as err:
            raise UsageError(f"{where}: the arguments of a tool call are not JSON: {err}") from None
    if not isinstance(arguments, Mapping):
        raise UsageError(f"{where}: the arguments of a tool call must be an object, found {type(arguments).__name__}")
    return dict(arguments)


def _message(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise UsageError(f"{where} is not an object with a role")
    ready = {**message, "content": _content(message.get("content"), where)}
    if message.get("tool_calls"):
        ready["tool_calls"] = [_call(call, where) for call in message["tool_calls"]]
    return ready


def _content(content: Any, where: str) -> str | list[dict[str, Any]]:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        raise UsageError(f"{where}: content must be a string or a list of parts, found {type(content).__name__}")
    return [_part(part, where) for part in content]


def _part(part: Any, where: str) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, Mapping):
        raise UsageError(f"{where}: a content part must be an object, found {type(part).__name__}")
    if part.get("type") == "input_audio" or "input_audio" in part:
        return {"type": "audio"}
    if part.get("type") == "text" and not isinstance(part.get("text"), str):
        raise UsageError(f"{where}: a text part must hold a string, found {type(part.get('text')).__name__}")
    return dict(part)


def _call(call: Any, where: str) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise UsageError(f"{where}: a tool call is not a function with a name")
    ready = dict(function)
    if ready.get("arguments") is None:
        ready.pop("arguments", None)
    else:
        ready["arguments"] = decode_arguments(ready["arguments"], where)
    return {**call, "function": ready} if "function" in call else ready
