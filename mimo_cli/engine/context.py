"""What fits a context: the check of a prompt before anything is read, and the bytes a context costs.

Nothing is ever shortened silently; a refusal names the option that would fit.
"""

import math

import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.errors import ContextOverflowError, MimoError, UsageError
from mimo_cli.kvcache.sliding import SlidingKV
from mimo_cli.media.prompt import Prompt
from mimo_cli.media.types import AudioInput, MediaInput, VideoInput

DEFAULT_CONTEXT_TOKENS = 32 * 1024

_ANSWER_TOKENS = 1024
"""Room for an answer in the context that a refusal suggests."""

_PATCH_PIXELS = 16 * 16

_LEAST_PIXELS = 4 * 32 * 32
_LEAST_STEPS = 4
"""The release keeps at least 8 frames of a film; a frame of fewer than 4 tokens shows nothing."""


def kv_bytes_per_token(config: ModelConfig, dtype: torch.dtype) -> int:
    """Return what one more token adds to the KV cache: keys and values of the global layers."""
    attention = config.global_attention
    width = attention.num_kv_heads * (attention.head_dim + attention.v_head_dim)
    layers = sum(not config.is_sliding(i) for i in range(config.num_hidden_layers))
    return layers * width * dtype.itemsize


def kv_bytes(config: ModelConfig, dtype: torch.dtype, tokens: int) -> int:
    """Return what the KV cache of so many tokens takes: all of them in global layers, a window in sliding ones."""
    total = kv_bytes_per_token(config, dtype) * tokens
    for layer in range(config.num_hidden_layers):
        attention = config.attention(layer)
        if attention.window is not None:
            width = attention.num_kv_heads * (attention.head_dim + attention.v_head_dim)
            total += width * min(tokens, SlidingKV(attention.window, dtype).capacity_tokens) * dtype.itemsize
    return total


def check_prompt(prompt: Prompt, config: ModelConfig, max_tokens: int) -> None:
    """Check a prompt before it is read.

    Raises UsageError for an empty prompt or an id outside the vocabulary, ContextOverflowError where it exceeds
    `max_tokens`, MimoError where a medium and its placeholders disagree.
    """
    if not prompt.ids:
        raise UsageError("the prompt is empty")
    low, high = min(prompt.ids), max(prompt.ids)
    if low < 0 or high >= config.vocab_size:
        found = low if low < 0 else high
        raise UsageError(f"token id {found} is outside the vocabulary of {config.vocab_size:,}")
    if len(prompt) > max_tokens:
        raise _overflow(prompt, max_tokens, config.max_position_embeddings)
    _check_coverage(prompt)


def _check_coverage(prompt: Prompt) -> None:
    # Every row of a picture has its placeholder. The sound track of a film is dealt out to its pictures and may be cut.
    filled = [0] * len(prompt.items)
    for span in prompt.spans:
        if span.stream == "vision" or isinstance(prompt.items[span.item], AudioInput):
            filled[span.item] += span.length
    for item, count in zip(prompt.items, filled, strict=True):
        if count != item.num_tokens:
            raise MimoError(f"`{item.source}` has {item.num_tokens} rows but {count} placeholders in the prompt")


def _overflow(prompt: Prompt, max_tokens: int, model_limit: int) -> ContextOverflowError:
    media_tokens = sum(span.length for span in prompt.spans)
    share = f" ({media_tokens:,} of them media)" if media_tokens else ""
    message = f"the prompt has {len(prompt):,} tokens{share}, the context holds {max_tokens:,}"
    largest = max(prompt.items, key=_tokens, default=None)
    wanted = -(-(len(prompt) + _ANSWER_TOKENS) // 1024) * 1024
    if wanted <= model_limit:
        advice = [f"start with --ctx {wanted}"]
        advice += [] if largest is None else _smaller_pictures(largest, _kept_share(prompt, largest, max_tokens))
        return ContextOverflowError(message, hint=", or ".join(advice))
    limit = f"the model reads {model_limit:,} tokens at most"
    kept = 0.0 if largest is None else _kept_share(prompt, largest, model_limit)
    if largest is None or kept <= 0:
        return ContextOverflowError(message, hint=f"shorten the text: {limit}")
    if isinstance(largest, AudioInput):
        return ContextOverflowError(message, hint=f"{limit}; cut `{largest.source}` to {kept:.0%} of its length")
    advice = _smaller_pictures(largest, kept) or ["leave it out"]
    return ContextOverflowError(message, hint=f"{limit}; shrink `{largest.source}`: {', or '.join(advice)}")


def _kept_share(prompt: Prompt, item: MediaInput, limit: int) -> float:
    # The share of an item's tokens for which there is room beside all the rest and an answer.
    answer_tokens = min(_ANSWER_TOKENS, limit // 4)
    return (limit - answer_tokens - (len(prompt) - item.num_tokens)) / item.num_tokens


def _smaller_pictures(item: MediaInput, share: float) -> list[str]:
    """Return the options that leave a picture or a film at most a share of its tokens; none where none does."""
    if isinstance(item, AudioInput):
        return []
    steps, rows, columns = item.grid_thw
    max_pixels = int(rows * columns * _PATCH_PIXELS * share)
    advice = [f"--max-pixels {max_pixels}"] if max_pixels >= _LEAST_PIXELS else []
    if isinstance(item, VideoInput) and steps * share >= _LEAST_STEPS:
        seconds = float(item.segment_end_s) - float(item.timestamps_s[0])
        # Rounded down: the rate named is one that fits.
        rate_fps = math.floor(100 * 2 * steps * share / seconds) / 100
        advice += [f"--fps {rate_fps:g}"] if rate_fps > 0 else []
    return advice


def _tokens(item: MediaInput) -> int:
    return item.num_tokens
