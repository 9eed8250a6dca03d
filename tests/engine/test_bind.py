"""Building modules without memory."""

import subprocess
import sys

import torch
from torch import nn

from mimo_cli.engine.bind import build_empty
from tests.support.source_tree import ROOT


def test_a_module_is_built_with_shapes_and_dtypes_but_no_memory() -> None:
    module = build_empty(lambda: nn.Linear(3, 5), torch.bfloat16)
    assert module.weight.is_meta and module.weight.shape == (5, 3) and module.weight.dtype == torch.bfloat16


def test_modules_built_afterwards_get_their_random_start() -> None:
    build_empty(lambda: nn.Linear(3, 5))
    weight = nn.Linear(100, 100).weight
    assert not weight.is_meta and weight.std() > 0.01
    nn.init.normal_(weight, mean=5.0)
    assert weight.mean() > 4.0


def test_building_does_not_load_torchs_compiler() -> None:
    # Drawing random numbers without memory loads it: more than a second of every start.
    code = "import sys; from torch import nn; from mimo_cli.engine.bind import build_empty;"
    code += "build_empty(lambda: nn.Embedding(4, 4)); print('torch._dynamo' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
