"""A small byte-level BPE tokenizer with the release's added tokens, and the processor ids that belong to it."""

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, trainers

from mimo_cli.chat.tokenizer import Tokenizer
from mimo_cli.checkpoint.processor_config import ProcessorConfig

_ADDED = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> "
    "<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|> "
    "<tool_call> </tool_call> <|fim_prefix|> <|fim_middle|> <|fim_suffix|> <|fim_pad|> <|repo_name|> <|file_sep|> "
    "<tool_response> </tool_response> <think> </think> <|audio_pad|> <|mimo_video_start|> <|mimo_video_end|> "
    "<|mimo_audio_eod|> <|mimo_audio_start|> <|mimo_audio_end|>"
)
ADDED_TOKENS = _ADDED.split()
NOT_SPECIAL = frozenset(ADDED_TOKENS[14:26])

SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_CORPUS = (
    "You are MiMo, a helpful AI assistant engineered by Xiaomi. system user assistant tool "
    "the cat and the dog looked at the picture, then the cat asked the dog what the picture shows. "
    "function parameter description required string integer think call response image video audio end start "
) * 3


def tokenizer_json(vocab: dict[str, int], merges: Iterable[tuple[str, str]], added: dict[str, int]) -> dict[str, Any]:
    """Return the content of a `tokenizer.json` built like the release's.

    The added tokens stand in the vocabulary too, so that they keep their ids where it has gaps.
    """
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": token, "special": token not in NOT_SPECIAL, **flags} for token, i in added.items()
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": byte_level,
        "model": {"type": "BPE", "vocab": {**vocab, **added}, "merges": [list(pair) for pair in merges]},
    }


@lru_cache
def tiny_json() -> str:
    """Return the text of a `tokenizer.json` with some hundred tokens, learned from a few English sentences."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=480, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([_CORPUS], trainer)
    model = json.loads(backend.to_str())["model"]
    added = {token: len(model["vocab"]) + i for i, token in enumerate(ADDED_TOKENS)}
    return json.dumps(tokenizer_json(model["vocab"], [tuple(pair) for pair in model["merges"]], added))


def write_tiny_tokenizer(folder: Path) -> Path:
    """Write `tokenizer.json` into a folder and return the folder."""
    (folder / "tokenizer.json").write_text(tiny_json(), "utf-8")
    return folder


@lru_cache
def tiny_tokenizer() -> Tokenizer:
    """Return the tiny tokenizer."""
    return Tokenizer(Backend.from_str(tiny_json()), "tiny")


def processor_for(tokenizer: Tokenizer) -> ProcessorConfig:
    """Return a processor configuration whose ids are the tokenizer's."""
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "audio_token_id": "<|audio_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
        "video_start_token_id": "<|mimo_video_start|>",
        "video_end_token_id": "<|mimo_video_end|>",
        "audio_start_token_id": "<|mimo_audio_start|>",
        "audio_end_token_id": "<|mimo_audio_end|>",
    }
    ids = {field: tokenizer.added_tokens[token] for field, token in names.items()}
    return ProcessorConfig.from_dict({"processor_config": ids})
