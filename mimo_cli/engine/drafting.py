"""Greedy drafts of the MTP modules: what each of them thinks comes after the next token.

Module k reads the main model's states of all rows beside the tokens one further on each time, and its own draft becomes
the last token of module k+1. Nothing uses the drafts yet but this measurement of them.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.engine.sequence import Sequence
from mimo_cli.engine.waves import CHUNK_TOKENS
from mimo_cli.kvcache.cache import KVCache
from mimo_cli.media.prompt import Prompt
from mimo_cli.model.decoder import TextModel
from mimo_cli.model.mtp import MTPModule


def draft_logits(
    sequence: Sequence, decoder: TextModel, modules: Iterable[MTPModule], config: ModelConfig, prompt: Prompt
) -> list[Tensor]:
    """Return one [T, V] float32 tensor per module, for an empty sequence (which then holds the prompt).

    Row p of module k predicts token p+2+k from the state of row p and token p+1+k. Tokens beyond the prompt are the
    main model's choice and the drafts of the modules before: the last row's argmax is the module's own draft.
    """
    with torch.inference_mode():
        states = torch.cat(list(sequence.read(prompt)))  # [T, H], after the final norm
        tokens = [*prompt.ids, int(decoder.logits(states[-1]).argmax())]
        drafts = []
        for k, module in enumerate(modules):
            logits = _module_logits(module, decoder, config, torch.tensor(tokens[1 + k :]), states)
            tokens.append(int(logits[-1].argmax()))
            drafts.append(logits.cpu())
    return drafts


def _module_logits(
    module: MTPModule, decoder: TextModel, config: ModelConfig, tokens: Tensor, states: Tensor
) -> Tensor:
    cache = KVCache.for_mtp(config, states.dtype)
    logits = []
    for token_part, state_part in zip(tokens.split(CHUNK_TOKENS), states.split(CHUNK_TOKENS), strict=True):
        positions = torch.arange(cache.length, cache.length + len(token_part), device=states.device)
        embeds = decoder.embed(token_part)[None].to(states.device)
        hidden_states = module(embeds, state_part[None], positions, cache)[0]  # [n, H]
        cache.advance(len(token_part))
        logits.append(decoder.logits(hidden_states))  # [n, V]
    return torch.cat(logits)
