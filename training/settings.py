"""All numbers of the recipe: one frozen dataclass a stage, with seeds."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class VisionSettings:
    """Stage `vision`."""

    steps: int = 3200
    batch: int = 48
    muon_rate: float = 0.02
    adam_rate: float = 2e-3
    weight_decay: float = 0.3  # of matrices, times the rate
    words_from: int = 300
    word_share: float = 0.5
    weights: dict[str, float] = field(
        default_factory=lambda: {
            "row": 0.1,
            "column": 0.1,
            "centre": 2.0,
            "count": 0.5,
            "shape": 2.0,
            "glyph": 2.0,
            "patch_glyph": 1.0,
        }
    )


@dataclass(frozen=True)
class AudioSettings:
    """Stage `audio`."""

    steps: int = 3400
    batch: int = 24
    muon_rate: float = 0.02
    adam_rate: float = 2e-3


@dataclass(frozen=True)
class Rows:
    """Batches of one shape: `rows` of `length` tokens, a `share` of all steps, and the weights of their sources."""

    rows: int
    length: int
    share: float
    sources: dict[str, float]


SHORT_TEXT = {
    "drills": 0.7, "lists": 0.4, "lookups": 0.6, "strings": 4.0, "sums": 4.5, "system": 4.0, "dialogues": 1.0,
    "smalltalk": 0.5, "far repeats": 0.3,
}  # fmt: skip
LONG_TEXT = {"far repeats": 1.5, "lookup": 1.0, "lookups": 1.5, "tools": 5.0, "needle": 0.7}
SHORT_SPEECH = {"spoken words": 0.7, "speech": 4.0, "sounds": 0.5}
SHORT_SIGHT = {"pictures": 5.0, "words": 3.5, "pairs": 0.3, "video": 3.0, "mixed": 0.5}


@dataclass(frozen=True)
class TrunkSettings:
    """A stage of the trunk."""

    steps: int
    shapes: tuple[Rows, ...]
    muon_rate: float = 0.02
    adam_rate: float = 3e-3
    table_rate: float = 5e-3
    weight_decay: float = 0.5  # of matrices, times the rate
    balance: float = 1e-3
    bias_rate: float = 0.01
    decay: float = 0.4  # the share of the steps, at the end, over which the rates fall
    evaluate_every: int = 200
    easy_steps: int = 0  # at the beginning, with `easy` alone, in rows of the first shape
    easy: tuple[dict[str, float], ...] = ()  # one after the other, each for its share of those steps
    fp8_from: float = 1.0  # the share of the steps after which FP8-rounded weights compute


@dataclass(frozen=True)
class MtpSettings:
    """Stage `mtp`."""

    steps: int = 180
    muon_rate: float = 0.02
    adam_rate: float = 2e-3


@dataclass(frozen=True)
class Settings:
    """Everything."""

    seed: int = 7
    compiled: bool = True  # by torch.compile, which takes a minute or two for each shape
    clips_for_code_books: int = 1500
    row_size: float = 0.5  # root mean square of token embeddings and of media rows at their start
    vision: VisionSettings = field(default_factory=VisionSettings)
    audio: AudioSettings = field(default_factory=AudioSettings)
    text: TrunkSettings = field(
        default_factory=lambda: TrunkSettings(
            1150,
            (Rows(16, 256, 0.75, {**SHORT_TEXT, **SHORT_SPEECH}), Rows(5, 800, 0.25, LONG_TEXT)),
            decay=0.1,
            easy_steps=350,
            easy=({"repeats": 1.0}, {"repeats": 1.0}, {"repeats": 0.5, "drills": 1.0}, {"drills": 1.0}),
        )
    )
    mix: TrunkSettings = field(
        default_factory=lambda: TrunkSettings(
            2000,
            (
                Rows(16, 256, 0.7, {**SHORT_TEXT, **SHORT_SPEECH, **SHORT_SIGHT}),
                Rows(5, 800, 0.3, LONG_TEXT),
            ),
            muon_rate=0.012,
            adam_rate=2e-3,
            table_rate=3.5e-3,
            decay=1.0,
            evaluate_every=300,
            fp8_from=0.9,
        )
    )
    mtp: MtpSettings = field(default_factory=MtpSettings)
