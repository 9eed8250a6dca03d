"""What a plan is about: a model's folder or the shape of a release, as sizes in whatever formats are asked for."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mimo_cli.checkpoint.audio_config import AudioTokenizerConfig
from mimo_cli.checkpoint.config import ModelConfig, read_json
from mimo_cli.checkpoint.contents import AUDIO_TOKENIZER_FOLDER
from mimo_cli.checkpoint.release_shapes import release_audio_tokenizer, release_config, slice_config
from mimo_cli.commands.model_choice import CONFIG_FILE, ModelChoice
from mimo_cli.engine.load import choose_dtype
from mimo_cli.engine.model_sizes import ExpertsFormat, Extras, ModelSizes, model_sizes
from mimo_cli.errors import CheckpointError
from mimo_cli.store.opened import OpenModel, open_model
from mimo_cli.store.plan import DenseFormat

Resize = Callable[[ExpertsFormat, DenseFormat], ModelSizes]


@dataclass(frozen=True)
class PlanSubject:
    """A model to plan for. `folder` is None for a shape; `resize` gives its sizes in formats `mimo quantize` makes.

    experts, dense    the formats it has as it is
    """

    name: str
    config: ModelConfig
    folder: Path | None
    resize: Resize
    experts: ExpertsFormat = "as released"
    dense: DenseFormat = "keep"
    record_bytes: int | None = None

    def sizes(self, experts: ExpertsFormat | None = None, dense: DenseFormat | None = None) -> ModelSizes:
        """Return the sizes in some formats; None leaves a format as it is."""
        found = self.resize(experts or self.experts, dense or self.dense)
        if self.record_bytes is None or experts not in (None, self.experts):
            return found
        return replace(found, record_bytes=self.record_bytes, expert_stored_bytes=self.record_bytes)


def shape_subject(shape: str, layers: int | None, dtype: str) -> PlanSubject:
    """Return a release by the name of its shape, or only its first layers and then the text network alone.

    Raises UsageError for a name or number of layers that is none.
    """
    release = release_config(shape)
    if layers is not None:
        config = slice_config(release, layers)
        return _subject(f"{shape}, {layers} layers", config, None, Extras(), dtype)
    extras = Extras(release.num_nextn_predict_layers or 0, release.vision is not None, release_audio_tokenizer(release))
    return _subject(shape, release, None, extras, dtype)


def folder_subject(choice: ModelChoice, dtype: str) -> PlanSubject:
    """Return the model in a folder; weights that are not there yet are taken as the release has them.

    Raises CheckpointError where config.json is missing or damaged.
    """
    config = ModelConfig.from_file(choice.folder / CONFIG_FILE)
    codec_file = choice.folder / AUDIO_TOKENIZER_FOLDER / CONFIG_FILE
    has_codec = config.audio is not None and codec_file.is_file()
    codec = AudioTokenizerConfig.from_dict(read_json(codec_file)) if has_codec else None
    extras = Extras(config.num_nextn_predict_layers or 0, config.vision is not None, codec)
    opened = _open(choice.folder, config)
    if opened is None:
        return _subject(choice.name, config, choice.folder, extras, dtype)
    contents = opened.contents
    extras = Extras(contents.num_mtp, contents.has_vision, codec if contents.has_audio else None)
    subject = _subject(choice.name, config, choice.folder, extras, dtype)
    manifest = opened.manifest
    if manifest is None:
        return subject
    packed = next(iter(manifest.packed.values()), None)
    dense: DenseFormat = packed.format if packed else "keep"  # type: ignore[assignment]
    if manifest.records is None:
        return replace(subject, dense=dense)
    experts: ExpertsFormat = manifest.records.format  # type: ignore[assignment]
    return replace(subject, experts=experts, dense=dense, record_bytes=manifest.records.record_bytes)


def _open(folder: Path, config: ModelConfig) -> OpenModel | None:
    try:
        return open_model(folder, config)
    except CheckpointError:  # not downloaded, or not whole: a plan needs no weights
        return None


def _subject(name: str, config: ModelConfig, folder: Path | None, extras: Extras, dtype: str) -> PlanSubject:
    compute_dtype = choose_dtype(dtype, config)

    def resize(experts: ExpertsFormat, dense: DenseFormat) -> ModelSizes:
        return model_sizes(config, extras, experts, dense, compute_dtype)

    return PlanSubject(name, config, folder, resize)
