"""The trunk's stages: text, then one modality at a time, then everything; one class, other sources.

Loss on answers only. The routers' selection biases follow the sign rule; a small balance term keeps experts alive.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mimo_cli.model.audio import AudioEncoder, pad_to_groups
from mimo_cli.model.decoder import TextModel
from training.data.sample import Split
from training.optimizer import Optimizer
from training.packing import Batch, pack
from training.pool import Pool
from training.rounding import rounded
from training.run import Run, schedule
from training.settings import Rows, TrunkSettings
from training.sources import Group, Shelf, Source, mixed
from training.together import Together
from training.trunk import Layout, Trunk

TOP_UP_EVERY = 8  # steps


class TrunkStage:
    """Text model and audio encoder, trained on a mix of sources."""

    def __init__(
        self,
        model: TextModel,
        audio: AudioEncoder,
        sources: Sequence[dict[str, Source]],
        shelf: Shelf,
        folder: Path,
        settings: TrunkSettings,
        seed: int,
    ) -> None:
        self.model, self.audio, self.sources, self.shelf = model, audio, sources, shelf
        self.settings, self.seed = settings, seed
        self.device = model.norm.weight.device
        self.pools = {id(source): source for found in sources for source in found.values() if isinstance(source, Pool)}
        self.waiting: list[list[Group]] = [[] for _ in settings.shapes]
        self.trunk = Trunk(model)
        named = {**dict(model.named_parameters()), **{f"hear.{n}": p for n, p in audio.named_parameters()}}
        inner = ("qkv_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "projection.mlp", "gate_up_proj")
        matrices = {n: p for n, p in named.items() if p.dim() >= 2 and any(part in n for part in inner)}
        parts = {id(p): 2 for n, p in matrices.items() if "gate_up_proj" in n}
        table = model.embed_tokens.weight
        others = [p for n, p in named.items() if n not in matrices and p is not table]
        rates = {name: getattr(settings, name) for name in ("muon_rate", "adam_rate", "table_rate", "weight_decay")}
        self.optimizer = Optimizer(matrices.values(), others, parts=parts, tables=[table], **rates)
        self.together = Together.join(folder.parent)
        self.run = Run(folder, self.state, self.restore, settings.steps, is_silent=self.together.rank > 0)

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        parts: dict[str, Any] = {"model": self.model, "audio": self.audio, "optimizer": self.optimizer}
        # Media are drawn anew: their numbers on the shelf mean nothing to a resumed run.
        waiting = [
            [group for group in groups if all((one.keys >= 0).all() for one in group)] for groups in self.waiting
        ]
        return {"waiting": waiting, **{name: part.state_dict() for name, part in parts.items()}}

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `state` gave; networks alone are where a new run starts."""
        waiting = state.get("waiting", [])
        if len(waiting) == len(self.waiting):  # else the settings have other rows now
            self.waiting = waiting
        for name in ("model", "audio", "optimizer"):
            if name in state:
                getattr(self, name).load_state_dict(state[name])

    def tensor(self, array: np.ndarray) -> Tensor:
        """An array of a batch where the model is."""
        return torch.from_numpy(array).to(self.device)

    def embeds(self, batch: Batch) -> Tensor:
        """Token embeddings [R, L, H] with the rows of media in their places."""
        x = self.model.embed(self.tensor(batch.ids)).float()
        if not len(batch.media_at):
            return x
        used = np.unique(batch.media_uid)
        pieces, starts, total = [], {}, 0
        heard = [uid for uid in used if uid in self.shelf.codes]
        spoken = dict(zip(heard, self._hear([self.shelf.codes[uid] for uid in heard]), strict=True))
        for uid in used:
            rows = spoken[uid] if uid in spoken else self.shelf.rows[uid].to(self.device).float()
            starts[uid] = total
            total += len(rows)
            pieces.append(rows)
        index = np.array([starts[uid] for uid in batch.media_uid]) + batch.media_row
        rows = torch.cat(pieces)[self.tensor(index)]
        return x.flatten(0, 1).index_copy(0, self.tensor(batch.media_at), rows).view_as(x)

    def _hear(self, clips: list[Tensor]) -> list[Tensor]:
        """Rows of several recordings: their groups are encoded together, as `AudioEncoder` does one by one."""
        if not clips:
            return []
        size = self.audio.config.group_size
        padded = [pad_to_groups(codes.to(self.device), size) for codes in clips]
        groups = torch.cat(padded).unflatten(0, (-1, size))
        rows = self.audio.project(self.audio.local(self.audio.embed(groups)))
        return list(rows.split([len(codes) // size for codes in padded]))

    def logits(self, batch: Batch) -> Tensor:
        """Logits [m, V] at the predicted positions."""
        layout = Layout.of_batch(batch, self.model)
        states = self.trunk.states(self.embeds(batch), layout)[self.tensor(batch.predict)]
        return functional.linear(states, self.model.lm_head.weight.to(states.dtype)).float()

    def train(self) -> None:
        """Run to the last step."""
        settings, run = self.settings, self.run
        run.resume()
        shares = np.array([shape.share for shape in settings.shapes])
        ema: dict[str, float] = {}
        while True:
            # A resumed run draws what it would have drawn; all processes take rows of one length.
            number = int(np.random.default_rng((self.seed, run.step)).choice(len(shares), p=shares / shares.sum()))
            rng = np.random.default_rng((self.seed, run.step, self.together.rank))
            if run.step % TOP_UP_EVERY == 0:
                for pool in self.pools.values():
                    pool.top_up(rng)
            if run.step < settings.easy_steps:
                batch = self._draw(self._easy(rng), settings.shapes[0])
            else:
                batch = self._draw(self.streams(rng, "train")[number], settings.shapes[number], self.waiting[number])
            targets = self.tensor(batch.targets)
            with self._weights():
                logits = self.logits(batch)
                loss = weighed(functional.cross_entropy(logits, targets, reduction="none"), batch)
                balance = torch.stack([load.balance for load in self.trunk.loads.values()]).sum()
                (loss + settings.balance * balance).backward()
            self.optimizer.step(schedule(run.step, settings.steps, decay=settings.decay), self.together)
            self._move_biases()
            scored = self.tensor(batch.is_scored)
            right = (logits.argmax(-1) == targets)[scored].float().mean().item()
            values = {"loss": loss.item(), "right": right, "load": self._load(), "examples": len(batch.examples)}
            for name, value in values.items():
                ema[name] = 0.95 * ema.get(name, value) + 0.05 * value
            going = run.tick()
            if run.step % 25 == 0:
                run.report(**ema)
            if (run.step % settings.evaluate_every == 0 or not going) and not run.is_silent:
                run.report(**self.evaluate())
            if not going:
                return

    def streams(self, rng: np.random.Generator, split: Split) -> list[Iterator[Group]]:
        """One endless stream of groups for each shape of batches."""
        streams = []
        for shape, found in zip(self.settings.shapes, self.sources, strict=True):
            weighed = {name: (found[name], weight) for name, weight in shape.sources.items()}
            streams.append(mixed(weighed, rng, split))
        return streams

    def _easy(self, rng: np.random.Generator) -> Iterator[Group]:
        """What the beginning of a stage learns from."""
        phases = self.settings.easy
        weights = phases[self.run.step * len(phases) // self.settings.easy_steps]
        return mixed({name: (self.sources[0][name], weight) for name, weight in weights.items()}, rng, "train")

    def _draw(self, stream: Iterator[Group], shape: Rows, waiting: list[Group] | None = None) -> Batch:
        return pack(stream, shape.rows, shape.length, waiting=waiting)

    def _weights(self) -> AbstractContextManager[None]:
        """The exact weights, or from `fp8_from` on those that will be stored."""
        if self.run.step < self.settings.fp8_from * self.settings.steps:
            return nullcontext()
        return rounded(self.model, self.model.config)

    def _load(self) -> float:
        return max(float(load.counts.max() / load.counts.mean()) for load in self.trunk.loads.values())

    @torch.no_grad()
    def _move_biases(self) -> None:
        rate = self.settings.bias_rate * (1.0 if self.run.step < self.settings.easy_steps + 300 else 0.3)
        if self.run.step > self.settings.steps * 0.9:
            return
        together = self.together.add_up(torch.stack([load.counts for load in self.trunk.loads.values()]))
        for number, counts in zip(self.trunk.loads, together, strict=True):
            layer: Any = self.model.layers[number]
            bias = layer.mlp.gate.e_score_correction_bias
            bias += rate * torch.sign(counts.mean() - counts)

    @torch.no_grad()
    def evaluate(self, batches: int = 3) -> dict[str, float]:
        """Share of held-out examples whose whole answer is right under greedy decoding, by task."""
        results: dict[str, list[bool]] = defaultdict(list)
        streams = self.streams(np.random.default_rng((self.seed, 10**6)), "held_out")
        for stream, shape in zip(streams, self.settings.shapes, strict=True):
            for _ in range(batches):
                batch = self._draw(stream, shape)
                with self._weights():
                    logits = self.logits(batch)
                right = logits.argmax(-1).cpu().numpy() == batch.targets
                wrong = set(batch.example_of[~right & batch.is_scored].tolist())
                for number, example in enumerate(batch.examples):
                    results[example.task].append(number not in wrong)
        return {f"exact {task} ({len(hits)})": float(np.mean(hits)) for task, hits in sorted(results.items())}


def weighed(losses: Tensor, batch: Batch) -> Tensor:
    """The mean of the losses [m] of a batch's predictions; an example of n predictions weighs the root of n.

    Were all predictions equal, a run of four hundred letters would outweigh a hundred questions about pictures.
    """
    counts = np.bincount(batch.example_of)[batch.example_of]
    weights = torch.from_numpy(counts**-0.5).to(losses)
    return (losses * weights).sum() / weights.sum()
