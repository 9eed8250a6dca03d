from pathlib import Path

import pytest

from mimo_cli.api import Engine
from mimo_cli.errors import CheckpointError
from mimo_cli.evaluation.item import Item, read_items
from mimo_cli.evaluation.runner import Examiner, missing_senses, run
from mimo_cli.miniature.bundled import bundled_path
from tests.support.engines import miniature_engine
from tests.support.eval_items import item, small_folder
from tests.support.fake_engine import Script, scripted

CALL = (
    "<tool_call>\n<function=weather>\n<parameter=city>Rome</parameter>\n<parameter=days>2</parameter>\n"
    "</function>\n</tool_call>"
)


def says(*answers: str | Script, has_media: bool = True) -> Engine:
    """Return an engine that gives these answers."""
    return Engine(scripted(*answers, has_media=has_media)(bundled_path()))  # type: ignore[arg-type]


def test_every_answer_is_judged_in_a_conversation_of_its_own(tmp_path: Path) -> None:
    items = read_items(small_folder(tmp_path))
    engine = says("Red.", "blue", "go left", "go right", "now go left", "two", "Go left", CALL)
    heard = []
    results = run(engine, items, heard.append)
    assert heard == results.outcomes and not results.failed
    report = results.report()
    assert {task: values["score"] for task, values in report.items()} == {
        "pictures": 0.5,
        "speech": 0.5,
        "text": 1.0,
        "tools": 1.0,
    }
    assert report["speech"]["wer"] == 0.25 and report["speech"]["wer_noise"] == 0.5
    prompts = engine.core.prompts  # type: ignore[attr-defined]
    assert all("Red" not in prompt for prompt in prompts) and "<|im_start|>user\n1 + 1?" in prompts[5]


def test_no_thinking_is_asked_for_unless_the_item_wants_it() -> None:
    engine = says("two", "<think>one and one</think>two")
    outcomes = run(engine, [item(), item(thinking=True)]).outcomes
    assert [outcome.text for outcome in outcomes] == ["two", "two"]
    assert [prompt.endswith("</think>") for prompt in engine.core.prompts] == [True, False]  # type: ignore[attr-defined]


def test_an_answer_that_does_not_end_is_cut_and_wrong() -> None:
    outcome = run(says(Script("two" * 400)), [item()]).outcomes[0]
    assert outcome.finish_reason == "length" and outcome.score is not None and not outcome.score.is_right
    assert len(outcome.text) < 200


def test_an_item_that_cannot_be_read_is_an_error_of_its_own(tmp_path: Path) -> None:
    items = read_items(small_folder(tmp_path), ["pictures"])
    (tmp_path / "0.png").write_bytes(b"no picture")
    results = run(says("red"), items)
    assert [outcome.item.id for outcome in results.failed] == ["pictures-0"]
    assert results.task_report("pictures")["n"] == 1 and results.score("pictures") == 1.0


def test_a_damaged_model_ends_the_run() -> None:
    def fail() -> None:
        raise CheckpointError("shard 3 is cut off")

    with pytest.raises(CheckpointError):
        run(says(Script("two", {0: fail})), [item()])


def test_a_model_without_a_sense_is_known_before_it_is_asked(tmp_path: Path) -> None:
    items = read_items(small_folder(tmp_path))
    assert missing_senses(says(has_media=False), items) == ["hear", "see pictures"]
    assert missing_senses(says(), items) == []


def test_the_bundled_model_answers_and_its_drafts_are_judged(tmp_path: Path) -> None:
    items = read_items(small_folder(tmp_path), ["pictures", "speech"])[:3]
    results = Engine(miniature_engine())
    outcomes = run(results, items, drafted_per_task=1).outcomes
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert [outcome.acceptance is not None for outcome in outcomes] == [True, False, True]
    again = Examiner(results, 0)
    assert [again.ask(item).text for item in items] == [outcome.text for outcome in outcomes]


def test_items_without_files_need_none() -> None:
    question = Item("i", "text", "", ({"role": "user", "content": "Say x"},), ("x",))
    assert run(says("x"), [question]).score("text") == 1.0
