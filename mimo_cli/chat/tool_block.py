"""One tool call as text: where a block ends while it grows, and what it says.

    <tool_call> <function=NAME> <parameter=KEY>VALUE</parameter> ... </function> </tool_call>

Newlines between the tags may be missing, as later family members write it; values are kept to the byte.
Source: chat specification, section 9, rules 2 to 4.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

BLOCK_START, BLOCK_END = "<tool_call>", "</tool_call>"
_VALUE_END = "</parameter>"
_MARKUP = re.compile(r"</tool_call>|<tool_call>|<parameter=[^<>]*>")
_FUNCTION = re.compile(r"\s*<function=([^<>]*)>\s*")
_PARAMETER = re.compile(r"<parameter=([^<>]*)>")
_END = re.compile(r"</function>\s*")


class RawCall(NamedTuple):
    """What a block says, before types: the last of two equal parameter names has won."""

    name: str
    arguments: dict[str, str]


class Extent(NamedTuple):
    """How much of a text that begins with BLOCK_START is settled: a block, or plain text up to another BLOCK_START."""

    stop: int
    is_block: bool


class BlockScanner:
    """Finds the end of one block while its text grows. Only `</parameter>` ends the value of a parameter."""

    def __init__(self) -> None:
        self.text = ""
        self._position = len(BLOCK_START)
        self._in_value = False
        self._is_unreadable = False

    def feed(self, text: str) -> Extent | None:
        """Add text; return the extent once it is known. The first text begins with BLOCK_START."""
        self.text += text
        while not self._is_unreadable:
            found = self._scan_value() if self._in_value else self._scan_markup()
            if found is None or isinstance(found, Extent):
                return found
        return self.unreadable()

    def unreadable(self) -> Extent | None:
        """Return the extent of a block with a value that never closes: it ends at its first end tag."""
        stop = self.text.find(BLOCK_END, len(BLOCK_START))
        return Extent(stop + len(BLOCK_END), True) if stop >= 0 else None

    @property
    def in_value(self) -> bool:
        """Tell whether a value is open."""
        return self._in_value

    def _scan_markup(self) -> Extent | bool | None:
        """Look for the next tag outside of values; True means go on scanning."""
        match = _MARKUP.search(self.text, self._position)
        if match is None:
            # A tag may be under way: keep everything from the last `<` on.
            self._position = max(self._position, self.text.rfind("<"))
            return None
        if match[0] == BLOCK_END:
            return Extent(match.end(), True)
        if match[0] == BLOCK_START:
            return Extent(match.start(), False)
        self._position, self._in_value = match.end(), True
        return True

    def _scan_value(self) -> bool | None:
        """Look for the end of the open value; another block start before it makes this block unreadable."""
        close = self.text.find(_VALUE_END, self._position)
        start = self.text.find(BLOCK_START, self._position)
        if close >= 0 and not 0 <= start < close:
            self._position, self._in_value = close + len(_VALUE_END), False
            return True
        if start >= 0:
            self._is_unreadable = True
            return True
        self._position = max(self._position, len(self.text) - len(_VALUE_END))
        return None


def parse_block(text: str) -> RawCall | None:
    """Read what stands between the tags of a block; None where it is not exactly one function with parameters."""
    match = _FUNCTION.match(text)
    if match is None or not match[1].strip():
        return None
    call = RawCall(match[1].strip(), {})
    position = match.end()
    while parameter := _PARAMETER.match(text, position):
        stop = text.find(_VALUE_END, parameter.end())
        if stop < 0:
            return None
        call.arguments[parameter[1].strip()] = text[parameter.end() : stop]
        position = stop + len(_VALUE_END)
        while position < len(text) and text[position].isspace():
            position += 1
    end = _END.match(text, position)
    return call if end is not None and end.end() == len(text) else None


def find_block(text: str) -> int | None:
    """Return where the first complete block of a text begins, None without one."""
    start = text.find(BLOCK_START)
    while start >= 0:
        extent = BlockScanner().feed(text[start:])
        if extent is not None and extent.is_block:
            return start
        start = text.find(BLOCK_START, start + len(BLOCK_START))
    return None


def partial_tag_length(text: str, tags: Sequence[str]) -> int:
    """Return how many characters at the end of a text could be the beginning of one of the tags."""
    longest = 0
    for tag in tags:
        for length in range(min(len(tag) - 1, len(text)), longest, -1):
            if text.endswith(tag[:length]):
                longest = length
                break
    return longest
