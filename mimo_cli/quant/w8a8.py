"""W8A8Linear: FP8 weights and FP8 activations, a named precision of cards that multiply FP8 themselves. Lossy.

Every output row of the weight and every row of activations has one float32 scale; products are summed in float32 by
`torch._scaled_mm`. Where there is no such product, the same codes are multiplied as float32. Untested on a card.
"""

import torch
from torch import Tensor, nn

_LARGEST = 448.0
"""Of float8_e4m3fn."""


class W8A8Linear(nn.Module):
    """A dense layer without bias over a float `weight` [O, I], kept as codes on its device."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.codes: Tensor
        self.scales: Tensor
        codes, scales = quantize_rows(weight)
        self.register_buffer("codes", codes)  # [O, I]
        self.register_buffer("scales", scales)  # [O, 1]

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O], in the dtype of x."""
        rows = x.reshape(-1, x.shape[-1])
        codes, scales = quantize_rows(rows)
        if rows.is_cuda:
            y = torch._scaled_mm(
                codes, self.codes.t(), scale_a=scales, scale_b=self.scales.t(), out_dtype=torch.bfloat16
            )
        else:
            y = (codes.float() @ self.codes.float().t()) * scales * self.scales.t()
        return y.to(x.dtype).view(*x.shape[:-1], -1)

    def float_outputs(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O] float32."""
        return self(x).float()


def quantize_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return float8_e4m3fn codes [N, I] of rows and the float32 scales [N, 1] that they are multiplied by."""
    scales = rows.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / _LARGEST
    return (rows.float() / scales).clamp(-_LARGEST, _LARGEST).to(torch.float8_e4m3fn), scales
