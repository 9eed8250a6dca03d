"""An exported model is enough to go on training it."""

from pathlib import Path

import pytest
import torch

from mimo_cli.checkpoint.audio_config import AudioTokenizerConfig
from training.architecture import audio_tokenizer_config
from training.export import Parts, export, named_weights
from training.prompts import Prompter
from training.recipe import Recipe
from training.rounding import rounded_weights
from training.settings import Settings
from training.start import read_parts, save_stages
from training.words import WordVocabulary


@pytest.fixture
def parts(prompter: Prompter) -> Parts:
    return Parts.fresh(prompter.config, AudioTokenizerConfig.from_dict(audio_tokenizer_config()), 2)


def test_a_model_read_back_exports_to_the_same_bytes(parts: Parts, prompter: Prompter, tmp_path: Path) -> None:
    export(tmp_path / "one", parts, WordVocabulary.from_file(), {"seed": 2})
    other = Parts.fresh(prompter.config, AudioTokenizerConfig.from_dict(audio_tokenizer_config()), 3)
    read_parts(tmp_path / "one", other)
    exact = dict(rounded_weights(parts.text, prompter.config))
    for name, parameter in parts.text.named_parameters():
        found = other.text.get_parameter(name)
        torch.testing.assert_close(found, exact.get(parameter, parameter), atol=2e-3, rtol=5e-3)
    save_stages(other, tmp_path / "out")
    Recipe(tmp_path / "out", Settings(compiled=False)).export(tmp_path / "two")
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.safetensors"))
    assert files and all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


def test_stages_that_exist_are_not_written_over(parts: Parts, tmp_path: Path) -> None:
    save_stages(parts, tmp_path)
    with pytest.raises(SystemExit, match=r"exists already; name an empty folder"):
        save_stages(parts, tmp_path)


def test_the_mix_goes_on_from_a_bare_start(parts: Parts, prompter: Prompter, tmp_path: Path) -> None:
    save_stages(parts, tmp_path)
    recipe = Recipe(tmp_path, Settings(compiled=False))
    stage = recipe._trunk_stage("mix", recipe.settings.mix, after="text")
    for (name, one), (_, other) in zip(named_weights(parts), named_weights(recipe.parts), strict=True):
        assert ".mtp." in name or torch.equal(one, other), name  # drafts belong to another stage
    assert stage.run.step == 0
