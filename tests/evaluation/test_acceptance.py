import pytest

from mimo_cli.api import Engine
from mimo_cli.evaluation.acceptance import Acceptance, answer_acceptance
from mimo_cli.media.prompt import Prompt
from tests.support.engines import media_prompt, miniature_engine, picture


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(miniature_engine())


def drafted(engine: Engine, ids: tuple[int, ...], module: int) -> int:
    """What module k makes of ids for the token behind them: from the row that ends k + 1 tokens before."""
    return int(engine.draft_logits(ids)[module][-2 - module].argmax())


@pytest.mark.parametrize("module", [0, 1])
def test_an_answer_that_follows_the_drafts_is_accepted_whole(engine: Engine, module: int) -> None:
    prompt, ids = Prompt(tuple(range(20, 40))), (50,) * (module + 1)
    while len(ids) < module + 6:
        ids = (*ids, drafted(engine, prompt.ids + ids, module))
    acceptance = answer_acceptance(engine, prompt, ids, has_stopped=False)
    assert acceptance.drafted[module] == 5 and acceptance.accepted[module] == 5
    other = (*ids[:-1], (ids[-1] + 1) % 600)
    assert answer_acceptance(engine, prompt, other, has_stopped=False).accepted[module] == 4


def test_the_stop_behind_an_answer_is_one_more_draft(engine: Engine) -> None:
    prompt, ids = Prompt(tuple(range(20, 40))), (50, 51, 52)
    cut = answer_acceptance(engine, prompt, ids, has_stopped=False)
    stopped = answer_acceptance(engine, prompt, ids, has_stopped=True)
    assert (cut.drafted, stopped.drafted) == ((2, 1, 0), (3, 2, 1))


def test_prompts_with_media_are_read_with_them(engine: Engine) -> None:
    prompt = media_prompt([7, 8, 9], picture(), [10, 11])
    acceptance = answer_acceptance(engine, prompt, (50, 51, 52, 53), has_stopped=False)
    assert acceptance.drafted == (3, 2, 1) and acceptance.answers == 1


def test_shares_are_by_module_and_none_without_drafts() -> None:
    assert Acceptance((3, 0), (4, 0), 2).shares == [0.75, None]
