"""Options that several commands share, in groups: one definition, one meaning everywhere.

Each group is a frozen dataclass whose fields carry their typer option; `command.flatten_options` unfolds them.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, TypeVar

import typer

from mimo_cli.errors import UsageError
from mimo_cli.offload.budget import RamSetting, parse_ram
from mimo_cli.terminal.console import Terminal
from mimo_cli.units import parse_count, parse_duration, parse_size

T = TypeVar("T")


class ColorWhen(StrEnum):
    """When to colour."""

    auto = "auto"
    always = "always"
    never = "never"


class ShowThinking(StrEnum):
    """Whether reasoning is shown while it is written; auto means on a terminal."""

    auto = "auto"
    yes = "yes"
    no = "no"


class Dtype(StrEnum):
    """Numbers the network computes with; auto leaves it to the engine."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"


class ReadMode(StrEnum):
    """How experts are read from disk."""

    auto = "auto"
    direct = "direct"
    buffered = "buffered"


class ActivationPrecision(StrEnum):
    """Precision of activations inside the kernels for integer weights."""

    exact = "exact"
    int8 = "int8"


class CardDense(StrEnum):
    """Dense matrices on a graphics card."""

    bf16 = "bf16"
    w8a8 = "w8a8"
    int8 = "int8"
    nf4 = "nf4"


def _checked(parse: Callable[[str], T]) -> Callable[[Any], T]:
    """Return a parser for typer: its error names the option, and a default that is parsed already passes."""

    def read(value: Any) -> T:
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]
        try:
            return parse(value)
        except UsageError as err:
            raise typer.BadParameter(f"{err}; {err.hint}" if err.hint else str(err)) from err

    return read


def _positive_count(text: str) -> int:
    count = parse_count(text)
    if count < 1:
        raise UsageError(f"count `{text}` is not above 0")
    return count


read_count = _checked(parse_count)
read_positive_count = _checked(_positive_count)
read_size = _checked(parse_size)
read_ram = _checked(parse_ram)
read_duration = _checked(parse_duration)

_THINKING, _SAMPLING, _MEDIA, _MODEL, _GENERAL = "thinking", "sampling", "media", "model", "general"


@dataclass(frozen=True)
class GeneralOptions:
    """What every command understands: how much is said on stderr, and in which colours."""

    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only errors on stderr.", rich_help_panel=_GENERAL)] = (
        False
    )
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="More detail on stderr.", hidden=True, rich_help_panel=_GENERAL)
    ] = False
    debug: Annotated[
        bool, typer.Option("--debug", help="Traceback for an error.", hidden=True, rich_help_panel=_GENERAL)
    ] = False
    color: Annotated[
        ColorWhen,
        typer.Option("--color", metavar="WHEN", help="auto, always, never.", hidden=True, rich_help_panel=_GENERAL),
    ] = ColorWhen.auto
    progress: Annotated[
        bool, typer.Option("--progress/--no-progress", help="Progress lines.", hidden=True, rich_help_panel=_GENERAL)
    ] = True

    def terminal(self) -> Terminal:
        """Return the Terminal over this process's streams that these options ask for."""
        return Terminal.standard(self.color.value, self.quiet, self.verbose, self.progress)


@dataclass(frozen=True)
class ModelOptions:
    """Which model, and how it is loaded."""

    model: Annotated[
        str | None,
        typer.Option(
            "-m", "--model", metavar="MODEL", help="Folder or name; else the bundled miniature.", rich_help_panel=_MODEL
        ),
    ] = None
    ctx: Annotated[
        int | None,
        typer.Option(
            "-c",
            "--ctx",
            metavar="N",
            parser=read_count,
            help="Context in tokens [32k, or what the model has].",
            rich_help_panel=_MODEL,
        ),
    ] = None
    dtype: Annotated[
        Dtype,
        typer.Option(
            "--dtype",
            metavar="TYPE",
            help="auto, float32, bfloat16: compute type.",
            hidden=True,
            rich_help_panel=_MODEL,
        ),
    ] = Dtype.auto
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="NAME",
            help="auto, cpu, cuda, cuda:1 [auto: the processor, as cards are untested].",
            hidden=True,
            rich_help_panel=_MODEL,
        ),
    ] = "auto"
    threads: Annotated[
        int | None,
        typer.Option(
            "--threads", metavar="N", min=1, help="CPU threads [all cores].", hidden=True, rich_help_panel=_MODEL
        ),
    ] = None
    precision: Annotated[
        ActivationPrecision,
        typer.Option(
            "--precision",
            metavar="NAME",
            help="exact, or int8: activations before 4-bit and 8-bit weights; faster, lossy.",
            hidden=True,
            rich_help_panel=_MODEL,
        ),
    ] = ActivationPrecision.exact
    ram: Annotated[
        RamSetting | None,
        typer.Option(
            "--ram",
            metavar="SIZE",
            parser=read_ram,
            help="Memory for everything: 16G, 80%, auto [auto: what is free, less a reserve].",
            rich_help_panel=_MODEL,
        ),
    ] = None
    vram: Annotated[
        RamSetting | None,
        typer.Option(
            "--vram",
            metavar="SIZE",
            parser=read_ram,
            help="Graphics memory for everything: 24G, 80%, auto [auto: what is free, less 1 GiB].",
            hidden=True,
            rich_help_panel=_MODEL,
        ),
    ] = None
    gpu_dense: Annotated[
        CardDense,
        typer.Option(
            "--gpu-dense",
            metavar="NAME",
            help="Dense matrices on a card: bf16, or lossy w8a8 (FP8), int8, nf4 (bitsandbytes).",
            hidden=True,
            rich_help_panel=_MODEL,
        ),
    ] = CardDense.bf16
    io: Annotated[
        ReadMode,
        typer.Option(
            "--io",
            metavar="HOW",
            help="Experts from disk: direct (past the system's cache), buffered, auto (the faster).",
            hidden=True,
            rich_help_panel=_MODEL,
        ),
    ] = ReadMode.auto
    io_threads: Annotated[
        int | None,
        typer.Option(
            "--io-threads", metavar="N", min=1, help="Reads at once [8].", hidden=True, rich_help_panel=_MODEL
        ),
    ] = None
    verify_experts: Annotated[
        bool,
        typer.Option(
            "--verify-experts",
            help="Compare every expert read with its checksum, or its first reading.",
            hidden=True,
            rich_help_panel=_MODEL,
        ),
    ] = False

    record_routing: Annotated[
        str | None,
        typer.Option(
            "--record-routing",
            metavar="FILE",
            help="Write which experts every pass visits, for mimo bench --replay.",
            hidden=True,
            rich_help_panel=_MODEL,
        ),
    ] = None

    def limit_threads(self) -> None:
        """Bound the threads of the numeric libraries, which read this when they are imported: call it before."""
        # Threads that spin after each of torch's operations would take the cores from those of the native kernels.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if self.threads is not None:
            for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
                os.environ[name] = str(self.threads)


@dataclass(frozen=True)
class SamplingOptions:
    """How tokens are chosen and when an answer ends. None is the command's own default."""

    max_tokens: Annotated[
        int | None,
        typer.Option(
            "-n",
            "--max-tokens",
            metavar="N",
            parser=read_count,
            help="At most N tokens, thinking included [no limit].",
            rich_help_panel=_SAMPLING,
        ),
    ] = None
    temp: Annotated[
        float | None,
        typer.Option(
            "-t",
            "--temp",
            metavar="T",
            min=0.0,
            help="Temperature, 0 = greedy [1.0; trained miniature 0].",
            rich_help_panel=_SAMPLING,
        ),
    ] = None
    top_p: Annotated[
        float | None,
        typer.Option("--top-p", metavar="P", min=0.0, max=1.0, help="Nucleus [0.95].", rich_help_panel=_SAMPLING),
    ] = None
    top_k: Annotated[
        int | None,
        typer.Option("--top-k", metavar="K", min=0, help="0 = off [0].", hidden=True, rich_help_panel=_SAMPLING),
    ] = None
    min_p: Annotated[
        float | None,
        typer.Option(
            "--min-p", metavar="P", min=0.0, max=1.0, help="0 = off [0].", hidden=True, rich_help_panel=_SAMPLING
        ),
    ] = None
    rep_penalty: Annotated[
        float | None,
        typer.Option(
            "--rep-penalty", metavar="R", min=0.0, help="1 = off [1.0].", hidden=True, rich_help_panel=_SAMPLING
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", min=0, help="Same seed, same answer [random].", rich_help_panel=_SAMPLING),
    ] = None
    stop: Annotated[
        list[str] | None,
        typer.Option(
            "--stop", metavar="TEXT", help="End before TEXT (repeat).", hidden=True, rich_help_panel=_SAMPLING
        ),
    ] = None


@dataclass(frozen=True)
class ThinkingOptions:
    """Reasoning before the answer."""

    think: Annotated[
        bool, typer.Option("--think/--no-think", help="Reason before answering [on].", rich_help_panel=_THINKING)
    ] = True
    think_budget: Annotated[
        int | None,
        typer.Option(
            "--think-budget",
            metavar="N",
            parser=read_count,
            help="End thinking after N tokens.",
            hidden=True,
            rich_help_panel=_THINKING,
        ),
    ] = None
    show_thinking: Annotated[
        ShowThinking,
        typer.Option(
            "--show-thinking",
            metavar="WHEN",
            help="auto (on a terminal), yes, no.",
            hidden=True,
            rich_help_panel=_THINKING,
        ),
    ] = ShowThinking.auto
    loop_guard: Annotated[
        bool,
        typer.Option(
            "--loop-guard/--no-loop-guard", help="End thinking that repeats.", hidden=True, rich_help_panel=_THINKING
        ),
    ] = True


@dataclass(frozen=True)
class MediaReadingOptions:
    """How pictures, films and recordings are read."""

    fps: Annotated[
        float | None,
        typer.Option(
            "--fps", metavar="F", min=0.0, help="Frames per second of video.", hidden=True, rich_help_panel=_MEDIA
        ),
    ] = None
    max_pixels: Annotated[
        int | None,
        typer.Option(
            "--max-pixels",
            metavar="N",
            parser=read_positive_count,
            help="Largest picture area after scaling.",
            hidden=True,
            rich_help_panel=_MEDIA,
        ),
    ] = None
    video_audio: Annotated[
        bool,
        typer.Option(
            "--video-audio/--no-video-audio", help="Sound of videos [on].", hidden=True, rich_help_panel=_MEDIA
        ),
    ] = True
    image_faithful: Annotated[
        bool,
        typer.Option(
            "--image-faithful",
            help="As the serving stack: EXIF rotation and transparency ignored.",
            hidden=True,
            rich_help_panel=_MEDIA,
        ),
    ] = False
    allow_net: Annotated[
        bool, typer.Option("--allow-net", help="Permit http(s) URLs.", hidden=True, rich_help_panel=_MEDIA)
    ] = False


@dataclass(frozen=True)
class AttachmentOptions:
    """Files of the first message."""

    image: Annotated[
        list[str] | None,
        typer.Option("--image", metavar="FILE", help="A picture; - is stdin (repeat).", rich_help_panel=_MEDIA),
    ] = None
    video: Annotated[
        list[str] | None, typer.Option("--video", metavar="FILE", help="A video (repeat).", rich_help_panel=_MEDIA)
    ] = None
    audio: Annotated[
        list[str] | None, typer.Option("--audio", metavar="FILE", help="A recording (repeat).", rich_help_panel=_MEDIA)
    ] = None
    attach: Annotated[
        list[str] | None,
        typer.Option("-a", "--attach", metavar="FILE", help="Any of these (repeat).", rich_help_panel=_MEDIA),
    ] = None
    file: Annotated[
        list[str] | None,
        typer.Option(
            "-f", "--file", metavar="FILE", help="Text put before the question (repeat).", rich_help_panel=_MEDIA
        ),
    ] = None
    names: Annotated[
        bool,
        typer.Option("--names/--no-names", help="Name each --file in the prompt.", hidden=True, rich_help_panel=_MEDIA),
    ] = True
