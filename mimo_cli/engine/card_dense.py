"""Dense layers of a network on a card: in the compute dtype, or in a smaller form that was asked for by name.

The small forms are loaded only where they are asked for: bitsandbytes takes seconds and need not be installed.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mimo_cli.engine.bind import ReplaceLinear
from mimo_cli.engine.placement import CardDense
from mimo_cli.errors import UsageError
from mimo_cli.quant.linear import Linear
from mimo_cli.quant.w8a8 import W8A8Linear

LOSSES: dict[CardDense, str] = {
    "w8a8": "dense matrices and their activations are rounded to FP8 on the card (w8a8)",
    "int8": "dense matrices are rounded to 8 bits on the card (bitsandbytes)",
    "nf4": "dense matrices are rounded to NF4 on the card (bitsandbytes)",
}


def dense_replacer(choice: CardDense, where: torch.device) -> ReplaceLinear | None:
    """Return what puts small layers in the place of plain ones; None where these stay.

    Raises UsageError where the library for it is missing.
    """
    if choice == "bf16":
        return None
    make = _maker(choice)

    def replace(module: nn.Module, parameter: str, value: Tensor) -> bool:
        path, _, name = parameter.rpartition(".")
        if name != "weight" or type(module.get_submodule(path)) is not Linear:
            return False
        module.set_submodule(path, make(value.to(where)))
        return True

    return replace


def _maker(choice: CardDense) -> Callable[[Tensor], nn.Module]:
    if choice == "w8a8":
        return W8A8Linear
    try:
        from mimo_cli.quant.nf4 import Int8Linear, Nf4Linear
    except ImportError as err:
        raise UsageError(
            f"--gpu-dense {choice} needs bitsandbytes: {err}", hint="pip install bitsandbytes, or --gpu-dense bf16"
        ) from err
    return Nf4Linear if choice == "nf4" else Int8Linear
