"""How a model wants its media read: the numbers of its checkpoint and the few choices of the caller."""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from mimo_cli.checkpoint.audio_config import AudioTokenizerConfig
from mimo_cli.checkpoint.processor_config import ProcessorConfig
from mimo_cli.media.audio import AudioOptions
from mimo_cli.media.mel import MelOptions
from mimo_cli.media.options import (
    PREPROCESSOR_MAX_PIXELS,
    PREPROCESSOR_MIN_PIXELS,
    ImageOptions,
    PixelOptions,
    ResizeFilter,
    SmallSideRule,
    Statistics,
    VideoOptions,
)

PixelLimits: TypeAlias = Literal["processor", "preprocessor"]


@dataclass(frozen=True)
class MediaChoices:
    """What a caller may choose; None keeps the checkpoint's value.

    faithful: read pictures as the serving stack does (no EXIF, alpha dropped). fps: frames taken per second of film.
    max_pixels: limit of a picture or frame after resizing. video_audio: hear the sound track of films.
    The last four choose among the readings of public implementations (vision specification, section 15):
    pixel_limits of pictures from `processor_config`, or those of the sister release's `preprocessor_config.json`.
    """

    faithful: bool = False
    fps: float | None = None
    max_pixels: int | None = None
    video_audio: bool = True
    statistics: Statistics = "clip"
    resize_filter: ResizeFilter = "bilinear"
    small_side: SmallSideRule = "round"
    pixel_limits: PixelLimits = "processor"


@dataclass(frozen=True)
class MediaOptions:
    """Options for each kind of medium, ready for `mimo_cli.media`."""

    image: ImageOptions = field(default_factory=ImageOptions)
    video: VideoOptions = field(default_factory=VideoOptions)
    audio: AudioOptions = field(default_factory=AudioOptions)

    @classmethod
    def of_checkpoint(
        cls,
        processor: ProcessorConfig,
        codec: AudioTokenizerConfig | None = None,
        choices: MediaChoices | None = None,
    ) -> "MediaOptions":
        """Take a checkpoint's numbers; `codec` is its audio tokenizer's configuration where it has one.

        Raises UsageError for choices out of range.
        """
        choices = choices or MediaChoices()
        pixels = PixelOptions(
            statistics=choices.statistics,
            resize_filter=choices.resize_filter,
            small_side=choices.small_side,
            patch_size=processor.patch_size,
            merge_size=processor.merge_size,
            temporal_patch_size=processor.temporal_patch_size,
        )
        image_limits = (processor.image_min_pixels, processor.image_max_pixels)
        if choices.pixel_limits == "preprocessor":
            image_limits = (PREPROCESSOR_MIN_PIXELS, PREPROCESSOR_MAX_PIXELS)
        image_max = choices.max_pixels or image_limits[1]
        video_max = choices.max_pixels or processor.video_max_pixels
        return cls(
            ImageOptions(
                # A limit below the checkpoint's minimum takes the minimum along.
                min_pixels=min(image_limits[0], image_max),
                max_pixels=image_max,
                faithful=choices.faithful,
                pixels=pixels,
            ),
            VideoOptions(
                fps=processor.fps if choices.fps is None else choices.fps,
                min_frames=processor.min_frames,
                max_frames=processor.max_frames,
                min_pixels=min(processor.video_min_pixels, video_max),
                max_pixels=video_max,
                total_max_pixels=processor.video_total_max_pixels,
                use_audio=choices.video_audio,
                pixels=pixels,
            ),
            AudioOptions(
                mel=_mel_options(codec) if codec else MelOptions(),
                segment_frames=processor.audio_segment_size,
                group_size=processor.audio_group_size,
            ),
        )


def _mel_options(codec: AudioTokenizerConfig) -> MelOptions:
    return MelOptions(
        sampling_rate=codec.sampling_rate,
        nfft=codec.nfft,
        hop_length=codec.hop_length,
        window_size=codec.window_size,
        n_mels=codec.n_mels,
        fmin=codec.fmin,
        fmax=codec.fmax,
    )
