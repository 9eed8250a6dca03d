"""How far the logits of one computation are from those of another: the measure behind every statement of quality."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Divergence:
    """Over `tokens` positions: mean KL divergence in nats, share of the same best token, largest difference."""

    tokens: int
    mean_kld: float
    same_top1: float
    max_abs: float


def compare_logits(reference: Tensor, logits: Tensor) -> Divergence:
    """Compare logits [T, V] with a reference [T, V]: KL(reference || logits), computed in float64."""
    if reference.shape != logits.shape or reference.dim() != 2:
        raise ValueError(f"logits [T, V] of one shape expected, found {list(reference.shape)} and {list(logits.shape)}")
    expected, found = reference.double().log_softmax(-1), logits.double().log_softmax(-1)
    kld = (expected.exp() * (expected - found)).sum(-1)  # [T]
    same = reference.argmax(-1) == logits.argmax(-1)
    largest = float((reference.double() - logits.double()).abs().max())
    return Divergence(len(reference), max(0.0, float(kld.mean())), float(same.double().mean()), largest)


def join(parts: list[Divergence]) -> Divergence:
    """Return the divergence over the tokens of several comparisons."""
    tokens = sum(part.tokens for part in parts)
    mean_kld = sum(part.mean_kld * part.tokens for part in parts) / tokens
    same_top1 = sum(part.same_top1 * part.tokens for part in parts) / tokens
    return Divergence(tokens, mean_kld, same_top1, max(part.max_abs for part in parts))
