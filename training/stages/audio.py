"""Stage `audio`: the audio tokenizer's encoder learns which word was just spoken, then its code books are fitted.

The encoder is causal, so a word is known near its end only: the last part of each word and two frames after it carry
its label. A linear read-out of the spectrogram keeps loudness and tone in the features as well.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mimo_cli.media.mel import log_mel
from mimo_cli.model.audio import AudioEncoder
from mimo_cli.model.audio_tokenizer import AudioTokenizer
from training.data.acoustics import augment
from training.data.sample import Split
from training.data.speech_clips import STORED_RATE, Clip, ClipFolder
from training.data.vocabulary import VOCABULARY
from training.feeder import Feeder
from training.heads import IGNORE
from training.media import to_model_rate
from training.optimizer import Optimizer
from training.precision import autocast
from training.run import Run, schedule
from training.settings import AudioSettings

WORD_IDS = {word: number for number, word in enumerate(dict.fromkeys(VOCABULARY))}
CODES_A_SECOND = 25.0
MARKED_SHARE, MARKED_AFTER = 0.4, 2
EVALUATED_SHARE = 40  # one clip in forty is kept for evaluation


Heard = tuple[np.ndarray, list[tuple[str, float, float]]]


def clip_maker(clips: ClipFolder) -> Callable[[np.random.Generator, Split], Heard]:
    """Draws changed clips, those kept for evaluation left out."""
    usable = [i for i in range(len(clips)) if i % EVALUATED_SHARE]
    return lambda rng, split: heard(clips[usable[int(rng.integers(len(usable)))]], rng)


def heard(clip: Clip, rng: np.random.Generator, **choices: Any) -> Heard:
    """A changed recording of a clip: log-mel rows [T, 128] and (word, start, end in seconds) where ends are known."""
    samples, rate, lead, factor = augment(clip.samples, STORED_RATE, rng, **choices)
    words = []
    if clip.ends_s is not None and len(clip.ends_s) == len(clip.text.split()):
        ends = [lead + end * factor for end in clip.ends_s]
        words = list(zip(clip.text.split(), [lead, *ends[:-1]], ends, strict=True))
    return log_mel(to_model_rate(samples, rate)), words


def frame_labels(words: list[tuple[str, float, float]], codes: int) -> Tensor:
    """Word ids [codes] int64 at 25 a second, IGNORE outside the marked parts."""
    labels = torch.full((codes,), IGNORE)
    for word, start, end in words:
        first = int(np.ceil((end - MARKED_SHARE * (end - start)) * CODES_A_SECOND))
        last = int(end * CODES_A_SECOND) + MARKED_AFTER
        labels[first : last + 1] = WORD_IDS[word]
    return labels


def stack_batch(mels: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Pad spectrograms to one length: [B, T, 128] and rows [B]; T is a multiple of 32."""
    lengths = torch.tensor([len(mel) for mel in mels])
    padded = torch.zeros(len(mels), -(-int(lengths.max()) // 32) * 32, mels[0].shape[1])
    for row, mel in zip(padded, mels, strict=True):
        row[: len(mel)] = torch.from_numpy(mel)
    return padded, lengths


class AudioStage:
    """Encoder, word head and read-out, trained together."""

    feeder: Feeder | None = None
    kept = ("codec", "word_head", "read_out", "optimizer")

    def __init__(self, codec: AudioTokenizer, clips: Path, folder: Path, settings: AudioSettings, seed: int) -> None:
        torch.manual_seed(seed)
        self.codec, self.settings, self.seed, self.clips = codec, settings, seed, clips
        width = codec.config.d_model
        device = codec.conv1.weight.device
        self.word_head = nn.Linear(width, len(WORD_IDS)).to(device)
        self.read_out = nn.Linear(width, 4 * codec.config.n_mels).to(device)
        trained = {n: p for n, p in codec.named_parameters() if not n.startswith("quantizer")}
        matrices = [p for n, p in trained.items() if p.dim() == 2 and n.startswith("layers")]
        taken = set(map(id, matrices))
        rest = [*trained.values(), *self.word_head.parameters(), *self.read_out.parameters()]
        others = [p for p in rest if id(p) not in taken]
        self.optimizer = Optimizer(matrices, others, muon_rate=settings.muon_rate, adam_rate=settings.adam_rate)
        self.run = Run(folder, self.state, self.restore, settings.steps)
        with torch.no_grad():
            codec.conv1.weight.mul_(0.3)  # log-mel values lie around -8

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        return {name: getattr(self, name).state_dict() for name in self.kept}

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `state` gave; a codec alone is where a new run starts."""
        for name in self.kept:
            if name in state:
                getattr(self, name).load_state_dict(state[name])

    def _batch(
        self, folder: ClipFolder, numbers: np.ndarray, rng: np.random.Generator, **choices: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        return self._stacked([heard(folder[int(number)], rng, **choices) for number in numbers])

    def _stacked(self, pairs: list[Heard]) -> tuple[Tensor, Tensor, Tensor]:
        mels, lengths = stack_batch([mel[:900] for mel, _ in pairs])
        labels = torch.stack([frame_labels(words, mels.shape[1] // 4) for _, words in pairs])
        return mels, lengths, labels

    def _losses(self, mels: Tensor, lengths: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        device = self.word_head.weight.device
        mels, lengths, labels = mels.to(device), lengths.to(device), labels.to(device)
        with autocast(self.word_head.weight):
            features = self.codec.features(mels, lengths).float()
            words = self.word_head(features).float()
            mel = self.read_out(features).float()
        word_loss = functional.cross_entropy(words.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
        wanted = (mels.view(len(mels), -1, 4 * mels.shape[2]) + 6) / 3
        real = (torch.arange(labels.shape[1], device=device) < (lengths[:, None] + 3) // 4)[..., None]
        mel_loss = ((mel - wanted).square() * real).sum() / real.sum() / wanted.shape[-1]
        right = words.argmax(-1) == labels
        return word_loss, mel_loss, right[labels != IGNORE].float().mean()

    def train(self) -> None:
        """Run to the last step."""
        run, settings = self.run, self.settings
        run.resume()
        batches = self._batches(np.random.default_rng((self.seed, run.step)))
        ema: dict[str, float] = {}
        for mels, lengths, labels in batches:
            word_loss, mel_loss, right = self._losses(mels, lengths, labels)
            (word_loss + 0.5 * mel_loss).backward()
            self.optimizer.step(schedule(run.step, settings.steps))
            for name, value in (("word", word_loss), ("mel", mel_loss), ("right", right)):
                ema[name] = 0.95 * ema.get(name, value.item()) + 0.05 * value.item()
            going = run.tick()
            if run.step % 50 == 0:
                run.report(**ema)
            if run.step % 500 == 0 or not going:
                run.report(**self.evaluate())
            if not going:
                return

    def _batches(self, rng: np.random.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Batches of clips of like length; changing a recording costs as much as learning from it, so each changed one
        comes three times, at another level each time."""
        while self.feeder is not None:
            pairs = [pair for _ in range(self.settings.batch) for pair in self.feeder.take("clips")]
            pairs.sort(key=lambda pair: len(pair[0]))
            starts = np.arange(0, len(pairs), self.settings.batch)
            for start in rng.permutation(starts):
                yield self._stacked(pairs[start : start + self.settings.batch])
        while True:
            folder = ClipFolder(self.clips)  # more clips may have been made meanwhile
            usable = [i for i in range(len(folder)) if i % EVALUATED_SHARE]
            some = rng.choice(usable, min(len(usable), 24 * self.settings.batch), replace=False)
            length = [folder._entries[i][1]["length"] for i in some]
            queue = np.array_split(some[np.argsort(length)], max(1, len(some) // self.settings.batch))
            rng.shuffle(queue)
            made = []
            for numbers in queue:
                made.append(self._batch(folder, numbers, rng))
                yield made[-1]
            for _ in range(2):
                for number in rng.permutation(len(made)):
                    mels, lengths, labels = made[number]
                    level = torch.from_numpy(rng.uniform(-0.7, 0.7, (len(mels), 1, 1))).float()
                    yield (mels + level).clamp(min=-16.1), lengths, labels

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Share of marked frames whose word is right, on clips kept for evaluation."""
        folder, rng = ClipFolder(self.clips), np.random.default_rng(1)
        kept = np.arange(0, len(folder), EVALUATED_SHARE)[:192]
        shares = [
            self._losses(*self._batch(folder, part, rng))[2].item()
            for part in np.array_split(kept, -(-len(kept) // 24))
        ]
        return {"held_out_frames_right": float(np.mean(shares))}


@torch.no_grad()
def fit_code_books(codec: AudioTokenizer, features: Tensor, rounds: int = 12, sample: int = 20_000) -> list[float]:
    """Fit every stage by k-means on what the stages before left over; returns the share left after each stage.

    features [n, d_model]. Empty cells are seeded again; code words are rounded to bfloat16 as inference reads them.
    """
    rest = features[torch.randperm(len(features))[:sample]].float()
    total, left = float(rest.square().sum(1).mean()), []
    for stage in range(codec.config.num_quantizers):
        book = codec.quantizer.get_parameter(f"vq.layers.{stage}._codebook.embed")
        words = rest[torch.randperm(len(rest))[: len(book)]].clone()
        for _ in range(rounds):
            nearest = torch.cdist(rest, words).argmin(1)
            counts = torch.bincount(nearest, minlength=len(words)).float()
            sums = torch.zeros_like(words).index_add_(0, nearest, rest)
            words = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], words)
            empty = (counts == 0).nonzero().flatten()
            if len(empty):
                words[empty] = rest[torch.randperm(len(rest))[: len(empty)]]
        words = words.bfloat16().float()
        book.copy_(words)
        rest = rest - words[torch.cdist(rest, words).argmin(1)]
        left.append(float(rest.square().sum(1).mean()) / total)
    return left


@torch.no_grad()
def collect_features(codec: AudioTokenizer, clips: Path, seed: int, count: int) -> Tensor:
    """Features [n, d_model] of `count` changed clips, as the quantizer gets them."""
    folder, rng = ClipFolder(clips), np.random.default_rng((seed, 77))
    parts = []
    with autocast(codec.conv1.weight):
        for numbers in np.array_split(rng.choice(len(folder), min(count, len(folder)), replace=False), count // 16):
            mels, lengths = stack_batch([heard(folder[int(i)], rng)[0][:900] for i in numbers])
            features = codec.features(mels, lengths).float()
            parts += [row[: -(-int(n) // 4)] for row, n in zip(features, lengths, strict=True)]
    return torch.cat(parts)


def finish_codec(codec: AudioTokenizer, clips: Path, seed: int, count: int = 1500) -> list[float]:
    """Fit the code books to the features of `count` clips; returns the share left over after each stage."""
    features = collect_features(codec, clips, seed, count)
    torch.manual_seed(seed)
    return fit_code_books(codec, features)


@torch.no_grad()
def start_speech_embeddings(audio: AudioEncoder, codec: AudioTokenizer, clips: Path, seed: int) -> None:
    """Let the embeddings of a code's channels add up to the features' main directions, half levelled in size.

    What the codec knows then reaches the text model from the first step on, instead of being learned code by code.
    """
    width = audio.config.input_local_dim
    features = collect_features(codec, clips, seed, 300)
    centred = features - features.mean(0)
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    project = directions[:width].T / (values[:width] / len(centred) ** 0.5).sqrt()  # [d_model, width]
    for channel in range(codec.config.num_quantizers):
        book = codec.quantizer.get_parameter(f"vq.layers.{channel}._codebook.embed")
        rows = (book - features.mean(0) if channel == 0 else book) @ project
        weight = audio.get_parameter(f"speech_embeddings.{channel}.weight")
        weight.zero_()
        weight[: len(rows)] = rows
