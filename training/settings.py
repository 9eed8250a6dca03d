"""All numbers of the recipe: one frozen dataclass a stage, with seeds."""

from dataclasses import dataclass, field


TEXT = {"drills": 2.0, "lookup": 0.7, "strings": 3.0, "sums": 2.0, "smalltalk": 1.0}
"""Groups of the text sources; a group of drills holds up to four examples."""


@dataclass(frozen=True)
class VisionSettings:
    """Stage `vision`."""

    steps: int = 4000
    batch: int = 48
    muon_rate: float = 0.02
    adam_rate: float = 2e-3
    words_from: int = 300
    word_share: float = 0.5
    weights: dict[str, float] = field(default_factory=lambda: {"row": 0.1, "column": 0.1, "centre": 2.0, "count": 0.5})


@dataclass(frozen=True)
class AudioSettings:
    """Stage `audio`."""

    steps: int = 6000
    batch: int = 24
    muon_rate: float = 0.02
    adam_rate: float = 2e-3


@dataclass(frozen=True)
class TrunkSettings:
    """A stage of the trunk: `rows` of `length` tokens a step; weights of its sources by name."""

    steps: int = 6000
    rows: int = 16
    length: int = 256
    muon_rate: float = 0.02
    adam_rate: float = 3e-3
    balance: float = 1e-3
    bias_rate: float = 0.01
    evaluate_every: int = 200
    sources: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """Everything."""

    seed: int = 5
    vision: VisionSettings = field(default_factory=VisionSettings)
    audio: AudioSettings = field(default_factory=AudioSettings)
    trunk: TrunkSettings = field(default_factory=lambda: TrunkSettings(sources=TEXT))
