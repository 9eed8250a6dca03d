"""The mixture-of-experts feed-forward: which experts a token goes to (Router) and the sum of what they say (MoE).

Who holds the experts' weights is not known here: an ExpertSource runs them. ResidentExperts is the plain one, all
weights as trainable parameters; the engine brings another that reads them from disk.
Letters: B batch, T tokens, N valid tokens of the batch, H hidden size, E experts, A active experts, I expert width.
"""

from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from mimo_cli.checkpoint.config import ModelConfig
from mimo_cli.quant.experts import ExpertWeights, swiglu_experts
from mimo_cli.quant.kernels import FEW_TOKENS, Kernels
from mimo_cli.quant.linear import INIT_STD


class ExpertSource(Protocol):
    """Runs routed experts, wherever their weights are. The answer must not depend on where that is."""

    def run(self, layer: int, hidden_states: Tensor, expert_ids: Tensor, expert_weights: Tensor) -> Tensor:
        """Return the weighted sum over each token's experts.

        hidden_states [N, H]; expert_ids [N, A] int64; expert_weights [N, A] float32 -> [N, H], dtype of the input.
        """
        ...


class Router(nn.Module):
    """Scores every expert by a sigmoid and chooses the best A, all in float32.

    `e_score_correction_bias` takes part in the choice, never in the weights. Source: the release's modeling file.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_experts_per_tok = config.num_experts_per_tok
        self.n_group = config.n_group
        self.topk_group = config.topk_group
        self.norm_topk_prob = config.norm_topk_prob
        self.routed_scaling_factor = config.routed_scaling_factor
        self.kernels: Kernels | None = None  # given at loading, where there are any
        self.weight = nn.Parameter(torch.empty(config.n_routed_experts, config.hidden_size, dtype=torch.float32))
        nn.init.normal_(self.weight, std=INIT_STD)
        # A buffer: it only decides, so no gradient reaches it; training balances it by its own rule.
        self.e_score_correction_bias: Tensor
        self.register_buffer("e_score_correction_bias", torch.zeros(config.n_routed_experts, dtype=torch.float32))

    def forward(self, hidden_states: Tensor, block_tokens: int | None = None) -> tuple[Tensor, Tensor]:
        """[N, H] -> expert_ids [N, A] int64, best first (ties: the lower id), and expert_weights [N, A] float32.

        block_tokens: the bits are those of blocks of so many rows, each for itself.
        """
        if block_tokens is None or len(hidden_states) <= block_tokens:
            return self._choose(hidden_states)
        blocks = [self._choose(block) for block in hidden_states.split(block_tokens)]
        return torch.cat([ids for ids, _ in blocks]), torch.cat([weights for _, weights in blocks])

    def _choose(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        if self.kernels and self._is_native(hidden_states):
            x, bias, active = hidden_states.contiguous(), self.e_score_correction_bias, self.num_experts_per_tok
            normalizes, factor = self.norm_topk_prob, self.routed_scaling_factor
            return self.kernels.route(x, self.weight, bias, active, normalizes=normalizes, factor=factor)
        scores = functional.linear(hidden_states.float(), self.weight).sigmoid()  # [N, E]
        choice = scores + self.e_score_correction_bias
        if self.n_group > 1:
            choice = self._mask_groups(choice)
        # A stable sort instead of topk, which promises no order among equal scores.
        expert_ids = choice.sort(dim=-1, descending=True, stable=True).indices[:, : self.num_experts_per_tok]
        expert_weights = scores.gather(1, expert_ids)
        if self.norm_topk_prob:
            expert_weights = expert_weights / (expert_weights.sum(-1, keepdim=True) + 1e-20)
        return expert_ids, expert_weights * self.routed_scaling_factor

    def _is_native(self, x: Tensor) -> bool:
        """Whether the kernels choose: for a few rows, without groups of experts and without gradients."""
        return (
            (0 < len(x) <= FEW_TOKENS and self.n_group == 1)
            and x.dtype in (torch.float32, torch.bfloat16)
            and not (torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad))
        )

    def _mask_groups(self, choice: Tensor) -> Tensor:
        """Leave only the experts of the `topk_group` groups with the largest sum of their two best scores."""
        groups = choice.unflatten(-1, (self.n_group, -1))  # [N, G, E/G]
        group_scores = groups.topk(min(2, groups.shape[-1]), dim=-1).values.sum(-1)  # [N, G]
        best = group_scores.sort(dim=-1, descending=True, stable=True).indices[:, : self.topk_group]
        kept = torch.zeros_like(group_scores, dtype=torch.bool).scatter(1, best, True)
        return groups.masked_fill(~kept[..., None], float("-inf")).flatten(1)


class MoE(nn.Module):
    """Router and experts of one layer. No shared expert exists in this family."""

    def __init__(self, config: ModelConfig, layer: int, experts: ExpertSource) -> None:
        super().__init__()
        self.gate = Router(config)
        # Kept as a function: a module would be registered, and saved, once per layer.
        self.run_experts = partial(experts.run, layer)

    def forward(
        self, hidden_states: Tensor, padding_mask: Tensor | None = None, block_tokens: int | None = None
    ) -> Tensor:
        """[B, T, H] -> [B, T, H]; rows where padding_mask [B, T] is False are never routed and come out zero.

        block_tokens: routed by blocks of so many tokens, run together.
        """
        rows = hidden_states.flatten(0, 1)  # [B*T, H]
        if padding_mask is None:
            return self.run_experts(rows, *self.gate(rows, block_tokens)).view_as(hidden_states)
        valid = padding_mask.flatten().nonzero().squeeze(1)  # [N]
        rows = rows[valid]
        mixed = self.run_experts(rows, *self.gate(rows))  # [N, H]
        return torch.zeros_like(hidden_states).flatten(0, 1).index_copy(0, valid, mixed).view_as(hidden_states)


class ResidentExperts(nn.Module):
    """All experts in memory, stacked per MoE layer.

    `gate_up_proj[str(layer)]` [E, 2I, H] holds gate above up; `down_proj[str(layer)]` [E, H, I].
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        count, width, hidden = config.n_routed_experts, config.moe_intermediate_size, config.hidden_size
        self.gate_up_proj = nn.ParameterDict()
        self.down_proj = nn.ParameterDict()
        for layer in config.moe_layers:
            self.gate_up_proj[str(layer)] = nn.Parameter(torch.empty(count, 2 * width, hidden, dtype=dtype))
            self.down_proj[str(layer)] = nn.Parameter(torch.empty(count, hidden, width, dtype=dtype))
        for weight in self.parameters():
            nn.init.normal_(weight, std=INIT_STD)

    def expert(self, layer: int, expert_id: int) -> ExpertWeights:
        """Return views of one expert's gate [I, H], up [I, H] and down [H, I]."""
        gate, up = self.gate_up_proj[str(layer)][expert_id].chunk(2)
        return gate, up, self.down_proj[str(layer)][expert_id]

    def run(self, layer: int, hidden_states: Tensor, expert_ids: Tensor, expert_weights: Tensor) -> Tensor:
        """Satisfy ExpertSource."""
        return swiglu_experts(hidden_states, expert_ids, expert_weights, partial(self.expert, layer))
