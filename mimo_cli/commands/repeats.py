"""Repetition in model text: the loop that speech models fall into over silence and noise.

A block counts as a loop when it stands three times in a row; short blocks need more, because people do say
"no, no, no". Words are the unit, or single characters in scripts written without blanks.
"""

import re

LONG_BLOCK_WORDS = 4
LONG_BLOCK_TIMES = 3
SHORT_BLOCK_TIMES = 8
_MAX_BLOCK_WORDS = 60

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|\S+?(?=[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\s]|$)")


def cut_repeats(text: str) -> tuple[str, int]:
    """Return the text with every loop cut to one copy of its block, and how many copies were dropped."""
    spans = [(match.start(), match.end()) for match in _WORD.finditer(text)]
    words = [text[start:end].casefold().strip(".,;:!?\u3002\uff0c\uff01\uff1f") for start, end in spans]
    kept: list[tuple[int, int]] = []
    dropped = 0
    position = 0
    while position < len(words):
        block, times = _loop_at(words, position)
        if times == 0:
            kept.append((position, position + 1))
            position += 1
            continue
        kept.append((position, position + block))
        dropped += times - 1
        position += block * times
        if _is_beginning(words[position:], words[kept[-1][0] : kept[-1][1]]):
            break  # the loop was cut off in the middle of one more copy
    if not dropped:
        return text, 0
    return _join(text, spans, kept), dropped


def is_looping(text: str) -> bool:
    """Tell whether the text ends in a loop, so that writing more of it is pointless."""
    spans = [match[0] for match in _WORD.finditer(text)]
    words = [word.casefold().strip(".,;:!?\u3002\uff0c\uff01\uff1f") for word in spans]
    for block in range(1, min(_MAX_BLOCK_WORDS, len(words) // LONG_BLOCK_TIMES) + 1):
        times = _needed(block)
        if len(words) >= block * times and words[-block * times :] == words[-block:] * times:
            return True
    return False


def _loop_at(words: list[str], start: int) -> tuple[int, int]:
    """Return (block length, times) of a loop that starts at a word, (0, 0) where there is none."""
    for block in range(1, min(_MAX_BLOCK_WORDS, (len(words) - start) // LONG_BLOCK_TIMES) + 1):
        first = words[start : start + block]
        times = 1
        while words[start + times * block : start + (times + 1) * block] == first:
            times += 1
        if times >= _needed(block):
            return block, times
    return 0, 0


def _is_beginning(words: list[str], block: list[str]) -> bool:
    """Tell whether some words are the beginning of a block; the last of them may be cut off too."""
    count = len(words)
    return 0 < count <= len(block) and words[:-1] == block[: count - 1] and block[count - 1].startswith(words[-1])


def _needed(block: int) -> int:
    return LONG_BLOCK_TIMES if block >= LONG_BLOCK_WORDS else SHORT_BLOCK_TIMES


def _join(text: str, spans: list[tuple[int, int]], kept: list[tuple[int, int]]) -> str:
    """Put the kept runs of words together with the blanks that followed each word in the text."""
    pieces: list[str] = []
    for first, last in kept:
        for i in range(first, last):
            after = spans[i + 1][0] if i + 1 < len(spans) else len(text)
            pieces.append(text[spans[i][0] : after])
    return (text[: spans[0][0]] + "".join(pieces)).strip()
