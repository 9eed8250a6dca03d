"""Outcomes of items to figures: scores with their intervals by task, group and kind, as documented JSON values."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from mimo_cli.chat.messages import ToolCall
from mimo_cli.evaluation.acceptance import Acceptance
from mimo_cli.evaluation.acceptance import join as join_acceptance
from mimo_cli.evaluation.intervals import error_rate_interval, wilson
from mimo_cli.evaluation.item import Item
from mimo_cli.evaluation.scoring import Score


@dataclass(frozen=True)
class Outcome:
    """What became of one item: the answer and its score, or the error for which it could not be asked."""

    item: Item
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = ""
    score: Score | None = None
    acceptance: Acceptance | None = None
    error: str | None = None
    seconds: float = 0.0

    def report(self) -> dict[str, Any]:
        """Return what there is to see of this item, for one JSON line."""
        item = self.item
        return {
            "id": item.id,
            "task": item.task,
            "group": item.group,
            "kind": item.kind,
            "right": self.score.is_right if self.score else None,
            "answer": self.text,
            "tool_calls": [{"name": call.name, "arguments": call.arguments} for call in self.tool_calls],
            "expected": list(item.answers)
            or [{"name": call.name, "arguments": call.arguments} for call in item.tool_calls],
            "word_errors": self.score.word_errors if self.score and self.score.words else None,
            "finish_reason": self.finish_reason,
            "error": self.error,
            "seconds": round(self.seconds, 3),
        }


@dataclass
class Results:
    """The outcomes so far, and figures of them. Tasks stand in the order in which they were asked."""

    outcomes: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Take one more outcome."""
        self.outcomes.append(outcome)

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks that were asked."""
        return list(dict.fromkeys(outcome.item.task for outcome in self.outcomes))

    @property
    def failed(self) -> list[Outcome]:
        """Items that could not be asked."""
        return [outcome for outcome in self.outcomes if outcome.error is not None]

    def score(self, task: str) -> float | None:
        """Return the share of right answers of a task, None where nothing was asked."""
        score: float | None = self.task_report(task)["score"]
        return score

    def acceptance(self) -> Acceptance | None:
        """Return the MTP modules' acceptance over all answers along which it was measured."""
        return join_acceptance([outcome.acceptance for outcome in self.outcomes if outcome.acceptance])

    def report(self) -> dict[str, Any]:
        """Return the figures of every task by name."""
        return {task: self.task_report(task) for task in self.tasks}

    def task_report(self, task: str) -> dict[str, Any]:
        """Return the figures of one task: those of its main group, then those of groups and kinds.

        The main group is the unnamed one, or the first where all are named. Figures of a named group also stand beside
        the main ones: `wer_noise`, or `score_free` and `n_free` where no words are counted.
        """
        found = [outcome for outcome in self.outcomes if outcome.item.task == task]
        groups = dict.fromkeys(outcome.item.group for outcome in found)
        main = "" if "" in groups else next(iter(groups), "")
        mine = [outcome for outcome in found if outcome.item.group == main]
        report = figures(mine)
        by_group = {group: figures(o for o in found if o.item.group == group) for group in groups if group != main}
        for group, values in by_group.items():
            keys = ("wer", "n") if "wer" in values else ("score", "n")
            report |= {f"{key}_{group}": values[key] for key in keys}
        kinds = sorted({outcome.item.kind for outcome in mine if outcome.item.kind})
        report["groups"] = by_group
        report["kinds"] = {kind: figures(o for o in mine if o.item.kind == kind) for kind in kinds}
        report["seconds"] = round(sum(outcome.seconds for outcome in found), 3)
        return report


def figures(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """Return score, n and interval of some outcomes, and word error rate where words were counted."""
    scores = [outcome.score for outcome in outcomes if outcome.score is not None]
    n = len(scores)
    if not n:
        return {"score": None, "n": 0, "ci_low": None, "ci_high": None, "contains": None}
    share = sum(score.is_right for score in scores) / n
    low, high = wilson(share, n)
    report: dict[str, Any] = {
        "score": share,
        "n": n,
        "ci_low": low,
        "ci_high": high,
        "contains": sum(score.is_contained for score in scores) / n,
    }
    errors, words = [score.word_errors for score in scores], [score.words for score in scores]
    if sum(words):
        low, high = error_rate_interval(errors, words)
        report |= {"wer": sum(errors) / sum(words), "wer_ci_low": low, "wer_ci_high": high, "words": sum(words)}
    return report
