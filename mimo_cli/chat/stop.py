"""Which ids end an answer: the union of what the model folder says, in four places, none of which says all.

Source: chat specification, section 8.
"""

from pathlib import Path

from mimo_cli.chat.tokenizer import Tokenizer
from mimo_cli.checkpoint.config import ModelConfig, read_json, token_ids

STOP_TOKENS = ("<|im_end|>", "<|endoftext|>", "<|mimo_audio_eod|>")


def stop_ids(folder: Path, config: ModelConfig, tokenizer: Tokenizer) -> frozenset[int]:
    """Return every id that ends generation.

    Joins `eos_token_id` of config.json and of generation_config.json with the ids of STOP_TOKENS. Ids without a row in
    the vocabulary are ignored: early copies of the release hold a misspelt one. `do_sample` and `max_new_tokens` of
    generation_config.json are not obeyed on purpose: greedy decoding loops, and 2048 tokens cut the reasoning.
    """
    path = folder / "generation_config.json"
    configured = read_json(path) if path.is_file() else None
    ids = {
        *config.eos_token_ids,
        *(token_ids(configured.get("eos_token_id")) if isinstance(configured, dict) else ()),
        *(tokenizer.added_tokens[token] for token in STOP_TOKENS if token in tokenizer.added_tokens),
    }
    return frozenset(token_id for token_id in ids if 0 <= token_id < config.vocab_size)
