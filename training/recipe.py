"""The recipe: every stage by name, what it starts from and where its result lies.

    speech clips -> audio -> text \
                                   > mix -> mtp -> export
                          vision  /
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mimo_cli.checkpoint.audio_config import AudioTokenizerConfig
from training.architecture import audio_tokenizer_config
from training.data.speech_clips import ClipFolder
from training.export import Parts, export
from training.feeder import FedSource, Feeder, Make
from training.heads import IGNORE
from training.mix import HEARD, SEEN, media_makers, media_sources, text_sources
from training.pool import Encoder
from training.prompts import Prompter
from training.rounding import rounded_weights
from training.run import load_state
from training.settings import Rows, Settings, TrunkSettings
from training.sight import Sight
from training.sources import Shelf, Source
from training.stages.audio import AudioStage, clip_maker, finish_codec, start_speech_embeddings
from training.stages.mtp import MtpStage
from training.stages.trunk import TrunkStage
from training.stages.vision import MAKERS, VisionStage, draw_batch
from training.trunk import Trunk
from training.words import WordVocabulary


@dataclass
class Recipe:
    """The stages over one folder `out`; each loads what earlier ones have left there."""

    out: Path
    settings: Settings
    device: str = "cpu"
    workers: int = 0  # processes that draw samples
    _feeder: Feeder | None = None

    @cached_property
    def prompter(self) -> Prompter:
        """The vocabulary's prompts."""
        return Prompter(WordVocabulary.from_file())

    @cached_property
    def parts(self) -> Parts:
        """Untrained networks."""
        codec = AudioTokenizerConfig.from_dict(audio_tokenizer_config())
        return Parts.fresh(self.prompter.config, codec, self.settings.seed).to(self.device)

    def run(self, stage: str) -> None:
        """Run one of STAGES from its last checkpoint on."""
        try:
            STAGES[stage](self)
        finally:
            if self._feeder is not None:
                self._feeder.close()

    def _feed(self, makers: Mapping[str, Make]) -> Feeder | None:
        """Start the processes that draw samples, if there are to be any."""
        if self.workers:
            self._feeder = Feeder(makers, self.workers, self.settings.seed)
        return self._feeder

    @property
    def clips(self) -> Path:
        """Where the spoken clips lie."""
        return self.out / "speech"

    def vision(self) -> None:
        """Train the tower with direct heads."""
        stage = VisionStage(self.parts.vision, self.out / "vision", self.settings.vision, self.settings.seed)
        stage.sight = Sight(self.parts.vision, compiled=self.settings.compiled)
        stage.feeder = self._feed(MAKERS)
        stage.train()

    def audio(self) -> None:
        """Train the codec's encoder, then fit its code books."""
        stage = AudioStage(self.parts.codec, self.clips, self.out / "audio", self.settings.audio, self.settings.seed)
        stage.feeder = self._feed({"clips": clip_maker(ClipFolder(self.clips))})
        stage.train()
        self.close_codec()

    def close_codec(self) -> None:
        """Fit the code books to the encoder as it is now; the codec is frozen from here on."""
        codec = self.parts.codec
        codec.load_state_dict(load_state(self.out / "audio")["codec"])
        left = finish_codec(codec, self.clips, self.settings.seed, self.settings.clips_for_code_books)
        start_speech_embeddings(self.parts.audio, codec, self.clips, self.settings.seed)
        torch.save(
            {"codec": codec.state_dict(), "audio": self.parts.audio.state_dict()}, self.out / "audio" / "codec.pt"
        )
        print("share left over after each stage:", [round(share, 3) for share in left])

    def text(self) -> None:
        """Train the trunk on what needs no eyes: text, then speech beside it."""
        # Large beside what the first layers add: a token must still be told from others in the last ones.
        torch.nn.init.normal_(self.parts.text.embed_tokens.weight, std=self.settings.row_size)
        self._trunk_stage("text", self.settings.text, after=None).train()

    def mix(self) -> None:
        """Train the trunk on everything, from the text stage's weights and the frozen towers."""
        self._trunk_stage("mix", self.settings.mix, after="text").train()

    def mtp(self) -> None:
        """Train the draft modules on the finished trunk, with the weights that will be stored."""
        base = self._trunk_stage("mix", self.settings.mix, after=None)
        trained = load_state(self.out / "mix")
        self.parts.text.load_state_dict(trained["model"])
        self.parts.audio.load_state_dict(trained["audio"])
        with torch.no_grad():
            for parameter, value in list(rounded_weights(self.parts.text, self.prompter.config)):
                parameter.copy_(value)
        MtpStage(base, self.parts.mtp, self.out / "mtp", self.settings.mtp).train()

    def _trunk_stage(self, name: str, settings: TrunkSettings, after: str | None) -> TrunkStage:
        """A trunk stage on the sources it asks for; where it has no checkpoint yet it starts from the stage before."""
        asked = {source for shape in settings.shapes for source in shape.sources}
        self._load_towers(sees=bool(asked & SEEN), hears=bool(asked & HEARD))
        shelf = Shelf()
        encoder = Encoder(
            self.prompter, Sight(self.parts.vision, compiled=self.settings.compiled), self.parts.codec, shelf
        )
        clips = ClipFolder(self.clips)
        makers = {name: make for name, make in media_makers(self.prompter, clips).items() if name in asked}
        texts = [text_sources(self.prompter, shape.length) for shape in settings.shapes]
        texts, feeder = self._fed(texts, makers, settings.shapes)
        media = media_sources(encoder, makers, feeder)
        sources = [{**text, **media} for text in texts]
        stage = self._trunk(name, sources, shelf, settings)
        if after is not None and not (self.out / name / "last.pt").is_file():
            before = load_state(self.out / after)
            self.parts.text.load_state_dict(before["model"])
            self.parts.audio.load_state_dict(before["audio"])
        return stage

    def _fed(
        self, texts: list[dict[str, Source]], makers: dict[str, Any], shapes: Sequence[Rows]
    ) -> tuple[list[dict[str, Source]], Feeder | None]:
        """Let `workers` processes draw the samples; without any, everything stays as it is."""
        if not self.workers:
            return texts, None  # and every kind may be drawn
        # Only what is asked for: some kinds have no sample that fits a short row.
        texts = [
            {name: text[name] for name in text if name in shape.sources}
            for text, shape in zip(texts, shapes, strict=True)
        ]
        named = {f"{i} {name}": source for i, text in enumerate(texts) for name, source in text.items()}
        named |= makers
        feeder = self._feed(named)
        assert feeder is not None
        fed = [{name: FedSource(feeder, f"{i} {name}", text[name]) for name in text} for i, text in enumerate(texts)]
        return fed, feeder  # type: ignore[return-value]

    def _trunk(self, name: str, sources: list[dict[str, Any]], shelf: Shelf, settings: Any) -> TrunkStage:
        parts = self.parts
        stage = TrunkStage(parts.text, parts.audio, sources, shelf, self.out / name, settings, self.settings.seed)
        stage.trunk = Trunk(parts.text, compiled=self.settings.compiled)
        return stage

    def _load_towers(self, *, sees: bool = True, hears: bool = True) -> None:
        """Load the tower, and the codec with the embeddings that go with it."""
        if sees:
            self.parts.vision.load_state_dict(load_state(self.out / "vision")["tower"])
            self._scale_rows()
        if not hears:
            return
        saved = torch.load(self.out / "audio" / "codec.pt", map_location="cpu")
        self.parts.codec.load_state_dict(saved["codec"])
        self.parts.audio.load_state_dict(saved["audio"])

    def _scale_rows(self) -> None:
        """Bring the tower's rows to the size of token embeddings: the merger's last matrix takes the factor."""
        path = self.out / "vision" / "scale.pt"
        if path.is_file():
            scale = torch.load(path)
        else:
            rng = np.random.default_rng(self.settings.seed)
            patches, grids, labels = draw_batch(rng, "train", 24, 0.5)
            with torch.no_grad():
                rows = Sight(self.parts.vision, torch.float32, compiled=False).rows(patches, grids)
            real = labels["row"] != IGNORE
            scale = self.settings.row_size / float(rows.cpu()[real].square().mean().sqrt())
            part = path.with_suffix(f".{os.getpid()}")
            torch.save(scale, part)
            part.replace(path)
        with torch.no_grad():
            self.parts.vision.get_parameter("merger.mlp.2.weight").mul_(scale)

    def export(self, folder: Path) -> None:
        """Write what the latest stage has made."""
        self._load_towers()
        stage = "mix" if (self.out / "mix" / "last.pt").is_file() else "text"
        state = load_state(self.out / stage)
        self.parts.text.load_state_dict(state["model"])
        self.parts.audio.load_state_dict(state["audio"])
        if (self.out / "mtp" / "last.pt").is_file():
            torch.nn.ModuleList(self.parts.mtp).load_state_dict(load_state(self.out / "mtp")["modules"])
        export(folder, self.parts, WordVocabulary.from_file(), {"seed": self.settings.seed})

    def print_status(self) -> None:
        """Print where every stage stands."""
        for journal in sorted(self.out.glob("*/journal.jsonl")):
            lines = journal.read_text().splitlines()
            print(journal.parent.name, *lines[-2:], sep="\n  ")


STAGES = {
    "vision": Recipe.vision,
    "audio": Recipe.audio,
    "text": Recipe.text,
    "mix": Recipe.mix,
    "mtp": Recipe.mtp,
}
