import math
from pathlib import Path

import pytest
import torch

from mimo_cli.api import Engine
from mimo_cli.evaluation.forced import (
    Likelihood,
    Reading,
    answer_reading,
    join,
    likelihood,
    reading_logits,
    text_readings,
)
from mimo_cli.evaluation.item import read_items
from mimo_cli.media.prompt import Prompt
from tests.support.engines import miniature_engine
from tests.support.eval_items import small_folder


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(miniature_engine())


def test_the_right_answer_is_read_behind_the_prompt_up_to_the_end_of_the_turn(engine: Engine, tmp_path: Path) -> None:
    for item in read_items(small_folder(tmp_path)):
        reading = answer_reading(engine, item)
        assert reading is not None
        answer = engine.tokenizer.decode(reading.targets)
        assert answer.endswith("<|im_end|>") and answer.count("<|im_end|>") == 1
        if item.scoring == "tool_calls":
            assert "<function=weather>" in answer and "<parameter=city>Rome</parameter>" in answer
        else:
            assert answer == f"{item.answers[0]}<|im_end|>"
        assert len(reading.prompt.spans) == len(item.senses)


def test_the_prompt_is_the_one_that_chat_would_ask_with(engine: Engine, tmp_path: Path) -> None:
    item = read_items(small_folder(tmp_path), ["tools"])[0]
    reading = answer_reading(engine, item)
    prompt = engine.speaker.builder.build(item.read(engine.media_opener), list(item.tools), thinking=False)
    assert reading is not None and reading.prompt.ids[: reading.start] == prompt.ids


def test_logits_are_those_that_predict_the_targets(engine: Engine) -> None:
    ids = tuple(range(20, 50))
    everything = engine.logits(ids)
    assert torch.equal(reading_logits(engine.core, Reading(Prompt(ids), 12)), everything[11:-1])


def test_a_text_is_cut_into_windows_that_predict_all_but_their_first_token() -> None:
    readings = list(text_readings(list(range(11)), 5))
    assert [reading.prompt.ids for reading in readings] == [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9)]
    assert [reading.targets for reading in readings] == [(1, 2, 3, 4), (6, 7, 8, 9)]


def test_likelihood_is_the_mean_over_tokens() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.125, 0.125, 0.75]]))
    found = likelihood(logits, (0, 1))
    assert found.mean_nll == pytest.approx((math.log(2) + math.log(8)) / 2)
    assert found.perplexity == pytest.approx(4.0) and found.tokens == 2
    joint = join([found, Likelihood(0.0, 6)])
    assert joint.mean_nll == pytest.approx(found.mean_nll / 4) and joint.tokens == 8


def test_a_perplexity_beyond_all_numbers_is_infinite() -> None:
    assert Likelihood(1e4, 1).perplexity == math.inf
