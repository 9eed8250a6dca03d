"""A byte-level BPE vocabulary of some hundred tokens, learned from `corpus.txt`, and its tokenizer files.

Everything but the size is as in the release: NFC, the same splitting expression, the byte alphabet, no BOS or EOS, and
the same 32 added tokens in the same order, numbered from the end of the vocabulary on.
Source: chat specification, section 2.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).with_name("corpus.txt")

SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The release's splitting expression, in the dialect of the tokenizer library."""

# The same for ASCII text in Python's dialect, which has no \p{} classes: enough to learn from the corpus.
_ASCII_PIECES = re.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\nA-Za-z0-9]?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

ADDED_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>"),
    *("<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
    *("<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>"),
    *("<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>"),
    *("<think>", "</think>", "<|audio_pad|>", "<|mimo_video_start|>", "<|mimo_video_end|>", "<|mimo_audio_eod|>"),
    *("<|mimo_audio_start|>", "<|mimo_audio_end|>"),
)
_NOT_SPECIAL = frozenset(ADDED_TOKENS[ADDED_TOKENS.index("<tool_call>") : ADDED_TOKENS.index("</think>") + 1])
STOP_TOKENS = ("<|endoftext|>", "<|im_end|>", "<|mimo_audio_eod|>")


def byte_alphabet() -> dict[int, str]:
    """Return the printable character that stands for each byte, in the order of the ids 0 to 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def learn_merges(text: str, count: int) -> list[tuple[str, str]]:
    """Learn `count` byte-pair merges from ASCII text: always the most frequent pair, among equals the smallest.

    Raises ValueError when the text runs out of repeated pairs before.
    """
    alphabet = byte_alphabet()
    words = Counter(tuple(alphabet[byte] for byte in piece.encode()) for piece in _ASCII_PIECES.findall(text))
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                pairs[pair] += times
        best = min(pairs, key=lambda pair: (-pairs[pair], pair), default=None)
        if best is None or pairs[best] < 2:
            raise ValueError(f"the text yields {len(merges)} merges, {count} wanted")
        merges.append(best)
        merged: Counter[tuple[str, ...]] = Counter()
        for word, times in words.items():
            merged[_join(word, best)] += times
        words = merged
    return merges


def _join(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    joined: list[str] = []
    for symbol in word:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return tuple(joined)


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id: 256 bytes, one token per merge, then the added tokens. `rows` of the embedding may be more."""

    merges: tuple[tuple[str, str], ...]
    rows: int

    @classmethod
    def learn(cls, merges: int, rows: int) -> "Vocabulary":
        """Learn from the bundled corpus; `rows` is the model's `vocab_size`, those past the last token never valid."""
        return cls(tuple(learn_merges(CORPUS.read_text("utf-8"), merges)), rows)

    @cached_property
    def base(self) -> tuple[str, ...]:
        """Tokens that ordinary text is made of, spelled in the byte alphabet."""
        return (*byte_alphabet().values(), *(left + right for left, right in self.merges))

    @property
    def known(self) -> int:
        """Number of ids that stand for a token."""
        return len(self.base) + len(ADDED_TOKENS)

    def id(self, token: str) -> int:
        """Return the id of an added token."""
        return len(self.base) + ADDED_TOKENS.index(token)

    def printable_ids(self) -> list[int]:
        """Return the ids whose text is whole printable ASCII: what an answer may consist of."""
        bytes_of = {character: byte for byte, character in byte_alphabet().items()}
        allowed = {*range(32, 127), ord("\n")}
        return [i for i, token in enumerate(self.base) if all(bytes_of[character] in allowed for character in token)]

    def tokenizer_json(self) -> dict[str, Any]:
        """Return the content of `tokenizer.json`."""
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
        split = {"type": "Split", "pattern": {"Regex": SPLIT_PATTERN}, "behavior": "Isolated", "invert": False}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": self.id(token), **_flags(token)} for token in ADDED_TOKENS],
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
            "post_processor": byte_level,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "",
                "fuse_unk": False,
                "byte_fallback": False,
                "vocab": {token: i for i, token in enumerate(self.base)},
                "merges": [f"{left} {right}" for left, right in self.merges],
            },
        }

    def tokenizer_config(self, chat_template: str) -> dict[str, Any]:
        """Return the content of `tokenizer_config.json`; the release keeps its chat template there."""
        first = ADDED_TOKENS[ADDED_TOKENS.index("<|im_start|>") : ADDED_TOKENS.index("<|video_pad|>") + 1]
        last = ADDED_TOKENS[ADDED_TOKENS.index("<|audio_pad|>") :]
        return {
            "add_bos_token": False,
            "add_prefix_space": False,
            "added_tokens_decoder": {str(self.id(token)): _flags(token) for token in ADDED_TOKENS},
            "additional_special_tokens": [*first, *last],
            "bos_token": None,
            "chat_template": chat_template,
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "errors": "replace",
            "model_max_length": 131072,
            "pad_token": "<|endoftext|>",
            "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": None,
        }


def _flags(token: str) -> dict[str, Any]:
    flags = {"content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return flags | {"special": token not in _NOT_SPECIAL}
