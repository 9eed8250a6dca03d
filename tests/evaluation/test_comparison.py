import json
import shutil
from pathlib import Path

import pytest

from mimo_cli.engine.divergence import compare_logits
from mimo_cli.engine.load import load_engine
from mimo_cli.errors import UsageError
from mimo_cli.evaluation.comparison import compare, require_same_tokens
from mimo_cli.evaluation.forced import Reading
from mimo_cli.media.prompt import Prompt
from tests.support.engines import media_prompt, miniature_engine, picture
from tests.support.miniature import random_miniature

READINGS = [
    ("text", Reading(Prompt(tuple(range(20, 60))), 1)),
    ("answers/pictures", Reading(media_prompt([7, 8], picture(), [9, 10, 11]), 9)),
]


def test_a_model_is_no_distance_from_itself() -> None:
    engine = miniature_engine()
    for compared in compare(engine, engine, READINGS):
        assert compared.divergence.mean_kld == 0.0 and compared.divergence.same_top1 == 1.0
        assert compared.reference == compared.model


def test_another_precision_is_some_way_off_and_both_are_told_their_likelihood() -> None:
    reference = miniature_engine()
    with load_engine(random_miniature(), dtype="bfloat16") as model:
        found = list(compare(reference, model, READINGS))
        ids = READINGS[0][1].prompt.ids
        expected = compare_logits(reference.logits(ids)[:-1], model.logits(ids)[:-1].float())
    assert [one.name for one in found] == ["text", "answers/pictures"]
    assert found[0].divergence == expected and expected.mean_kld > 0
    assert found[0].reference.tokens == found[0].model.tokens == 39
    assert found[0].reference.mean_nll != found[0].model.mean_nll


def test_models_with_other_tokens_cannot_be_compared(tmp_path: Path) -> None:
    require_same_tokens(random_miniature(), random_miniature())
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(random_miniature() / name, tmp_path / name)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["model"]["merges"] = tokenizer["model"]["merges"][:-1]
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UsageError, match="different tokenizers"):
        require_same_tokens(random_miniature(), tmp_path)
