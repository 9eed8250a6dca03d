"""The towers alone, for scripts: pictures, films and sound to embedding rows, step by step.

Every method takes numpy arrays or torch tensors. Preprocessing returns numpy arrays; what a network computes comes back
as torch tensors. Part of the public interface (`mimo_cli.load_vision`, `mimo_cli.load_audio`).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from mimo_cli.chat.media_options import MediaChoices, MediaOptions, PixelLimits
from mimo_cli.checkpoint.audio_config import AudioConfig
from mimo_cli.checkpoint.config import read_json
from mimo_cli.checkpoint.fields import Fields
from mimo_cli.checkpoint.processor_config import ProcessorConfig
from mimo_cli.checkpoint.vision_config import VisionConfig
from mimo_cli.engine.load import DTYPES
from mimo_cli.engine.towers import AudioTables, Hearing, load_audio_tower, load_vision_tower
from mimo_cli.errors import CheckpointError, UsageError
from mimo_cli.media.image import preprocess_image
from mimo_cli.media.mel import MelOptions, log_mel
from mimo_cli.media.options import ImageOptions, ResizeFilter, SmallSideRule, Statistics, VideoOptions
from mimo_cli.media.resample import resample
from mimo_cli.media.samples import check_waveform
from mimo_cli.media.video import preprocess_video
from mimo_cli.model.vision import VisionTower

Array: TypeAlias = NDArray[Any] | torch.Tensor


class Vision:
    """A vision tower and the preprocessing its checkpoint asks for. Made by load_vision."""

    def __init__(self, tower: VisionTower, image_options: ImageOptions, video_options: VideoOptions) -> None:
        self.tower = tower
        self.image_options = image_options
        self.video_options = video_options

    def preprocess_image(self, rgb: Array) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Resize and cut a picture [H, W, 3] uint8 to pixel_values [patches, 1536] float32 and grid_thw [1, 3]."""
        return preprocess_image(_numpy(rgb), self.image_options)

    def preprocess_video(
        self, frames: Array, fps: float
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
        """Sample, resize and cut a film: all its frames [F, H, W, 3] uint8 and their average rate go in.

        Returns pixel_values [patches, 1536] float32, grid_thw [1, 3] and timestamps_s, the time of each sampled frame
        (the last repeated if their number is odd).
        """
        return preprocess_video(_numpy(frames), float(fps), self.video_options)

    def encode(self, pixel_values: Array, grid_thw: Array | Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the rows [tokens, out_hidden_size] of pictures and films, one (t, h, w) of grid_thw for each."""
        device = next(self.tower.parameters()).device
        grid = torch.as_tensor(np.asarray(_numpy(grid_thw))).reshape(-1, 3)
        with torch.no_grad():
            return self.tower(torch.as_tensor(pixel_values).to(device), grid)


class Audio:
    """The codec and the audio encoder with their front end. Made by load_audio. Waveforms are mono float32 [N]."""

    def __init__(self, hearing: Hearing, mel_options: MelOptions, segment_frames: int) -> None:
        self.tokenizer = hearing.tokenizer
        self.encoder = hearing.encoder
        self.mel_options = mel_options
        self.segment_frames = segment_frames

    def resample(self, waveform: Array, rate: int) -> NDArray[np.float32]:
        """Resample to the model's rate (24 kHz): [N] -> [ceil(N * 24000 / rate)], not padded."""
        return resample(check_waveform(_numpy(waveform), rate), rate, self.mel_options.sampling_rate)

    def mel(self, waveform: Array) -> NDArray[np.float32]:
        """Return the log-mel spectrogram [T, 128] of a waveform at the model's rate; short ones are padded to 481."""
        return log_mel(check_waveform(_numpy(waveform), self.mel_options.sampling_rate), self.mel_options)

    def codes(self, mel: Array) -> torch.Tensor:
        """Return the codes [ceil(T/4), audio_channels] int64 of a log-mel spectrogram [T, 128], segment by segment."""
        codes = self.tokenizer.codes(torch.as_tensor(mel), self.segment_frames)
        return codes[:, : self.encoder.config.audio_channels]

    def encode(self, waveform: Array, rate: int) -> torch.Tensor:
        """Return the rows [tokens, out_hidden_size] of a recording at any rate."""
        return self.encode_codes(self.codes(self.mel(self.resample(waveform, rate))))

    def encode_codes(self, codes: Array) -> torch.Tensor:
        """Return the rows [tokens, out_hidden_size] of the codes [K, channels] of one recording."""
        with torch.no_grad():
            return self.encoder(torch.as_tensor(codes).long())


def load_vision(
    path: str | Path,
    *,
    device: str = "cpu",
    dtype: str = "float32",
    sinks: str = "denominator",
    merger_norm: str = "layernorm",
    statistics: Statistics = "clip",
    resize_filter: ResizeFilter = "bilinear",
    small_side: SmallSideRule = "round",
    pixel_limits: PixelLimits = "processor",
) -> Vision:
    """Load the vision tower of a folder, which may hold nothing but its tensors and a config.json.

    The last six choose among the readings of public implementations. Raises UsageError for a setting that does not
    exist, CheckpointError for files that are missing or wrong, CapacityError where memory does not suffice.
    """
    folder, values = _open(path, "vision_config")
    config = replace(
        VisionConfig.from_dict(values["vision_config"]),
        sink_form=_one_of("sinks", sinks, ("denominator", "key0", "ignore")),
        merger_norm=_one_of("merger_norm", merger_norm, ("layernorm", "rmsnorm")),
    )
    choices = MediaChoices(
        statistics=_one_of("statistics", statistics, get_args(Statistics)),
        resize_filter=_one_of("resize_filter", resize_filter, get_args(ResizeFilter)),
        small_side=_one_of("small_side", small_side, get_args(SmallSideRule)),
        pixel_limits=_one_of("pixel_limits", pixel_limits, get_args(PixelLimits)),
    )
    options = MediaOptions.of_checkpoint(ProcessorConfig.from_dict(values), choices=choices)
    tower = load_vision_tower(folder, _dtype(dtype), config).to(_device(device))
    return Vision(tower, options.image, options.video)


def load_audio(
    path: str | Path, *, device: str = "cpu", dtype: str = "float32", tables: AudioTables = "exact"
) -> Audio:
    """Load codec and audio encoder of a folder, which may hold nothing but them and a config.json.

    tables "exact" computes with the stored code books and frequencies; "rounded" rounds them to bfloat16 first, as the
    serving stacks do and as an Engine does by default. Raises what load_vision raises.
    """
    folder, values = _open(path, "audio_config")
    config = AudioConfig.from_dict(values["audio_config"])
    tables = _one_of("tables", tables, ("exact", "rounded"))
    hearing = load_audio_tower(folder, _dtype(dtype), config, tables)
    hearing = Hearing(hearing.tokenizer.to(_device(device)), hearing.encoder.to(_device(device)))
    options = MediaOptions.of_checkpoint(ProcessorConfig.from_dict(values), hearing.tokenizer.config)
    return Audio(hearing, options.audio.mel, config.audio_segment_size)


def _open(path: str | Path, section: str) -> tuple[Path, dict[str, Any]]:
    folder = Path(path).expanduser()
    values = read_json(folder / "config.json")
    if not Fields(values, str(folder / "config.json")).has(section):
        raise CheckpointError(
            f"`{folder / 'config.json'}` has no `{section}`", hint="name a checkpoint that has this tower"
        )
    return folder, values


def _numpy(array: Any) -> NDArray[Any]:
    return array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def _dtype(name: str) -> torch.dtype:
    return DTYPES[_one_of("dtype", name, tuple(DTYPES))]


def _device(name: str) -> torch.device:
    try:
        return torch.zeros(0, device=name).device  # also finds out whether torch was built for it
    except (RuntimeError, AssertionError) as err:
        raise UsageError(f"device `{name}` cannot be used: {str(err).splitlines()[0]}", hint="use device cpu") from err


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> Any:
    if value not in known:
        raise UsageError(f"{name} `{value}` is unknown, one of {', '.join(known)} expected")
    return value
