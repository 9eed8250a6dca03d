"""The exported folder is the trained network: same answers through the runtime's own loader."""

from pathlib import Path

import pytest
import torch

from mimo_cli import api
from mimo_cli.checkpoint.audio_config import AudioTokenizerConfig
from training.architecture import audio_tokenizer_config
from training.export import NOTICE, Parts, export
from training.prompts import Prompter
from training.rounding import rounded
from training.words import WordVocabulary

MAX_BYTES = 25_000_000


@pytest.fixture(scope="module")
def parts(prompter: Prompter) -> Parts:
    return Parts.fresh(prompter.config, AudioTokenizerConfig.from_dict(audio_tokenizer_config()), 2)


@pytest.fixture(scope="module")
def folder(parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("miniature") / "model"
    export(path, parts, WordVocabulary.from_file(), {"seed": 2})
    return path


def test_a_miniature_fits_its_budget_and_names_itself(folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= MAX_BYTES
    assert NOTICE in (folder / "mimo_miniature.json").read_text()


def test_logits_are_those_of_the_rounded_network(folder: Path, parts: Parts, prompter: Prompter) -> None:
    ids = list(prompter.encode("What is the colour of the circle?"))
    engine = api.load(folder, dtype="float32")
    found = torch.as_tensor(engine.logits(ids))
    model = parts.text
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "embed_tokens.weight", "lm_head.weight")):
                parameter.copy_(parameter.bfloat16())
        with rounded(model, model.config):
            states = model(model.embed(torch.tensor(ids))[None], torch.arange(len(ids)))
            expected = model.logits(states)[0]
    found = found.view(-1, found.shape[-1])
    # Products of the packed kernels sum in another order; everything else is the same float32 arithmetic.
    torch.testing.assert_close(found[-1], expected[-1], atol=2e-3, rtol=1e-3)
