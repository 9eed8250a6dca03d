"""A model made ready for a command, and what is said on stderr about it.

Imported only when a command loads a model: this is where torch comes in.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from mimo_cli.api import Engine
from mimo_cli.chat.attachments import MediaOpener
from mimo_cli.chat.media_options import MediaChoices, MediaOptions
from mimo_cli.chat.named_files import user_path
from mimo_cli.checkpoint.audio_config import AudioTokenizerConfig
from mimo_cli.checkpoint.config import ModelConfig, read_json
from mimo_cli.checkpoint.contents import AUDIO_TOKENIZER_FOLDER
from mimo_cli.commands.early_start import end_start
from mimo_cli.commands.model_choice import ModelChoice
from mimo_cli.commands.numbers import format_tokens
from mimo_cli.commands.options import ActivationPrecision, MediaReadingOptions, ModelOptions
from mimo_cli.engine.compute import PrecisionChoice
from mimo_cli.engine.engine import Engine as CoreEngine
from mimo_cli.engine.load import LoadOptions, load_engine
from mimo_cli.engine.routing_trace import RoutingRecorder
from mimo_cli.engine.slice import DiskTier
from mimo_cli.errors import UsageError
from mimo_cli.offload.budget import AUTOMATIC, MemoryBudget, parse_ram
from mimo_cli.offload.reading import DEFAULT_READING, Reading
from mimo_cli.settings import cache_folder
from mimo_cli.terminal.console import Terminal
from mimo_cli.terminal.progress import Stage
from mimo_cli.units import format_bytes


@dataclass(eq=False)
class LoadedModel:
    """A model ready to answer. `load_s` is how long loading took."""

    choice: ModelChoice
    engine: Engine
    load_s: float

    @property
    def dtype_name(self) -> str:
        """The compute type as people write it: `bfloat16`."""
        return str(self.engine.core.dtype).removeprefix("torch.")

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights as stored, in shards or in a packed store."""
        return self.engine.core.contents.size_bytes


def media_choices(options: MediaReadingOptions) -> MediaChoices:
    """Return the choices about media that the command line made."""
    return MediaChoices(options.image_faithful, options.fps, options.max_pixels, options.video_audio)


def media_opener(config: ModelConfig, choice: ModelChoice, options: MediaReadingOptions) -> MediaOpener:
    """Return an opener of media as a model wants them read, without loading that model."""
    return MediaOpener(media_options(config, choice, options), allow_net=options.allow_net)


def media_options(config: ModelConfig, choice: ModelChoice, options: MediaReadingOptions | None = None) -> MediaOptions:
    """Return how a model wants media read, from its configurations alone."""
    path = choice.folder / AUDIO_TOKENIZER_FOLDER / "config.json"
    codec = AudioTokenizerConfig.from_dict(read_json(path), str(path)) if config.audio and path.is_file() else None
    return MediaOptions.of_checkpoint(config.processor, codec, media_choices(options or MediaReadingOptions()))


@contextmanager
def load_model(
    choice: ModelChoice,
    options: ModelOptions,
    terminal: Terminal,
    media: MediaReadingOptions | None = None,
    raw_special_tokens: bool = False,
) -> Iterator[LoadedModel]:
    """Load a model for the block, with progress on stderr. Raises what load_engine raises."""
    started_s = time.perf_counter()
    for flag, is_given in (("--vram", options.vram is not None), ("--gpu-dense", options.gpu_dense.value != "bf16")):
        if is_given and options.device in ("auto", "cpu"):
            raise UsageError(
                f"{flag} is for a graphics card, and --device names none", hint="--device cuda (untested so far)"
            )
    media = media or MediaReadingOptions()
    with Stage(terminal, "loading", "bytes") as stage:
        core = load_engine(
            choice.folder,
            device=options.device,
            dtype=options.dtype.value,
            options=load_options(options),
            on_load=stage.update,
        )
    end_start()
    if core.memory:
        core.memory.on_notice = terminal.warn
    if core.card:
        core.card.experts.on_notice = terminal.warn
    with (
        Engine(
            core,
            context_tokens=options.ctx,
            media=media_choices(media),
            allow_net=media.allow_net,
            raw_special_tokens=raw_special_tokens,
        ) as engine,
        _recording(options, core, choice.name),
    ):
        yield LoadedModel(choice, engine, time.perf_counter() - started_s)


def disk_tier(options: ModelOptions, kept: str | None) -> DiskTier:
    """Return where random experts go, and what memory may be used beside them, as the command line says."""
    chosen = load_options(options)
    ram = parse_ram(chosen.ram) if isinstance(chosen.ram, str) else chosen.ram
    return DiskTier(ram, cache_folder(), user_path(kept) if kept else None, chosen.reading)


def _recording(options: ModelOptions, core: CoreEngine, name: str) -> AbstractContextManager[object]:
    """Return what writes the routing of a model while it is in use, if that was asked for."""
    if options.record_routing is None:
        return nullcontext()
    return RoutingRecorder(core.decoder, Path(options.record_routing), name)


def load_options(options: ModelOptions) -> LoadOptions:
    """Return the engine's settings that the command line chose."""
    precision: PrecisionChoice = "int8" if options.precision is ActivationPrecision.int8 else "exact"
    reading = Reading(
        mode=options.io.value,
        threads=options.io_threads or DEFAULT_READING.threads,
        verify=options.verify_experts,
        remember=cache_folder(),
    )
    return LoadOptions(
        threads=options.threads,
        precision=precision,
        ram=options.ram or AUTOMATIC,
        vram=options.vram or AUTOMATIC,
        card_dense=options.gpu_dense.value,
        context_tokens=options.ctx,
        reading=reading,
    )


def announce(terminal: Terminal, model: LoadedModel, context_tokens: int, *, in_full: bool = True) -> None:
    """Say on stderr which model runs, where it is, what its context costs, and what is lossy.

    Not `in_full`, only what must be said: that a miniature is no real model.
    """
    core = model.engine.core
    cache_bytes = core.kv_bytes_per_token * context_tokens
    lines = [
        f"model {model.choice.name}, computed in {model.dtype_name}, kernels: {core.compute.name}",
        placement_line(core.budget, model.weight_bytes),
        f"context {format_tokens(context_tokens)} tokens, KV cache up to {format_bytes(cache_bytes)}",
        *(f"lossy: {loss}" for loss in core.losses or ("nothing",)),
        *model.engine.notes,
    ]
    if model.choice.notice:
        terminal.note(f"mimo: {model.choice.notice}")
    for line in lines if in_full else ():
        terminal.note(f"mimo: {line}")


def placement_line(budget: MemoryBudget | None, weight_bytes: int) -> str:
    """Say where the weights of a model lie; what a card holds is said by the card."""
    if budget is None or not budget.experts:
        return f"placement: RAM ({format_bytes(weight_bytes)} of weights)"
    if budget.slots >= budget.experts:
        return f"placement: RAM, all {budget.experts:,} experts in it ({format_bytes(weight_bytes)} of weights)"
    ram_bytes = budget.dense_bytes + budget.slots_bytes
    return (
        f"placement: RAM {format_bytes(ram_bytes)} with {budget.slots:,} of {budget.experts:,} experts, "
        f"all {format_bytes(weight_bytes)} on disk"
    )


def placement_fields(budget: MemoryBudget | None) -> dict[str, int] | None:
    """Return the same for programs; None for a model whose memory was not divided."""
    if budget is None:
        return None
    return {
        "ram_bytes": budget.total_bytes,
        "dense_bytes": budget.dense_bytes,
        "kv_bytes": budget.kv_bytes,
        "expert_bytes": budget.slots_bytes,
        "experts_in_ram": budget.slots,
        "experts": budget.experts,
    }


def warn_about_template(terminal: Terminal, model: LoadedModel) -> None:
    """Warn where answers come through a chat template that is not the release's."""
    template = model.engine.speaker.builder.template
    if not template.is_known:
        terminal.warn(f"the chat template in `{template.source}` is not the release's of MiMo-V2.5")
