"""The sizes of releases agree with their configurations; slices keep one layer of each kind."""

from dataclasses import fields

import pytest

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.release_shapes import SHAPES, release_config, slice_config
from mimo_cli.errors import UsageError
from tests.support.family_configs import V2_5, V2_5_PRO, V2_6

NOT_OF_THE_TEXT_MODEL = {"vision", "audio", "processor", "raw", "pad_token_id", "num_nextn_predict_layers"}
RELEASED = {"v2.5": V2_5, "v2.5-pro": V2_5_PRO, "v2.6-flash": V2_6}


def kinds(config: ModelConfig) -> list[str]:
    return [
        f"{'sliding' if config.is_sliding(i) else 'global'} {'moe' if config.is_moe(i) else 'dense'}"
        for i in range(config.num_hidden_layers)
    ]


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_the_text_model_of_its_release(name: str) -> None:
    ours, released = release_config(name), ModelConfig.from_dict(RELEASED[name])
    for field in fields(ModelConfig):
        if field.name not in NOT_OF_THE_TEXT_MODEL:
            assert getattr(ours, field.name) == getattr(released, field.name), field.name


def test_three_layers_are_one_of_each_kind() -> None:
    for name in SHAPES:
        sliced = slice_config(release_config(name), 3)
        assert kinds(sliced) == ["global dense", "sliding moe", "global moe"]
        assert sliced.vocab_size == 152_576


def test_more_layers_follow_the_release() -> None:
    release = release_config("v2.5")
    assert kinds(slice_config(release, 5)) == ["global dense", *["sliding moe"] * 3, "global moe"]
    for layers in (6, 20, 48):
        assert kinds(slice_config(release, layers)) == kinds(release)[:layers]


def test_fewer_layers_are_the_first_ones() -> None:
    release = release_config("v2.5")
    assert kinds(slice_config(release, 1)) == ["global dense"]
    assert kinds(slice_config(release, 2)) == ["global dense", "sliding moe"]


@pytest.mark.parametrize("layers", [0, 49])
def test_other_numbers_of_layers_are_refused(layers: int) -> None:
    with pytest.raises(UsageError, match=f"{layers} layers are not possible, 1 to 48 expected"):
        slice_config(release_config("v2.5"), layers)


def test_other_names_are_refused() -> None:
    with pytest.raises(UsageError, match=r"`v3` is unknown, v2.5 or "):
        release_config("v3")
