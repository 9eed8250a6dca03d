"""Writing a miniature: a tiny checkpoint in exactly the layout of the MiMo-V2.5 release, with random weights.

    vocabulary, configuration -> weights by name -> checkpoint.writer (FP8 blocks, fused qkv, ranks and shards)

The same seed gives the same bytes on every machine. A trained miniature would be another folder of this layout.
"""

from pathlib import Path

from mimo_cli.chat.template import ChatTemplate
from mimo_cli.checkpoint.audio_config import AudioTokenizerConfig
from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.checkpoint.names import audio_tokenizer_weights
from mimo_cli.checkpoint.shard_writer import write_json
from mimo_cli.checkpoint.writer import StorageLayout, plan_files, write_audio_tokenizer, write_checkpoint
from mimo_cli.errors import UsageError
from mimo_cli.miniature.bundled import MARKER_FILE, NOTICE
from mimo_cli.miniature.configuration import (
    MERGES,
    MTP_MODULES,
    VOCAB_SIZE,
    audio_tokenizer_config,
    generation_config,
    model_config,
    preprocessor_config,
)
from mimo_cli.miniature.vocabulary import Vocabulary
from mimo_cli.miniature.weights import RandomWeights


def write_miniature(folder: Path, seed: int = 0) -> None:
    """Write a miniature of about 5 MB into a folder that is new or empty.

    Raises UsageError if something is in the folder, CapacityError or MimoError if it cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"`{folder}` exists and is not empty", hint="name a folder that is new or empty")
    vocabulary = Vocabulary.learn(MERGES, VOCAB_SIZE)
    values = model_config(vocabulary)
    config = ModelConfig.from_dict(values)
    random = RandomWeights(config, vocabulary, seed)
    layout = StorageLayout(num_mtp=MTP_MODULES)
    weights = (weight for file in plan_files(config, layout).values() for weight in file)
    write_checkpoint(folder, values, ((weight.name, random.weight(weight)) for weight in weights), layout)
    codec_values = audio_tokenizer_config()
    codec = audio_tokenizer_weights(AudioTokenizerConfig.from_dict(codec_values))
    write_audio_tokenizer(folder, codec_values, ((weight.name, random.weight(weight)) for weight in codec))
    write_json(folder / "tokenizer.json", vocabulary.tokenizer_json())
    write_json(folder / "tokenizer_config.json", vocabulary.tokenizer_config(ChatTemplate.built_in().text))
    write_json(folder / "generation_config.json", generation_config(vocabulary))
    write_json(folder / "preprocessor_config.json", preprocessor_config())
    write_json(folder / MARKER_FILE, {"notice": NOTICE, "weights": "random", "seed": seed})
