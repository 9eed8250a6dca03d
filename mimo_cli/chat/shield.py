"""Keeps text of users, tools and files from becoming control tokens, whatever template it passes through.

Before rendering, a private nonce is put into every string that looks like a control token; rendering moves the text
about; afterwards every control token that is still whole was written by the template. Then the nonces go.

    user text `a<|im_end|>`  ->  `a<N|im_end|>`  ->  template  ->  `<|im_start|>user\\na<N|im_end|><|im_end|>`
                                                                    ^ control          ^ text      ^ control
"""

import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mimo_cli.chat.messages import Message, TextPart

_PRIVATE_USE = (0xE000, 0xF8FF)
"""Unicode's private use area: untouched by case, trimming, normalization and JSON, and in no vocabulary."""


class Piece(NamedTuple):
    """A stretch of rendered text: a control token of the template, or plain text."""

    text: str
    is_control: bool


class Shield:
    """One prompt's nonce and the control tokens it guards against. Use a fresh one for every prompt."""

    def __init__(self, control_tokens: Iterable[str]) -> None:
        tokens = sorted((token for token in control_tokens if len(token) > 1), key=len, reverse=True)
        union = "|".join(re.escape(token) for token in tokens) or r"(?!)"
        self._token = re.compile(union)
        # Look-ahead, to find tokens that overlap: each start is broken on its own.
        self._token_start = re.compile(f"(?=(?:{union}))")
        self._heads = tuple({token[:n] for token in tokens for n in range(1, len(token))})
        self._tails = tuple({token[-n:] for token in tokens for n in range(1, len(token))})
        self._cores = frozenset(core for token in tokens for core in _cores(token))
        self.nonce = random_mark()

    def text(self, text: str) -> str:
        """Return text in which no control token stands, nor one that needs only what a template writes around it."""
        pieces, position = [], 0
        if text.startswith(self._tails):
            pieces.append(self.nonce)
        for match in self._token_start.finditer(text):
            pieces.append(text[position : match.start() + 1])
            pieces.append(self.nonce)
            position = match.start() + 1
        pieces.append(text[position:])
        if text.endswith(self._heads) or text in self._cores:
            pieces.append(self.nonce)
        return "".join(pieces)

    def value(self, value: Any) -> Any:
        """Shield every string inside a JSON value, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(key): self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    def message(self, message: Message) -> dict[str, Any]:
        """Write a message for a template, all of its text shielded; media parts become bare `{"type": kind}`."""
        ready: dict[str, Any] = {"role": message.role, "content": self._content(message)}
        if message.reasoning is not None:
            ready["reasoning_content"] = self.text(message.reasoning)
        if message.tool_calls:
            ready["tool_calls"] = [
                {"type": "function", "function": self.value({"name": call.name, "arguments": call.arguments})}
                for call in message.tool_calls
            ]
        for key, value in (("tool_call_id", message.tool_call_id), ("name", message.name)):
            if value is not None:
                ready[key] = self.text(value)
        return ready

    def split(self, rendered: str) -> list[Piece]:
        """Cut rendered text at the control tokens that the template wrote, and take the nonces out of the rest."""
        pieces: list[Piece] = []
        position = 0
        for match in self._token.finditer(rendered):
            self._add_plain(pieces, rendered[position : match.start()])
            pieces.append(Piece(match[0], True))
            position = match.end()
        self._add_plain(pieces, rendered[position:])
        return pieces

    def _add_plain(self, pieces: list[Piece], text: str) -> None:
        text = text.replace(self.nonce, "")
        if text:
            pieces.append(Piece(text, False))

    def _content(self, message: Message) -> str | list[dict[str, str]]:
        """A string where there is no medium (some templates take nothing else), else parts with neighbours joined.

        Text parts are joined before shielding: two of them could form a control token together.
        """
        if not message.media:
            return self.text(message.text)
        parts: list[dict[str, str]] = []
        run = ""
        for part in (*message.parts, None):
            if isinstance(part, TextPart):
                run += part.text
                continue
            if run:
                parts.append({"type": "text", "text": self.text(run)})
                run = ""
            if part is not None:
                parts.append({"type": part.kind})
        return parts


def _cores(token: str) -> Iterable[str]:
    """Yield what is left of a token when a template writes the punctuation around it: `think` of `<think>`."""
    letters = [i for i, character in enumerate(token) if character.isalnum()]
    if letters:
        for first in range(1, letters[0] + 1):
            for stop in range(letters[-1] + 1, len(token)):
                yield token[first:stop]


def random_mark() -> str:
    """Return text that stands nowhere else: 12 random private characters, 151 bits."""
    first, last = _PRIVATE_USE
    return "".join(chr(first + secrets.randbelow(last - first + 1)) for _ in range(12))
