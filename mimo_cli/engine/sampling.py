"""From the logits of one position to the next token: SamplingParams, and the Sampler that owns the random numbers.

The filters apply in this order, each to what the one before left over:

    banned ids -> repetition penalty -> temperature -> top-k -> top-p -> min-p -> one draw

With temperature 0 the first two are followed by the argmax (lowest id of equals) and nothing is drawn.
"""

import math
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mimo_cli.errors import MimoError, UsageError

_FIRST_CANDIDATES = 512
"""Tokens sorted at first. The nucleus of a trained model is smaller, and a full sort costs 20 times as much."""


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are chosen and when generation ends. The defaults are what the model's card recommends.

    temperature     0 = greedy; otherwise logits are divided by it
    top_p           smallest set of most probable tokens whose sum reaches it; 1 = off
    top_k           so many most probable tokens; 0 = off
    min_p           tokens at least this fraction as probable as the most probable one; 0 = off
    repetition_penalty  divides positive and multiplies negative logits of tokens seen in prompt and answer; 1 = off
    seed            of the sampler's own generator; None draws one (`Sampler.seed` tells which)
    max_tokens      generated at most; None = until the context is full
    stop_ids        tokens that end generation
    banned_ids      tokens never chosen, for example the rows of the head that have no text (a range is fine)
    """

    temperature: float = 1.0
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    max_tokens: int | None = None
    stop_ids: Collection[int] = ()
    banned_ids: Collection[int] = ()

    def __post_init__(self) -> None:
        _require(0 <= self.temperature < math.inf, f"temperature must be 0 or more, found {self.temperature}")
        _require(0 < self.top_p <= 1, f"top_p must be above 0 and at most 1, found {self.top_p}")
        _require(self.top_k >= 0, f"top_k must be 0 (off) or more, found {self.top_k}")
        _require(0 <= self.min_p <= 1, f"min_p must be from 0 to 1, found {self.min_p}")
        _require(
            0 < self.repetition_penalty < math.inf,
            f"repetition_penalty must be above 0 (1 = off), found {self.repetition_penalty}",
        )
        _require(
            self.max_tokens is None or self.max_tokens > 0, f"max_tokens must be positive, found {self.max_tokens}"
        )
        _require(self.seed is None or 0 <= self.seed < 2**63, f"seed must be from 0 to 2^63 - 1, found {self.seed}")

    @property
    def is_greedy(self) -> bool:
        """Tell whether no random number decides."""
        return self.temperature == 0


class Sampler:
    """Chooses tokens for one generation. Same seed, same logits, same tokens, whatever else the process draws."""

    def __init__(self, params: SamplingParams, vocab_size: int) -> None:
        self.params = params
        self.seed = secrets.randbits(48) if params.seed is None else params.seed
        self._generator = torch.Generator().manual_seed(self.seed)
        self._seen = torch.zeros(vocab_size, dtype=torch.bool)
        self._banned = torch.tensor(sorted(i for i in params.banned_ids if 0 <= i < vocab_size), dtype=torch.long)
        _require(len(self._banned) < vocab_size, "every token is banned")

    def observe(self, ids: Iterable[int]) -> None:
        """Count tokens as seen, for the repetition penalty. Chosen tokens are observed by `choose` itself."""
        if self.params.repetition_penalty != 1:
            self._seen[torch.tensor(list(ids), dtype=torch.long)] = True

    def choose(self, logits: Tensor) -> int:
        """Return the next token for logits [V] of any float dtype (not changed).

        Raises MimoError where a logit is not a finite number.
        """
        scores = logits.detach().to("cpu", torch.float32, copy=True)
        # By numpy: torch would wake threads, for longer than this takes.
        if not np.isfinite(scores.numpy()).all():
            raise MimoError(
                "the network's output is not finite (NaN or infinity among the logits)",
                hint="check the weights with `mimo inspect`; try --dtype float32",
            )
        scores[self._banned] = -math.inf
        self._penalize(scores)
        token = int(scores.numpy().argmax()) if self.params.is_greedy else self._draw(scores)
        self.observe((token,))
        return token

    def _penalize(self, scores: Tensor) -> None:
        penalty = self.params.repetition_penalty
        if penalty != 1:
            seen = scores[self._seen]
            scores[self._seen] = torch.where(seen > 0, seen / penalty, seen * penalty)

    def _draw(self, scores: Tensor) -> int:
        probabilities, ids = self.distribution(scores)
        cumulative = probabilities.cumsum(0)
        # One uniform number per token, searched in float64: how many candidates are left does not change the draw.
        uniform = torch.rand((), generator=self._generator, dtype=torch.float64) * cumulative[-1]
        return int(ids[min(int(torch.searchsorted(cumulative, uniform, right=True)), len(ids) - 1)])

    def distribution(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities (float64, falling, sum at most 1) and ids of the tokens that survive the filters.

        scores [V] float32 with -inf for banned tokens. Equal probabilities are ordered by id.
        """
        params = self.params
        probabilities = torch.softmax(scores.double() / params.temperature, dim=0)
        limit = min(params.top_k or len(scores), len(scores))
        kept, ids = _most_probable(probabilities, min(limit, _FIRST_CANDIDATES))
        total = probabilities.sum() if limit == len(scores) else _most_probable(probabilities, limit)[0].sum()
        if kept.sum() < params.top_p * total and len(kept) < limit:
            kept, ids = _most_probable(probabilities, limit)
        before = kept.cumsum(0) - kept  # what the more probable ones sum to: the first token always survives
        alive = (before < params.top_p * total) & (kept >= params.min_p * kept[0]) & (kept > 0)
        return kept[alive], ids[alive]


def _most_probable(probabilities: Tensor, count: int) -> tuple[Tensor, Tensor]:
    # topk leaves the order of equals open; sorting its few results by id first makes the draw the same everywhere.
    ids = torch.topk(probabilities, count).indices.sort().values
    kept, order = torch.sort(probabilities[ids], descending=True, stable=True)
    return kept, ids[order]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise UsageError(message)
