from mimo_cli.evaluation.acceptance import Acceptance
from mimo_cli.evaluation.intervals import wilson
from mimo_cli.evaluation.results import Outcome, Results, figures
from mimo_cli.evaluation.scoring import Score
from tests.support.eval_items import item


def outcome(is_right: bool, errors: int = 0, words: int = 0, **about: str) -> Outcome:
    return Outcome(item(**about), score=Score(is_right, is_right, errors, words), seconds=0.5)


def test_a_share_comes_with_n_and_interval() -> None:
    found = figures([outcome(True), outcome(True), outcome(False), outcome(True)])
    assert (found["score"], found["n"]) == (0.75, 4)
    assert (found["ci_low"], found["ci_high"]) == wilson(0.75, 4)
    assert "wer" not in found


def test_the_word_error_rate_is_over_all_words() -> None:
    found = figures([outcome(True, 0, 6), outcome(False, 2, 2)])
    assert (found["wer"], found["words"]) == (0.25, 8)
    assert found["wer_ci_low"] < 0.25 < found["wer_ci_high"]


def test_nothing_asked_is_no_score() -> None:
    assert figures([])["score"] is None and Results().task_report("text")["n"] == 0


def test_groups_stand_beside_the_main_figure_and_do_not_change_it() -> None:
    results = Results([outcome(True), outcome(True), outcome(False, group="free"), outcome(False, kind="copy")])
    report = results.task_report("text")
    assert (report["score"], report["n"]) == (2 / 3, 3)
    assert (report["score_free"], report["n_free"]) == (0.0, 1)
    assert {kind: values["n"] for kind, values in report["kinds"].items()} == {"copy": 1, "sum": 2}
    assert report["groups"]["free"]["n"] == 1 and report["seconds"] == 2.0


def test_groups_of_spoken_words_are_told_by_their_error_rate() -> None:
    results = Results([outcome(True, 0, 4), outcome(False, 1, 4, group="noise"), outcome(False, 2, 4, group="unseen")])
    report = results.task_report("text")
    assert (report["wer"], report["wer_noise"], report["wer_unseen"]) == (0.0, 0.25, 0.5)


def test_without_an_unnamed_group_the_first_one_is_the_main_figure() -> None:
    report = Results([outcome(True, group="a"), outcome(False, group="b")]).task_report("text")
    assert (report["score"], report["score_b"]) == (1.0, 0.0)


def test_tasks_keep_the_order_in_which_they_were_asked() -> None:
    results = Results()
    for task in ("words", "pictures", "words"):
        results.add(outcome(True, task=task))
    assert list(results.report()) == ["words", "pictures"] and results.report()["words"]["n"] == 2


def test_items_with_errors_are_listed_and_count_for_nothing() -> None:
    broken = Outcome(item(), error="no such file")
    results = Results([broken, outcome(True)])
    assert results.failed == [broken] and results.task_report("text")["n"] == 1
    assert broken.report()["error"] == "no such file" and broken.report()["right"] is None


def test_acceptance_is_joined_over_answers() -> None:
    results = Results([Outcome(item(), acceptance=Acceptance((1, 0), (2, 1), 1)), outcome(True)])
    results.add(Outcome(item(), acceptance=Acceptance((3, 1), (4, 3), 1)))
    assert results.acceptance() == Acceptance((4, 1), (6, 4), 2)
    assert Results().acceptance() is None
