"""Sequence: one timeline, the token ids so far and their KV cache. It alone changes that cache.

    prefill(prompt)   keep what is already there of the prompt, read the rest in chunks
    decode(token)     append one token
    snapshot, restore, trim   go back

The single commit point of a forward pass is `KVCache.advance`: an interrupt before it leaves the sequence as it was,
one after it leaves whole tokens. `ids` never disagrees with the cache because it is cut to the cache's length.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch
from torch import Tensor

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.engine.card import Card
from mimo_cli.engine.context import check_prompt
from mimo_cli.engine.embeddings import EncodedRows, MediaEncoder
from mimo_cli.engine.expert_memory import ExpertMemory
from mimo_cli.engine.lookahead import OnToken
from mimo_cli.engine.placement import CARD_WAVE_TOKENS
from mimo_cli.engine.stats import ExpertTraffic, OnProgress, Progress
from mimo_cli.engine.waves import CHUNK_TOKENS, Wave
from mimo_cli.errors import ContextOverflowError
from mimo_cli.kvcache.cache import KVCache, KVSnapshot
from mimo_cli.media.prompt import Prompt, Span
from mimo_cli.model.decoder import TextModel

_MAX_MARKS = 4
"""Prompt ends one can return to. Each keeps the sliding-window layers' keys and values: 26 MB for V2.5."""


@dataclass(frozen=True)
class Snapshot:
    """A state to return to: the prompt so far (ids, spans, items), the KV cache's own snapshot, the next logits."""

    prompt: Prompt
    kv_snapshot: KVSnapshot
    logits: Tensor | None

    def __len__(self) -> int:
        return len(self.prompt)


@dataclass(frozen=True)
class PrefillReport:
    """What the last prefill did: tokens found in the cache, tokens read, seconds in towers and in the network."""

    cached_tokens: int = 0
    read_tokens: int = 0
    encode_s: float = 0.0
    prefill_s: float = 0.0


class Sequence:
    """Token ids and their KV cache, at most `max_tokens` of them. Made by Engine.start_sequence.

    last_prefill tells what the last prefill did. `memory` gives long prompts room, and is asked to look at the
    machine's before every pass. With a `card` the network and the KV cache are there; logits are always here.
    """

    def __init__(
        self,
        decoder: TextModel,
        config: ModelConfig,
        media: MediaEncoder,
        *,
        max_tokens: int,
        kv_dtype: torch.dtype,
        expert_traffic: Callable[[], ExpertTraffic],
        memory: ExpertMemory | None = None,
        on_token: OnToken | None = None,
        card: Card | None = None,
    ) -> None:
        self.max_tokens = max_tokens
        self.vocab_size = config.vocab_size
        self.expert_traffic = expert_traffic
        self.last_prefill = PrefillReport()
        self._decoder = decoder
        self._config = config
        self._media = media
        self._memory = memory
        self._on_token = on_token
        self._card = card
        self._kv_dtype = kv_dtype
        self._cache = self._new_cache()
        self._ids: list[int] = []  # may run ahead of the cache while a pass is under way; `ids` is cut to it
        self._prompt = Prompt(())  # whose spans and items the cached tokens had
        self._marks: list[Snapshot] = []  # ends of prompts, in rising order

    @property
    def length(self) -> int:
        """Tokens in the KV cache."""
        return self._cache.length

    @property
    def ids(self) -> list[int]:
        """The tokens in the KV cache, oldest first."""
        return self._ids[: self.length]

    @property
    def kv_bytes(self) -> int:
        """Bytes that the KV cache holds."""
        return self._cache.nbytes

    def prefill(self, prompt: Prompt, chunk_tokens: int | None = None, on_progress: OnProgress | None = None) -> Tensor:
        """Make the sequence hold exactly `prompt`; returns the logits [V] float32 of the token that follows.

        What the sequence holds of it already (same ids, same media) is kept; if the prompt leaves the timeline at an
        earlier place, the sequence goes back there, or to the nearest end of a prompt before it, and reads on.
        chunk_tokens: of one pass; by default as many as memory allows, with the same bits.
        Raises ContextOverflowError before anything is changed, and what reading the media raises. After an interrupt
        the sequence holds the passes that were over.
        """
        common = self._common_prefix(prompt)
        ready = self._mark_at(len(prompt)) if common == len(prompt) else None
        if ready and ready.logits is not None:
            self.restore(ready)
            self.last_prefill = PrefillReport(cached_tokens=len(prompt))
            return ready.logits
        chunks = deque(self.read(prompt, chunk_tokens, on_progress), maxlen=1)
        with torch.inference_mode():
            logits = self._decoder.logits(chunks[0][-1]).cpu()  # [V]
        mark = Snapshot(prompt, self._cache.snapshot(), logits)
        self._marks = [*self._marks, mark][-_MAX_MARKS:]
        return logits

    def read(
        self, prompt: Prompt, chunk_tokens: int | None = None, on_progress: OnProgress | None = None
    ) -> Iterator[Tensor]:
        """Read what is not cached of a prompt, at least its last token; yields hidden states [n, H] block by block,
        each when its tokens are in the KV cache. Everything else as `prefill`."""
        check_prompt(prompt, self._config, self.max_tokens)
        self._rewind(min(self._common_prefix(prompt), len(prompt) - 1))
        cached = self.length
        started = time.perf_counter()
        rows = EncodedRows(prompt, cached, self._media, on_progress)
        encode_s = time.perf_counter() - started
        self._ids, self._prompt = list(prompt.ids), prompt
        wave = self._wave(len(prompt) - cached, chunk_tokens)
        prefill_s = 0.0
        with self._memory.lend(wave.lent_slots) if self._memory and wave.lent_slots else nullcontext():
            for start in range(cached, len(prompt), wave.tokens):
                started = time.perf_counter()
                with self._layer_progress(min(wave.tokens, len(prompt) - start), len(prompt), on_progress):
                    hidden_states = self._forward(prompt.ids[start : start + wave.tokens], rows)
                prefill_s += time.perf_counter() - started
                self.last_prefill = PrefillReport(cached, self.length - cached, encode_s, prefill_s)
                yield from hidden_states.split(CHUNK_TOKENS)

    def decode(self, token: int) -> Tensor:
        """Append one token; returns the logits [V] float32 of the next. An interrupt leaves the sequence without it.

        Raises ContextOverflowError where the context is full.
        """
        if self.length >= self.max_tokens:
            raise ContextOverflowError(
                f"the context of {self.max_tokens:,} tokens is full", hint="start with a larger --ctx"
            )
        self._ids[self.length :] = [token]
        hidden_states = self._forward((token,), None)
        with torch.inference_mode():
            return self._decoder.logits(hidden_states[0]).cpu()

    def snapshot(self) -> Snapshot:
        """Save the present state. It stays usable until the sequence is taken back to before it."""
        ids = tuple(self.ids)
        spans = tuple(span for span in self._prompt.spans if span.stop <= len(ids))
        return Snapshot(replace(self._prompt, ids=ids, spans=spans), self._cache.snapshot(), None)

    def restore(self, saved: Snapshot) -> None:
        """Return exactly to a snapshot. Raises MimoError where the sequence went back to before it since."""
        self._cache.restore(saved.kv_snapshot)
        self._ids, self._prompt = list(saved.prompt.ids), saved.prompt
        self._marks = [mark for mark in self._marks if len(mark) <= len(saved)]

    def trim(self, length: int) -> None:
        """Forget all tokens from position `length` on. Raises MimoError where a sliding window has left that place."""
        self._cache.trim(length)
        self._marks = [mark for mark in self._marks if len(mark) <= length]

    def _wave(self, tokens: int, chunk_tokens: int | None) -> Wave:
        if chunk_tokens is None and self._card:
            return Wave(min(tokens, CARD_WAVE_TOKENS))
        if chunk_tokens is None and self._memory:
            return self._memory.plan_wave(tokens)
        return Wave(chunk_tokens or CHUNK_TOKENS)

    def _new_cache(self) -> KVCache:
        return KVCache.for_decoder(self._config, self._kv_dtype, self.max_tokens)

    def _forward(self, ids: tuple[int, ...], rows: EncodedRows | None) -> Tensor:
        start = self.length
        if self._memory:
            self._memory.check()
        with torch.inference_mode():
            embeddings = self._decoder.embed(torch.tensor(ids))  # [n, H]
            if rows:
                rows.put(embeddings, start)
            elif self._on_token:
                self._on_token(ids[0], embeddings)
            states = self._run(embeddings[None], torch.arange(start, start + len(ids)))  # [1, n, H]
        self._cache.advance(len(ids))
        return states[0]

    def _run(self, embeddings: Tensor, positions: Tensor) -> Tensor:
        """Run the network, on the card if there is one. A pass for which that has no memory is done again with fewer
        experts on it: nothing of a pass counts before it is committed."""
        if self._card:
            embeddings, positions = embeddings.to(self._card.where), positions.to(self._card.where)
        while True:
            try:
                return self._decoder(embeddings, positions, self._cache, block_tokens=CHUNK_TOKENS)
            except torch.OutOfMemoryError:
                if self._card is None or not self._card.give_way():
                    raise

    @contextmanager
    def _layer_progress(self, tokens: int, total: int, on_progress: OnProgress | None) -> Iterator[None]:
        """Report a pass layer by layer, each as its share of the tokens: one pass of a large model takes minutes."""
        if on_progress is None:
            yield
            return
        layers, before = self._decoder.layers, self.length

        def report(done_layers: int) -> None:
            on_progress(Progress("read", before + tokens * done_layers // len(layers), total))

        hooks = [layer.register_forward_hook(lambda *_, i=i: report(i + 1)) for i, layer in enumerate(layers)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _rewind(self, length: int) -> None:
        """Go back to `length`, or to the nearest reachable place before it (at worst the beginning)."""
        self._marks = [mark for mark in self._marks if len(mark) <= length]
        if self._cache.can_trim(length):
            self._cache.trim(length)
        elif self._marks:
            self._cache.restore(self._marks[-1].kv_snapshot)
        else:
            self._cache = self._new_cache()

    def _mark_at(self, length: int) -> Snapshot | None:
        return next((mark for mark in self._marks if len(mark) == length), None)

    def _common_prefix(self, prompt: Prompt) -> int:
        """Return how many leading tokens of the prompt are what the sequence holds, media included."""
        limit = min(self.length, len(prompt))
        common = next((i for i in range(limit) if self._ids[i] != prompt.ids[i]), limit)
        ours = [span for span in self._prompt.spans if span.start < common]
        theirs = [span for span in prompt.spans if span.start < common]
        for our, their in zip_longest(ours, theirs):
            if our is None or their is None or not self._is_same_medium(our, prompt, their):
                return min(span.start for span in (our, their) if span)
        return common

    def _is_same_medium(self, our: Span, prompt: Prompt, their: Span) -> bool:
        if (our.start, our.length, our.stream, our.offset) != (their.start, their.length, their.stream, their.offset):
            return False
        mine, other = self._prompt.items[our.item], prompt.items[their.item]
        return mine is other or self._media.key(mine, our.stream) == self._media.key(other, their.stream)
