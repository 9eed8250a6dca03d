"""Message and its parts: what a conversation consists of, before any template.

Immutable values without files or ids of their own, except that an assistant message may remember the ids it was
generated as. How they are written for a template or read from OpenAI-style dicts: `shield`, `openai_messages`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from mimo_cli.media.types import AudioInput, ImageInput, VideoInput

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
Origin: TypeAlias = Path | bytes
"""Where a medium came from: a file, or its bytes (standard input, a data URI). Used to save a conversation."""


@dataclass(frozen=True)
class TextPart:
    """Some text. Parts of one message are joined with nothing between them."""

    text: str


@dataclass(frozen=True)
class ImagePart:
    """A still picture."""

    kind: ClassVar[Literal["image"]] = "image"
    media: ImageInput
    origin: Origin | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class VideoPart:
    """A film, with its sound track if it was opened with one."""

    kind: ClassVar[Literal["video"]] = "video"
    media: VideoInput
    origin: Origin | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class AudioPart:
    """A recording."""

    kind: ClassVar[Literal["audio"]] = "audio"
    media: AudioInput
    origin: Origin | None = field(default=None, compare=False, repr=False)


MediaPart: TypeAlias = ImagePart | VideoPart | AudioPart
Part: TypeAlias = TextPart | MediaPart


@dataclass(frozen=True)
class ToolCall:
    """A function the assistant wants to be run. `id` links the result to it where there is one."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None


@dataclass(frozen=True)
class Generated:
    """The ids an assistant message was generated as, without the stop id; `thinking` as it was asked for.

    A text can be cut into ids in many ways; only these very ids are still in the KV cache.
    """

    ids: tuple[int, ...]
    thinking: bool


@dataclass(frozen=True)
class Message:
    """One turn. reasoning None means unknown, an empty string means there was none.

    tool_call_id and name belong to tool results, tool_calls, reasoning and generated to the assistant.
    """

    role: Role
    parts: tuple[Part, ...] = ()
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    generated: Generated | None = field(default=None, compare=False, repr=False)

    @property
    def text(self) -> str:
        """The text parts joined; media leave nothing."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def media(self) -> tuple[MediaPart, ...]:
        """The media parts, in order."""
        return tuple(part for part in self.parts if not isinstance(part, TextPart))

    @classmethod
    def of(cls, role: Role, *content: str | Part) -> "Message":
        """Build a message of strings and parts: `Message.of("user", picture, "What is this?")`."""
        return cls(role, tuple(TextPart(item) if isinstance(item, str) else item for item in content))
