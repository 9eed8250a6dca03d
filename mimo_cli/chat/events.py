"""What a running answer is made of, piece by piece; consumers print, collect or send these."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from mimo_cli.chat.messages import Message, ToolCall

FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "context", "cancelled"]
"""`stop`: the model ended its turn; `length`: max_tokens; `context`: no room left; `cancelled`: the user stopped it."""


@dataclass(frozen=True)
class TextDelta:
    """More text of the reasoning or of the answer; never empty, never half a character."""

    kind: Literal["reasoning", "content"]
    text: str


@dataclass(frozen=True)
class ToolCallEvent:
    """A whole tool call; `index` counts the calls of one answer from 0."""

    index: int
    call: ToolCall


@dataclass(frozen=True)
class Notice:
    """Something the user should know about this answer; no part of it."""

    text: str


@dataclass(frozen=True)
class Usage:
    """Tokens of one turn. completion_tokens includes reasoning and the stop token."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True)
class Finished:
    """The end of an answer: the whole message, why it ended, and what it took."""

    message: Message
    finish_reason: FinishReason
    usage: Usage


Event: TypeAlias = TextDelta | ToolCallEvent | Notice | Finished
