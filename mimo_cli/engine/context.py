"""What fits a context: the check of a prompt before anything is read, and the bytes a context costs.

Nothing is ever shortened silently; a refusal names the option that would fit.
"""

import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.errors import ContextOverflowError, MimoError, UsageError
from mimo_cli.media.prompt import Prompt
from mimo_cli.media.types import AudioInput, MediaInput, VideoInput

DEFAULT_CONTEXT_TOKENS = 32 * 1024

_ANSWER_TOKENS = 1024
"""Room for an answer in the context that a refusal suggests."""

_PATCH_PIXELS = 16 * 16


def kv_bytes_per_token(config: ModelConfig, dtype: torch.dtype) -> int:
    """Return what one more token adds to the KV cache: keys and values of the global layers."""
    attention = config.global_attention
    width = attention.num_kv_heads * (attention.head_dim + attention.v_head_dim)
    layers = sum(not config.is_sliding(i) for i in range(config.num_hidden_layers))
    return layers * width * dtype.itemsize


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
    wanted = -(-(len(prompt) + _ANSWER_TOKENS) // 1024) * 1024
    if wanted <= model_limit:
        return ContextOverflowError(message, hint=f"start with --ctx {wanted}")
    room = model_limit - _ANSWER_TOKENS - (len(prompt) - media_tokens)
    largest = max(prompt.items, key=_tokens, default=None)
    if largest is None or room <= 0:
        return ContextOverflowError(message, hint=f"shorten the text: the model reads {model_limit:,} tokens at most")
    return ContextOverflowError(message, hint=_smaller_media(largest, room / media_tokens, model_limit))


def _smaller_media(item: MediaInput, factor: float, model_limit: int) -> str:
    limit = f"the model reads {model_limit:,} tokens at most"
    if isinstance(item, AudioInput):
        return f"{limit}; cut `{item.source}` to {factor:.0%} of its length"
    _, rows, columns = item.grid_thw
    max_pixels = int(rows * columns * _PATCH_PIXELS * factor)
    fewer = f", or --fps {factor:.2g} times the present one" if isinstance(item, VideoInput) else ""
    return f"{limit}; shrink `{item.source}` with --max-pixels {max_pixels}{fewer}"


def _tokens(item: MediaInput) -> int:
    return item.num_tokens
