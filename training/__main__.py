"""`python -m training run STAGE [--out DIR]`: one stage, or all of them in order."""

import argparse
from pathlib import Path

import torch

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.vision_config import VisionConfig
from mimo_cli.miniature.vocabulary import Vocabulary
from training.architecture import model_config
from training.settings import Settings


def run_vision(out: Path, settings: Settings) -> None:
    """Stage `vision`."""
    from mimo_cli.model.vision import VisionTower  # noqa: PLC0415
    from training.stages.vision import VisionStage  # noqa: PLC0415

    config = ModelConfig.from_dict(model_config(Vocabulary.learn(344, 1280))).vision
    assert isinstance(config, VisionConfig)
    torch.manual_seed(settings.seed)
    VisionStage(VisionTower(config), out / "vision", settings.vision, settings.seed).train()


def run_audio(out: Path, settings: Settings) -> None:
    """Stage `audio`."""
    from mimo_cli.checkpoint.audio_config import AudioTokenizerConfig  # noqa: PLC0415
    from mimo_cli.model.audio_tokenizer import AudioTokenizer  # noqa: PLC0415
    from training.architecture import audio_tokenizer_config  # noqa: PLC0415
    from training.stages.audio import AudioStage, finish_codec  # noqa: PLC0415

    torch.manual_seed(settings.seed)
    codec = AudioTokenizer(AudioTokenizerConfig.from_dict(audio_tokenizer_config()))
    stage = AudioStage(codec, out / "speech", out / "audio", settings.audio, settings.seed)
    stage.train()
    stage.run.report(left_over=str([round(x, 3) for x in finish_codec(codec, out / "speech", settings.seed)]))
    torch.save(codec.state_dict(), out / "audio" / "codec.pt")


def run_trunk(out: Path, settings: Settings) -> None:
    """Stage `trunk`."""
    from mimo_cli.model.audio import AudioEncoder  # noqa: PLC0415
    from mimo_cli.model.decoder import TextModel  # noqa: PLC0415
    from mimo_cli.model.moe import ResidentExperts  # noqa: PLC0415
    from training.mix import text_sources  # noqa: PLC0415
    from training.prompts import Prompter  # noqa: PLC0415
    from training.sources import Shelf  # noqa: PLC0415
    from training.stages.trunk import TrunkStage  # noqa: PLC0415
    from training.words import WordVocabulary  # noqa: PLC0415

    prompter = Prompter(WordVocabulary.from_file())
    torch.manual_seed(settings.seed)
    model = TextModel(prompter.config, ResidentExperts(prompter.config))
    audio = AudioEncoder(prompter.config.audio)
    found = text_sources(prompter, settings.trunk.length)
    sources = {name: (found[name], weight) for name, weight in settings.trunk.sources.items()}
    TrunkStage(model, audio, sources, Shelf(), out / "trunk", settings.trunk, settings.seed).train()


STAGES = {"vision": run_vision, "audio": run_audio, "trunk": run_trunk}


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m training")
    parser.add_argument("command", choices=["run"])
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    STAGES[arguments.stage](arguments.out, Settings())


if __name__ == "__main__":
    main()
