"""The figures of `mimo eval` that are not task scores, as JSON values: drafts, perplexity, divergence."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from mimo_cli.engine.divergence import Divergence
from mimo_cli.engine.divergence import join as join_divergences
from mimo_cli.evaluation.acceptance import Acceptance
from mimo_cli.evaluation.comparison import Compared
from mimo_cli.evaluation.forced import Likelihood
from mimo_cli.evaluation.forced import join as join_likelihoods

T = TypeVar("T")

TEXT, ANSWERS = "text", "answers"
"""Names of what is read: the text, and answers as `answers/TASK`."""


def acceptance_report(acceptance: Acceptance | None) -> dict[str, Any] | None:
    """Return the share of the modules' drafts that were the model's own next tokens, None without modules."""
    if acceptance is None or not acceptance.drafted:
        return None
    shares = acceptance.shares
    return {
        "acceptance_first": shares[0],
        "n": acceptance.drafted[0],
        "answers": acceptance.answers,
        "acceptance": shares,
    }


def likelihood_report(found: Iterable[tuple[str, Likelihood]], source: str, bytes_per_token: float) -> dict[str, Any]:
    """Return perplexities of the text and of right answers, of all and by task; only what was measured."""
    found = list(found)
    report: dict[str, Any] = {}
    texts = [one for name, one in found if name == TEXT]
    if texts:
        text = _likelihood(join_likelihoods(texts))
        report[TEXT] = {"source": source, **text, "bits_per_byte": text["nll"] / math.log(2) / bytes_per_token}
    answers = [(name, one) for name, one in found if name != TEXT]
    if answers:
        report[ANSWERS] = _likelihood(join_likelihoods([one for _, one in answers]))
        report["tasks"] = by_task(answers, lambda parts: _likelihood(join_likelihoods(parts)))
    return report


def divergence_report(compared: Sequence[Compared]) -> dict[str, Any]:
    """Return the divergences over the text, over all answers, and over the answers of each task."""
    report: dict[str, Any] = {}
    texts = [one.divergence for one in compared if one.name == TEXT]
    answers = [(one.name, one.divergence) for one in compared if one.name != TEXT]
    if texts:
        report[TEXT] = _divergence(join_divergences(texts))
    if answers:
        report[ANSWERS] = _divergence(join_divergences([one for _, one in answers]))
        report["tasks"] = by_task(answers, lambda parts: _divergence(join_divergences(parts)))
    return report


def by_task(found: Sequence[tuple[str, T]], join: Callable[[list[T]], dict[str, Any]]) -> dict[str, Any]:
    """Return one joint value for each name, without what stands before its slash."""
    names = dict.fromkeys(name for name, _ in found)
    return {name.partition("/")[2]: join([one for other, one in found if other == name]) for name in names}


def _likelihood(likelihood: Likelihood) -> dict[str, Any]:
    perplexity = likelihood.perplexity
    return {
        "perplexity": perplexity if math.isfinite(perplexity) else None,
        "nll": likelihood.mean_nll,
        "n": likelihood.tokens,
    }


def _divergence(divergence: Divergence) -> dict[str, Any]:
    return {
        "mean_kld": divergence.mean_kld,
        "same_top1": divergence.same_top1,
        "max_abs": divergence.max_abs,
        "n": divergence.tokens,
    }
