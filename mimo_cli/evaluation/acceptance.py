"""How often the MTP modules foretell what the model itself goes on to say, greedily: the worth of speculation.

A module's draft counts as accepted where it is the very token the model chose. All modules are judged along the model's
own answer, so figures of later modules hold where the drafts before them were right.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mimo_cli.api import Engine
from mimo_cli.engine.drafting import draft_logits
from mimo_cli.media.prompt import Prompt


@dataclass(frozen=True)
class Acceptance:
    """Drafts that were right and drafts made, for each MTP module; of `answers` answers."""

    accepted: tuple[int, ...]
    drafted: tuple[int, ...]
    answers: int

    @property
    def shares(self) -> list[float | None]:
        """Accepted share of each module, None where it drafted nothing."""
        return [a / n if n else None for a, n in zip(self.accepted, self.drafted, strict=True)]


def answer_acceptance(engine: Engine, prompt: Prompt, answer_ids: tuple[int, ...], has_stopped: bool) -> Acceptance:
    """Measure the drafts along one greedy answer. has_stopped: a stop id followed, which is foretold like any token."""
    core, stops = engine.core, engine.speaker.stop_ids
    whole = prompt.followed_by(answer_ids)
    drafts = draft_logits(core.start_sequence(len(whole)), core.decoder, core.mtp, core.config, whole)
    end = len(whole) + has_stopped
    accepted, drafted = [], []
    for k, logits in enumerate(drafts):
        # Row p predicts token p + 2 + k; the first row that knows the whole prompt is its last.
        targets = range(len(prompt) + 1 + k, end)
        choices = logits.argmax(-1).tolist()
        right = (
            choices[target - 2 - k] in stops if target == len(whole) else choices[target - 2 - k] == whole.ids[target]
            for target in targets
        )
        accepted.append(sum(right))
        drafted.append(len(targets))
    return Acceptance(tuple(accepted), tuple(drafted), 1)


def join(parts: Sequence[Acceptance]) -> Acceptance | None:
    """Return the acceptance over several answers, None for none."""
    if not parts:
        return None
    accepted = tuple(map(sum, zip(*(part.accepted for part in parts), strict=True)))
    drafted = tuple(map(sum, zip(*(part.drafted for part in parts), strict=True)))
    return Acceptance(accepted, drafted, sum(part.answers for part in parts))
