"""Tool calls told apart from the text around them, as the answer streams in.

A block is held back until it ends, then becomes one call; anything unreadable, undeclared or cut off stays text. The
result does not depend on how the text was cut into chunks. Source: chat specification, section 9.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from mimo_cli.chat.events import TextDelta, ToolCallEvent
from mimo_cli.chat.messages import ToolCall
from mimo_cli.chat.tool_block import BLOCK_END, BLOCK_START, BlockScanner, parse_block, partial_tag_length
from mimo_cli.chat.tool_schema import declared_functions, typed_value


class ToolCallReader:
    """Splits the answer's text into content and calls of the declared functions, while it streams in."""

    def __init__(self, tools: Sequence[Mapping[str, Any]] | None) -> None:
        self._functions = declared_functions(tools)
        self._pending = ""
        self._scanner: BlockScanner | None = None
        self._num_calls = 0
        self._blanks = ""
        self._piece_is_blank = False

    def feed(self, text: str) -> list[TextDelta | ToolCallEvent]:
        """Add text of the answer; return what is settled by it."""
        if not self._functions:
            return [TextDelta("content", text)] if text else []
        events: list[TextDelta | ToolCallEvent] = []
        while text:
            scanner = self._scanner
            text = self._feed_block(scanner, text, events) if scanner else self._feed_content(text, events)
        return events

    def finish(self, is_stop: bool) -> list[TextDelta | ToolCallEvent]:
        """Settle the rest. is_stop: the model ended its turn itself, so a missing last end tag is forgiven."""
        events: list[TextDelta | ToolCallEvent] = []
        if self._scanner is not None:
            self._finish_block(self._scanner, is_stop, events)
        self._emit(self._pending, events)
        self._pending = ""
        return events

    def _feed_content(self, text: str, events: list[TextDelta | ToolCallEvent]) -> str:
        text = self._pending + text
        self._pending = ""
        start = text.find(BLOCK_START)
        if start >= 0:
            self._emit(text[:start], events)
            self._scanner = BlockScanner()
            return text[start:]
        keep = partial_tag_length(text, (BLOCK_START,))
        self._emit(text[: len(text) - keep], events)
        self._pending = text[len(text) - keep :]
        return ""

    def _feed_block(self, scanner: BlockScanner, text: str, events: list[TextDelta | ToolCallEvent]) -> str:
        extent = scanner.feed(text)
        if extent is None:
            return ""
        self._scanner = None
        block, rest = scanner.text[: extent.stop], scanner.text[extent.stop :]
        if not extent.is_block or not self._call(block[len(BLOCK_START) : -len(BLOCK_END)], events):
            self._emit(block, events)
        return rest

    def _finish_block(self, scanner: BlockScanner, is_stop: bool, events: list[TextDelta | ToolCallEvent]) -> None:
        self._scanner = None
        if scanner.in_value or not is_stop or not self._call(scanner.text[len(BLOCK_START) :], events):
            self._emit(scanner.text, events)

    def _call(self, inside: str, events: list[TextDelta | ToolCallEvent]) -> bool:
        """Turn a block into a call of a declared function; False where it is none."""
        raw = parse_block(inside)
        if raw is None or raw.name not in self._functions:
            return False
        schemas = self._functions[raw.name]
        arguments = {key: typed_value(value, schemas.get(key)) for key, value in raw.arguments.items()}
        events.append(ToolCallEvent(self._num_calls, ToolCall(raw.name, arguments, f"call_{secrets.token_hex(12)}")))
        self._num_calls += 1
        self._blanks, self._piece_is_blank = "", True
        return True

    def _emit(self, text: str, events: list[TextDelta | ToolCallEvent]) -> None:
        """Pass on content; after a call, blanks wait for something to follow them, and are dropped if nothing does."""
        if self._piece_is_blank:
            self._blanks += text
            if not self._blanks.strip():
                return
            text, self._blanks, self._piece_is_blank = self._blanks, "", False
        if text:
            events.append(TextDelta("content", text))
