"""What a stranger finds: files that speak of the product only, commands of the README that exist, licences named."""

import re
import shlex
import subprocess
import tomllib

import pytest

from mimo_cli.commands.registry import COMMANDS, load_command
from tests.support.source_tree import ROOT

# Spelled in pieces, so that this file does not find itself.
FOREIGN_WORDS = (
    "/" + "work/",
    ".." + "/shared",
    "before" + "-stop",
    "sub" + "agent",
    "golden set " + "2",
    "pypi" + "-more",
)
GENERATED = ("mimo_cli/miniature/data/", "LICENSE")
MAX_TREE_BYTES = 40_000_000


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """Paths of the repository's files; outside a checkout (an unpacked archive) there is nothing to say."""
    run = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if run.returncode != 0 or not run.stdout:
        pytest.skip("not a git checkout")
    return [path for path in run.stdout.split("\0") if path and (ROOT / path).is_file()]


def test_the_repository_speaks_only_of_the_product(tracked: list[str]) -> None:
    found = []
    for path in tracked:
        if path.startswith(GENERATED):
            continue
        try:
            text = (ROOT / path).read_text("utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path}: {word}" for word in FOREIGN_WORDS if word in text]
    assert not found


def test_the_repository_stays_small(tracked: list[str]) -> None:
    assert sum((ROOT / path).stat().st_size for path in tracked) < MAX_TREE_BYTES


def test_every_example_says_where_it_comes_from(tracked: list[str]) -> None:
    described = (ROOT / "examples" / "README.md").read_text("utf-8")
    for path in tracked:
        if path.startswith("examples/") and not path.endswith("README.md"):
            assert f"`{path.removeprefix('examples/')}`" in described, path


def command_lines() -> list[list[str]]:
    """Every line `$ mimo ...` (alone, or in a pipe) in the README's console blocks, as words; continuations joined."""
    readme = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"```console\n(.*?)```", readme, re.DOTALL)
    typed = [line[2:] for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.startswith("$ ")]
    pieces = [piece.strip() for line in typed for piece in line.split(" | ")]
    return [shlex.split(piece, comments=True) for piece in pieces if piece.startswith("mimo ")]


def test_the_readme_shows_existing_commands_and_options() -> None:
    lines = command_lines()
    assert lines, "the README shows no command"
    for words in lines:
        name = words[1]
        if name not in COMMANDS:
            assert " " in name or name.startswith("-"), f"`mimo {name}` is neither a command nor a question"
            name = "chat"
        known = {flag for option in load_command(name).options() for flag in [*option.opts, *option.secondary_opts]}
        used = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert used <= known | {"--help", "-h", "--help-all"}, f"{' '.join(words)}: {sorted(used - known)}"


def test_the_readme_names_existing_make_targets() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)\b", readme))
    assert {"demo", "test"} <= named <= targets


def test_the_readme_names_existing_files() -> None:
    for document in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8")):
            assert (document.parent / link).exists(), f"{document.name} links to {link}"


def test_every_direct_dependency_is_pinned_for_the_tests() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    names = {re.split(r"[<>=\[ ]", line)[0].lower() for line in declared}
    pinned = re.findall(r"^([a-z0-9-]+)==", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    assert names <= set(pinned), f"not in constraints.txt: {sorted(names - set(pinned))}"
