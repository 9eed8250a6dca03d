"""The miniature's vocabulary: whole words where they are common, single letters otherwise.

    0..255 bytes | common pieces of text, each a token of its own | reserved places | 32 added tokens

A piece is what the release's splitting expression cuts text into (a word with the blank before it, a digit, a run of
punctuation). A piece that is a token is taken whole (`ignore_merges`); any other falls apart into bytes, for there are
no merges: a word the model does not know is spelled letter by letter. Reserved places let the list grow without moving
an id.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers

from mimo_cli.miniature.vocabulary import ADDED_TOKENS, SPLIT_PATTERN, Vocabulary, byte_alphabet
from training.architecture import VOCAB_ROWS

PLACES = VOCAB_ROWS - 256 - len(ADDED_TOKENS)
WORDS_FILE = Path(__file__).with_name("words.json")


@dataclass(frozen=True)
class WordVocabulary(Vocabulary):
    """A Vocabulary of whole pieces instead of merges; `words` are spelled in the byte alphabet."""

    words: tuple[str, ...] = ()

    @classmethod
    def from_file(cls, path: Path = WORDS_FILE) -> "WordVocabulary":
        """Read the list that belongs to the trained weights."""
        return cls.of(json.loads(path.read_text("utf-8")))

    @classmethod
    def of(cls, words: Iterable[str]) -> "WordVocabulary":
        """Make the vocabulary of a list of pieces. Raises ValueError if they are too many."""
        listed = tuple(words)
        if len(listed) > PLACES or len(set(listed)) != len(listed):
            raise ValueError(f"{len(listed)} words, with doubles or too many for {PLACES} places")
        return cls((), VOCAB_ROWS, listed)

    @cached_property
    def base(self) -> tuple[str, ...]:
        """Tokens that ordinary text is made of; reserved places hold names that splitting never yields."""
        reserved = (f"<reserved_{i}>" for i in range(PLACES - len(self.words)))
        return (*byte_alphabet().values(), *self.words, *reserved)

    def tokenizer_json(self) -> dict[str, Any]:
        """Return the content of `tokenizer.json`."""
        values = super().tokenizer_json()
        values["model"]["ignore_merges"] = True
        return values


def split_pieces(texts: Iterable[str]) -> Counter[str]:
    """Count the pieces of some texts, spelled in the byte alphabet."""
    normalise = normalizers.NFC()
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(piece for piece, _ in split.pre_tokenize_str(normalise.normalize_str(text)))
    return counts


def choose_words(wanted: Iterable[str], counts: Counter[str], limit: int, known: Iterable[str] = ()) -> list[str]:
    """Return `known` words, then the `wanted` pieces, then the most frequent others, at most `limit` in all."""
    listed = list(dict.fromkeys([*known, *(word for word in wanted if len(word) > 1)]))
    for piece, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if len(listed) >= limit:
            break
        if len(piece) > 1 and piece not in listed:
            listed.append(piece)
    return listed[:limit]


def load_tokenizer(vocabulary: WordVocabulary) -> tokenizers.Tokenizer:
    """Build the tokenizer in memory."""
    return tokenizers.Tokenizer.from_str(json.dumps(vocabulary.tokenizer_json()))
