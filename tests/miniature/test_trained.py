"""The bundled miniature has learned something: one held-out question of each kind of task, answered greedily.

The questions are those of `mimo eval` that it answers with some certainty; how often it is right altogether stands in
docs/miniature.md. Those named here are right in bfloat16 as well, so that no kernel's rounding decides. After a new
training other questions may be the ones to name.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

import mimo_cli
from mimo_cli.api import Engine
from mimo_cli.evaluation.bundled import items_folder
from mimo_cli.evaluation.item import Item, read_items
from mimo_cli.evaluation.runner import outcomes
from mimo_cli.miniature.bundled import bundled_path, is_miniature, usual_temperature

ANSWERED: dict[str, tuple[str, ...]] = {
    "pictures colour": ("pictures-004", "pictures-032"),
    "pictures shape": ("pictures-006", "pictures-024"),
    "pictures what": ("pictures-014", "pictures-018"),
    "pictures where": ("pictures-058", "pictures-067"),
    "pictures count": ("pictures-002", "pictures-013"),
    "words word": ("words-001", "words-006"),
    "speech phrase": ("speech-000", "speech-003"),
    "speech word": ("speech-007", "speech-008"),
    "sounds what": ("sounds-000", "sounds-002"),
    "video moves": ("video-003", "video-004"),
    "text copy": ("text-002", "text-003"),
    "text lookup": ("text-004", "text-006"),
    "text reverse": ("text-018", "text-022"),
    "text sums": ("text-035", "text-044"),
    "text system": ("text-005", "text-008"),
    "tools call": ("tools-001", "tools-022"),
    "tools idle": ("tools-052", "tools-057"),
    "tools invented": ("tools-007", "tools-013"),
    "tools result": ("tools-005", "tools-010"),
    "mixed what": ("mixed-017", "mixed-025"),
}
MAX_BYTES = 25_000_000


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with mimo_cli.load(bundled_path(), dtype="float32") as loaded:
        yield loaded


@pytest.fixture(scope="module")
def items() -> dict[str, Item]:
    return {item.id: item for item in read_items(items_folder())}


@pytest.mark.parametrize("kind", sorted(ANSWERED))
def test_a_question_of_each_kind_is_answered(kind: str, engine: Engine, items: dict[str, Item]) -> None:
    for outcome in outcomes(engine, [items[name] for name in ANSWERED[kind]], drafted_per_task=0):
        assert outcome.score is not None and outcome.score.is_right, outcome.report()


def test_the_bundled_model_is_trained_small_and_says_what_it_is() -> None:
    folder = bundled_path()
    notice = is_miniature(folder)
    assert notice is not None and "16M-parameter demonstration model, not MiMo-V2.5" in notice
    assert usual_temperature(folder) == 0
    assert sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) <= MAX_BYTES
