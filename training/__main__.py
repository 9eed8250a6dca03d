"""`python -m training run STAGE --out DIR`: one stage, or all of them in order; `start`, `export`, `status` too."""

import argparse
from pathlib import Path

import torch

from training.recipe import STAGES, Recipe
from training.settings import Settings
from training.start import read_parts, save_stages
from training.together import start_others


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a stage from its last checkpoint on")
    run.add_argument("stage", choices=[*STAGES, "all"])
    export = commands.add_parser("export", help="write the trained parts as a model folder")
    export.add_argument("folder", type=Path)
    start = commands.add_parser("start", help="begin with the weights of a model folder, to go on training them")
    start.add_argument("folder", type=Path)
    status = commands.add_parser("status", help="print the last lines of every stage's journal")
    for command in (run, start, export, status):
        command.add_argument("--out", type=Path, required=True, help="folder of checkpoints and data")
        command.add_argument("--threads", type=int, default=1)
        command.add_argument("--processes", type=int, default=1, help="train together in so many (trunk stages)")
        command.add_argument("--workers", type=int, default=0, help="processes that draw samples (for a GPU)")
        command.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    start_others(arguments.processes)
    torch.set_num_threads(arguments.threads)
    recipe = Recipe(arguments.out, Settings(), arguments.device, arguments.workers)
    if arguments.command == "run":
        for stage in STAGES if arguments.stage == "all" else [arguments.stage]:
            recipe.run(stage)
    elif arguments.command == "start":
        read_parts(arguments.folder, recipe.parts)
        save_stages(recipe.parts, arguments.out)
    elif arguments.command == "export":
        recipe.export(arguments.folder)
    else:
        recipe.print_status()


if __name__ == "__main__":
    main()
