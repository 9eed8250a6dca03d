"""Reasoning told apart from the answer: `<think>` at the very start, up to the first `</think>`.

Anywhere else the tags are plain text. Looks at generated text only, never at the prompt, and holds back what might
still become a tag. Source: chat specification, section 7.
"""

from typing import Literal

from mimo_cli.chat.events import Notice, TextDelta
from mimo_cli.chat.tool_block import BLOCK_START, find_block, partial_tag_length

THINK_START, THINK_END = "<think>", "</think>"
CALL_IN_REASONING = "the model wrote a tool call inside its reasoning; it is not run. Try again (regenerate)"


class ReasoningReader:
    """Splits generated text into reasoning and content, while it streams in.

    has_tools: tools were declared, so a complete tool call inside reasoning that never closes ends the reasoning.
    """

    def __init__(self, has_tools: bool) -> None:
        self._has_tools = has_tools
        self._state: Literal["start", "opened", "reasoning", "held", "content"] = "start"
        self._buffer = ""
        self._read = {
            "start": self._read_start,
            "opened": self._read_opened,
            "reasoning": self._read_reasoning,
            "held": self._read_held,
            "content": self._read_content,
        }

    @property
    def is_reasoning(self) -> bool:
        """Tell whether the text so far is inside reasoning (or might be: a call stands in it)."""
        return self._state in ("opened", "reasoning", "held")

    def feed(self, text: str) -> list[TextDelta | Notice]:
        """Add text; return what is settled by it."""
        events: list[TextDelta | Notice] = []
        self._buffer += text
        state = None
        while state != self._state:
            state = self._state
            self._read[state](events)
        return events

    def finish(self) -> list[TextDelta | Notice]:
        """Settle the rest at the end of the output."""
        text, self._buffer = self._buffer, ""
        if not self.is_reasoning:
            return _deltas(("content", text))
        call = find_block(text) if self._state == "held" else None
        if call is None:
            return _deltas(("reasoning", text))
        self._state = "content"
        return _deltas(("reasoning", text[:call]), ("content", text[call:]))

    def _read_start(self, events: list[TextDelta | Notice]) -> None:
        text = self._buffer.lstrip()
        if text.startswith(THINK_START):
            self._buffer, self._state = text[len(THINK_START) :], "opened"
        elif not THINK_START.startswith(text):
            self._state = "content"

    def _read_opened(self, events: list[TextDelta | Notice]) -> None:
        """Drop repeated openers."""
        while self._buffer.startswith(THINK_START):
            self._buffer = self._buffer[len(THINK_START) :]
        if not THINK_START.startswith(self._buffer):
            self._state = "reasoning"

    def _read_reasoning(self, events: list[TextDelta | Notice]) -> None:
        tags = (THINK_END, BLOCK_START) if self._has_tools else (THINK_END,)
        found = [(position, tag) for tag in tags if (position := self._buffer.find(tag)) >= 0]
        if found:
            stop, tag = min(found)
            self._state = "content" if tag == THINK_END else "held"
            skipped = len(tag) if tag == THINK_END else 0
        else:
            stop = len(self._buffer) - partial_tag_length(self._buffer, tags)
            skipped = 0
        events += _deltas(("reasoning", self._buffer[:stop]))
        self._buffer = self._buffer[stop + skipped :]

    def _read_held(self, events: list[TextDelta | Notice]) -> None:
        """Wait with a block start in front: it ends the reasoning only if the reasoning never closes."""
        stop = self._buffer.find(THINK_END)
        if stop < 0:
            return
        text, self._buffer = self._buffer[:stop], self._buffer[stop + len(THINK_END) :]
        events += _deltas(("reasoning", text))
        if find_block(text) is not None:
            events.append(Notice(CALL_IN_REASONING))
        self._state = "content"

    def _read_content(self, events: list[TextDelta | Notice]) -> None:
        events += _deltas(("content", self._buffer))
        self._buffer = ""


def _deltas(*pieces: tuple[Literal["reasoning", "content"], str]) -> list[TextDelta | Notice]:
    return [TextDelta(kind, text) for kind, text in pieces if text]
