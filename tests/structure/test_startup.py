"""`mimo --help` answers at once: nothing heavy is loaded before a command is known."""

import subprocess
import sys

import pytest

from tests.support.source_tree import ROOT

HEAVY = (
    "torch",
    "numpy",
    "cv2",
    "av",
    "soundfile",
    "tokenizers",
    "jinja2",
    "transformers",
    "accelerate",
    "bitsandbytes",
)

PROBE = """
import sys
from mimo_cli.app import main
try:
    main({arguments!r})
except SystemExit:
    pass
print("\\n".join(sorted({{name.split(".")[0] for name in sys.modules}})))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["version"]])
def test_a_light_command_loads_no_heavy_library(arguments: list[str]) -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROBE.format(arguments=arguments)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.splitlines())
    assert "mimo_cli" in loaded
    assert not loaded & set(HEAVY)


def test_the_probe_sees_what_is_loaded() -> None:
    code = PROBE.format(arguments=["--help"]) + "\nimport numpy\nprint('numpy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.rstrip().endswith("True")


def test_importing_the_package_loads_nothing_else() -> None:
    code = "import sys, mimo_cli; print([m for m in sys.modules if m.startswith('mimo_cli.')], 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[] False"
