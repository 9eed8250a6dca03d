"""How far one model's predictions are from another's: two checkpoints, or two formats of one.

Both read the same ids, right answers included, and their logits are compared at every predicted token. The measure is
engine/divergence.py's, KL(reference || model) in nats.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mimo_cli.chat.tokenizer import Tokenizer
from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.engine.divergence import Divergence, compare_logits
from mimo_cli.engine.engine import Engine as LoadedEngine
from mimo_cli.errors import UsageError
from mimo_cli.evaluation.forced import Likelihood, Reading, likelihood, reading_logits


@dataclass(frozen=True)
class Compared:
    """One reading by both: what they were told of it, how far apart they are, and how well each foretold it."""

    name: str
    divergence: Divergence
    reference: Likelihood
    model: Likelihood


def require_same_tokens(reference: Path, model: Path) -> None:
    """Raise UsageError unless the models of two folders cut text into the same ids."""
    sizes = [ModelConfig.from_file(folder / "config.json").vocab_size for folder in (reference, model)]
    if sizes[0] != sizes[1] or len({Tokenizer.from_folder(folder).sha256 for folder in (reference, model)}) > 1:
        raise UsageError(
            f"the two models have different tokenizers (of {sizes[0]:,} and {sizes[1]:,} tokens), so their predictions "
            "cannot be compared",
            hint="compare formats of one model, or look at the scores of each",
        )


def compare(
    reference: LoadedEngine, model: LoadedEngine, readings: Iterable[tuple[str, Reading]]
) -> Iterator[Compared]:
    """Yield the comparison of each named reading."""
    for name, reading in readings:
        expected, found = reading_logits(reference, reading), reading_logits(model, reading)
        yield Compared(
            name,
            compare_logits(expected, found),
            likelihood(expected, reading.targets),
            likelihood(found, reading.targets),
        )
