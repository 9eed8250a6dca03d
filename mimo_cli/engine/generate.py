"""Token ids in, token ids out: read a prompt, then sample and decode until a stop rule holds.

    prompt -> Sequence.prefill -> logits -> Sampler.choose -> Step -> Sequence.decode -> logits -> ...

A token is yielded before it enters the KV cache, so the caller sees it as early as possible; the last one never
enters. Whatever happens in between (Ctrl-C, an error), the sequence holds whole tokens only.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from torch import Tensor

from mimo_cli.engine.memory import peak_rss_bytes
from mimo_cli.engine.sampling import Sampler, SamplingParams
from mimo_cli.engine.sequence import Sequence
from mimo_cli.engine.stats import ExpertTraffic, GenerationStats, OnProgress
from mimo_cli.media.prompt import Prompt

FinishReason: TypeAlias = Literal["stop", "length", "context"]
Force: TypeAlias = Callable[[list[int]], Iterable[int]]
"""Asked before every choice: given the tokens so far, tokens that must come next (none: the model chooses)."""

_MEMORY_LOOKS_S = 0.25


@dataclass(frozen=True)
class Step:
    """One token. The last step of a generation says why it ended: a stop id (which is `token`), max_tokens, or a
    full context. A forced token was asked for by the caller instead of being sampled."""

    token: int
    is_forced: bool = False
    finish_reason: FinishReason | None = None


class Generation(Iterator[Step]):
    """The running generation: iterate for steps; `tokens`, `stats` and `finish_reason` are right at any moment, but for
    the peak of memory, which is looked up now and then and at the end.

    Nothing runs before the first step is asked for. An interrupted `next` (Ctrl-C) may simply be called again: it
    goes on with the token that was under way.
    """

    def __init__(
        self,
        sequence: Sequence,
        prompt: Prompt,
        params: SamplingParams,
        *,
        chunk_tokens: int | None = None,
        on_progress: OnProgress | None = None,
        force: Force | None = None,
    ) -> None:
        self.sequence = sequence
        self.prompt = prompt
        self.params = params
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.stats = GenerationStats(prompt_tokens=len(prompt), context_limit=sequence.max_tokens)
        self._force = force or (lambda tokens: ())
        self._forced: deque[int] = deque()
        self._chunk_tokens = chunk_tokens
        self._on_progress = on_progress
        self._sampler = Sampler(params, sequence.vocab_size)
        self.stats.seed = self._sampler.seed
        self._is_interrupted = False
        self._next_look_s = 0.0

    def __next__(self) -> Step:
        if self.finish_reason:
            raise StopIteration
        started = time.perf_counter()
        before = self.sequence.expert_traffic()
        step = self._next_step(self._next_logits())
        self._record(step, time.perf_counter() - started, self.sequence.expert_traffic() - before)
        return step

    def _next_logits(self) -> Tensor:
        if not self.tokens:
            return self._read_prompt()
        was_interrupted, self._is_interrupted = self._is_interrupted, True
        if was_interrupted:  # the last token may or may not have entered the cache: prefill looks
            ids = self.prompt.ids + tuple(self.tokens)
            return self.sequence.prefill(replace(self.prompt, ids=ids))
        return self.sequence.decode(self.tokens[-1])

    def _read_prompt(self) -> Tensor:
        logits = self.sequence.prefill(self.prompt, self._chunk_tokens, self._on_progress)
        self._sampler.observe(self.prompt.ids)
        report = self.sequence.last_prefill
        self.stats.cached_tokens = report.cached_tokens
        self.stats.encode_s, self.stats.prefill_s = report.encode_s, report.prefill_s
        return logits

    def _next_step(self, logits: Tensor) -> Step:
        if not self._forced:
            self._forced.extend(self._force(self.tokens))
        is_forced = bool(self._forced)
        # A forced token waits until it is recorded, or an interrupt before that would lose it.
        token = self._forced[0] if is_forced else self._sampler.choose(logits)
        if is_forced:
            self._sampler.observe((token,))
        return Step(token, is_forced, self._finish_reason(token))

    def _finish_reason(self, token: int) -> FinishReason | None:
        generated = len(self.tokens) + 1
        if token in self.params.stop_ids:
            return "stop"
        if self.params.max_tokens is not None and generated >= self.params.max_tokens:
            return "length"
        # The token itself still needs a place before the next one can be asked for.
        return "context" if self.sequence.length >= self.sequence.max_tokens else None

    def _record(self, step: Step, seconds: float, traffic: ExpertTraffic) -> None:
        stats, sequence = self.stats, self.sequence
        if self.tokens:
            stats.decode_s += seconds
            stats.decode_experts += traffic
        else:
            stats.first_token_s, stats.prefill_experts = seconds, traffic
        self.tokens.append(step.token)
        self._is_interrupted = False  # not before: the last token is in the cache and would be decoded once more
        if step.is_forced:
            self._forced.popleft()
        self.finish_reason = step.finish_reason
        stats.generated_tokens = len(self.tokens)
        now = time.monotonic()
        if self.finish_reason or now >= self._next_look_s:  # the system's answer takes a good part of a millisecond
            self._next_look_s = now + _MEMORY_LOOKS_S
            stats.peak_rss_bytes = peak_rss_bytes()
        stats.kv_bytes, stats.context_tokens = sequence.kv_bytes, sequence.length


def generate(
    sequence: Sequence,
    prompt: Prompt,
    params: SamplingParams,
    *,
    chunk_tokens: int | None = None,
    on_progress: OnProgress | None = None,
    force: Force | None = None,
) -> Generation:
    """Continue a prompt; returns an iterator of Step that also carries `tokens`, `stats` and `finish_reason`.

    What the sequence already holds of the prompt is not read again. Raises, from the first step on, what
    Sequence.prefill and Sampler.choose raise.
    """
    return Generation(sequence, prompt, params, chunk_tokens=chunk_tokens, on_progress=on_progress, force=force)
