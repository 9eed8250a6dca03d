"""Stage `mtp`: the three draft modules learn from the frozen trunk's states.

Module k at position p takes the state of p and the embedding of token p+1+k and predicts token p+2+k, on answers only.
"""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mimo_cli.model.mtp import MTPModule
from training.optimizer import Optimizer
from training.packing import Batch, pack
from training.run import Run, schedule
from training.settings import MtpSettings
from training.sources import Group
from training.stages.trunk import TrunkStage
from training.trunk import Layout


class MtpStage:
    """Draft modules over the trunk of a TrunkStage, which gives batches, embeddings and states."""

    def __init__(
        self, trunk_stage: TrunkStage, modules: list[MTPModule], run_folder: Any, settings: MtpSettings
    ) -> None:
        self.base, self.settings = trunk_stage, settings
        self.modules = nn.ModuleList(modules)
        named = dict(self.modules.named_parameters())
        matrices = [p for p in named.values() if p.dim() == 2]
        others = [p for p in named.values() if p.dim() != 2]
        self.optimizer = Optimizer(matrices, others, muon_rate=settings.muon_rate, adam_rate=settings.adam_rate)
        self.run = Run(run_folder, self.state, self.restore, settings.steps)

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        return {"modules": self.modules.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `state` gave; modules alone are where a new run starts."""
        self.modules.load_state_dict(state["modules"])
        if "optimizer" in state:
            self.optimizer.load_state_dict(state["optimizer"])

    def losses(self, batch: Batch) -> tuple[Tensor, list[float]]:
        """Sum of the modules' cross entropies, and the share of the main model's greedy tokens each one names.

        A module is right where it names what the trunk itself, given the right tokens so far, would say.
        """
        base = self.base
        with torch.no_grad():
            layout = Layout.of_batch(batch, base.model)
            states = base.trunk.states(base.embeds(batch), layout)
            said = functional.linear(states, base.model.lm_head.weight.to(states.dtype)).argmax(-1)
            tokens = base.model.embed(base.tensor(batch.ids)).flatten(0, 1)  # drafting never sees media rows
        predict = base.tensor(batch.predict)
        targets, owner = base.tensor(batch.targets), base.tensor(batch.example_of)
        total, shares = torch.zeros((), device=base.device), []
        for k, module in enumerate(self.modules):
            ahead = tokens.roll(-(k + 1), 0)
            logits = self._logits(module, ahead, states, layout)
            reach = k + 1  # predictions whose target lies so many tokens further on in the same answer
            inside = owner[: len(owner) - reach] == owner[reach:]
            places, wanted = predict[: len(predict) - reach][inside], targets[reach:][inside]
            scores = logits(places)
            total = total + functional.cross_entropy(scores, wanted)
            shares.append((scores.argmax(-1) == said[places + reach]).float().mean().item())
        return total, shares

    def _logits(self, module: Any, ahead: Tensor, states: Tensor, layout: Layout) -> Any:
        """Run a module on every token; returns what gives logits at some positions."""
        trunk = self.base.trunk
        dtype, run_norm = trunk.dtype, trunk.normalise
        joined = torch.cat([run_norm(ahead, module.enorm), run_norm(states.float(), module.hnorm)], dim=-1)
        x = functional.linear(joined, module.eh_proj.weight.to(dtype)).float()
        x = trunk.attend(x, module.input_layernorm, module.self_attn, layout)
        x = trunk.feed(x, module.pre_mlp_layernorm, module.mlp)
        head = self.base.model.lm_head.weight.detach().to(dtype)
        return lambda places: functional.linear(run_norm(x[places], module.final_layernorm), head).float()

    def train(self) -> None:
        """Run to the last step."""
        run, settings = self.run, self.settings
        run.resume()
        shapes = self.base.settings.shapes
        ema: dict[str, float] = defaultdict(float)
        while True:
            rng = np.random.default_rng((self.base.seed, 31, run.step))
            number = int(rng.choice(len(shapes), p=[shape.share for shape in shapes]))
            loss, shares = self.losses(self._draw(self.base.streams(rng, "train")[number], number))
            loss.backward()
            self.optimizer.step(schedule(run.step, settings.steps))
            for name, value in (("loss", loss.item()), *((f"named_{k}", share) for k, share in enumerate(shares))):
                ema[name] = value if name not in ema else 0.95 * ema[name] + 0.05 * value
            going = run.tick()
            if run.step % 25 == 0:
                run.report(**ema)
            if not going:
                run.report(**self.evaluate())
                return

    def _draw(self, stream: Iterator[Group], number: int) -> Batch:
        shape = self.base.settings.shapes[number]
        return pack(stream, shape.rows, shape.length, share=False)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Share of greedy tokens named by each module on held-out samples."""
        streams = self.base.streams(np.random.default_rng((self.base.seed, 10**6)), "held_out")
        shares = [self.losses(self._draw(stream, n))[1] for n, stream in enumerate(streams) for _ in range(2)]
        return {f"held_out_named_{k}": float(np.mean(values)) for k, values in enumerate(zip(*shares, strict=True))}
