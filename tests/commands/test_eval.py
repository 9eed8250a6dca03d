import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mimo_cli.miniature.bundled import bundled_path
from tests.support.cli import Run, run_cli
from tests.support.eval_items import small_folder
from tests.support.fake_engine import FakeLoader, Script, scripted

Eval = Callable[..., Run]
TASK_KEYS = {"score", "n", "ci_low", "ci_high", "contains", "groups", "kinds", "seconds"}


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Eval:
    """Run `mimo eval` on the bundled miniature and eight small questions."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items").mkdir()
    small_folder(tmp_path / "items")
    (tmp_path / "text.txt").write_text("The red circle is left of the blue box. " * 3)
    return lambda *argv, **options: run_cli(
        "eval", "--items", "items", "--text", "text.txt", *argv, home=tmp_path, **options
    )


def without_forcing(loader: FakeLoader) -> dict[str, object]:
    """Scripted answers cannot be read with forced ids: the run stops at the first reading, as if by Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    return {"commands__loading__load_engine": loader, "commands__evaluation_run__reading_logits": interrupt}


def test_json_has_every_documented_key(evaluate: Eval) -> None:
    run = evaluate("--json", "-q")
    assert (run.code, run.err) == (0, "")
    report = json.loads(run.out)
    assert report["schema"] == 1 and report["partial"] is False and report["failed"] == [] and report["skipped"] == {}
    assert report["model"]["is_miniature"] is True and report["compute"]["dtype"] == "float32"
    assert {task: values["n"] for task, values in report["tasks"].items()} == {
        "pictures": 2,
        "speech": 2,
        "text": 2,
        "tools": 1,
    }
    assert not TASK_KEYS - report["tasks"]["pictures"].keys()
    assert {"wer", "wer_noise", "wer_ci_low", "wer_ci_high", "words"} <= report["tasks"]["speech"].keys()
    assert 0 <= report["mtp"]["acceptance_first"] <= 1 and len(report["mtp"]["acceptance"]) == 3
    text = report["perplexity"]["text"]
    assert text["perplexity"] > 1 and text["n"] > 20 and text["source"] == "text.txt" and text["bits_per_byte"] > 0
    assert report["perplexity"]["tasks"].keys() == report["tasks"].keys() and report["against"] is None
    assert "torch" in report["machine"]


def test_scripted_answers_give_the_table(evaluate: Eval) -> None:
    loader = scripted("red", "blue", "go left", "go right", "go up", "2", "go left", "I do not know")
    run = evaluate("-q", **without_forcing(loader))
    rows = {line.split()[0]: line.split() for line in run.out.splitlines() if line.strip()}
    assert rows["pictures"][1:4] == ["0.500", "0.095-0.905", "2"]
    assert rows["speech"][1] == "0.500" and rows["speech"][4:6] == ["25.0", "%"]
    assert rows["noise"][1] == "0.000" and rows["text"][1] == "1.000" and rows["tools"][1] == "0.000"
    assert rows["copy"][1] == rows["sum"][1] == "1.000"
    assert loader.engine is not None and loader.engine.is_closed


def test_ctrl_c_gives_what_was_done_so_far(evaluate: Eval) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    loader = scripted("red", "red", Script("go left", {0: interrupt}))
    run = evaluate("--json", commands__loading__load_engine=loader)
    assert run.code == 130 and "interrupted: these are the figures of what was done so far" in run.err
    report = json.loads(run.out)
    assert report["partial"] is True and report["tasks"].keys() == {"pictures"}
    assert report["tasks"]["pictures"]["score"] == 1.0 and report["perplexity"] == {}


def test_jsonl_tells_of_each_question_at_once(evaluate: Eval) -> None:
    loader = scripted("red", "blue")
    run = evaluate("-q", "--jsonl", "--tasks", "pictures", **without_forcing(loader))
    first, second, report = [json.loads(line) for line in run.out.splitlines()]
    assert (first["type"], first["id"], first["answer"], first["right"]) == ("item", "pictures-0", "red", True)
    assert (second["right"], second["expected"]) == (False, ["red"])
    assert report["type"] == "report" and report["tasks"]["pictures"]["score"] == 0.5


def test_a_model_against_itself_is_at_no_distance(evaluate: Eval) -> None:
    run = evaluate("--json", "-q", "--tasks", "pictures,tools", "--limit", "1", "--against", str(bundled_path()))
    against = json.loads(run.out)["against"]
    assert against["model"]["folder"] == str(bundled_path())
    for part in (against["divergence"]["text"], against["divergence"]["answers"]):
        assert part["mean_kld"] == 0.0 and part["same_top1"] == 1.0 and part["n"] > 1
    assert against["divergence"]["tasks"].keys() == {"pictures", "tools"}
    assert against["perplexity"] == json.loads(run.out)["perplexity"]


def test_another_type_of_numbers_is_shown_as_a_distance_table(evaluate: Eval) -> None:
    run = evaluate("-q", "--tasks", "none", "--against", str(bundled_path()))
    assert run.code == 0 and "time\n" not in run.out  # no table of tasks
    assert "answers" in run.out and "  tools" in run.out  # whose right answers are read all the same
    line = next(line for line in run.out.splitlines() if line.startswith("text "))
    assert line.split()[1:4] == ["0", "100.00", "%"]
    assert "nats per token" in run.out and "the reference's, text" in run.out


def test_a_question_that_cannot_be_asked_is_told_and_gives_exit_code_5(evaluate: Eval, tmp_path: Path) -> None:
    (tmp_path / "items" / "0.png").write_bytes(b"no picture")
    run = evaluate("--json", "--tasks", "pictures")
    report = json.loads(run.out)
    assert run.code == 5 and "item pictures-0" in run.err
    assert [failed["id"] for failed in report["failed"]] == ["pictures-0"] and report["tasks"]["pictures"]["n"] == 1


def test_tasks_beyond_a_models_senses_are_skipped(evaluate: Eval) -> None:
    loader = scripted("2", "go left", "what?", has_media=False)
    run = evaluate("--json", **without_forcing(loader))
    report = json.loads(run.out)
    assert report["skipped"] == {"pictures": "the model cannot see pictures", "speech": "the model cannot hear"}
    assert report["tasks"].keys() == {"text", "tools"} and "task speech is skipped" in run.err


def test_needles_fill_their_context_without_any_file(evaluate: Eval) -> None:
    loader = scripted("no", "no")
    run = evaluate("-q", "--json", "--tasks", "needle", "--limit", "2", **without_forcing(loader))
    assert json.loads(run.out)["tasks"]["needle"]["n"] == 2
    assert loader.engine is not None
    lengths = [len(ids) for ids in loader.engine.prompt_ids]
    assert all(4060 < length <= 4096 for length in lengths)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--json", "--jsonl"), "exclude each other"),
        (("--tasks", "picture"), "there is no task `picture`. TRY: --tasks pictures"),
        (("--tasks", ","), "--tasks names no task"),
        (("--items", "nowhere"), "holds no items"),
        (("--text", "nowhere.txt"), "does not exist"),
        (("--limit", "0"), "'--limit'"),
        (("--against", "no/model"), "is neither a folder nor a name"),
    ],
)
def test_wrong_input_is_one_line_before_anything_is_loaded(evaluate: Eval, argv: tuple[str, ...], message: str) -> None:
    run = evaluate(*argv)
    assert run.code in (2, 3) and run.out == "" and run.err.count("\n") == 1 and message in run.err
