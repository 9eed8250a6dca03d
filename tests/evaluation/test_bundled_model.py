"""One question of each task goes through the bundled model as `mimo eval` asks it, and gives the same answer twice."""

import pytest

from mimo_cli.api import Engine
from mimo_cli.evaluation.bundled import TASKS, items_folder
from mimo_cli.evaluation.forced import answer_readings, reading_logits
from mimo_cli.evaluation.item import Item, read_items
from mimo_cli.evaluation.needle import needle_items
from mimo_cli.evaluation.normalize import normal_calls
from mimo_cli.evaluation.runner import run
from tests.support.engines import miniature_engine


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(miniature_engine())


def first_of(task: str) -> Item:
    if task == "needle":
        return needle_items(1, 300, lambda text: len(text) // 3)[0]
    return read_items(items_folder(), [task])[0]


@pytest.mark.parametrize("task", TASKS)
def test_a_question_of_each_task_is_asked_and_answered_alike_every_time(engine: Engine, task: str) -> None:
    item = first_of(task)
    one, other = run(engine, [item, item], drafted_per_task=1).outcomes
    assert one.error is None and one.score is not None and one.finish_reason
    assert one.text == other.text and normal_calls(one.tool_calls) == normal_calls(other.tool_calls)
    assert one.acceptance is not None and len(one.acceptance.shares) == len(engine.core.mtp)


@pytest.mark.parametrize("task", TASKS)
def test_the_right_answer_to_each_task_can_be_read(engine: Engine, task: str) -> None:
    [(name, reading)] = list(answer_readings(engine, [first_of(task)]))
    logits = reading_logits(engine.core, reading)
    assert name == task and logits.shape == (len(reading.targets), engine.config.vocab_size)
    assert bool(logits.isfinite().all())
