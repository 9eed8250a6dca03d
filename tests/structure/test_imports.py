"""Who may import whom. The picture is in docs/structure.md; these tables are its exact form."""

import ast
from collections import defaultdict

import pytest

from tests.support.source_tree import PACKAGE, Source, package_sources

BOTTOM = {"errors", "units"}
MAY_IMPORT = {
    "errors": set(),
    "units": {"errors"},
    "settings": BOTTOM,
    "terminal": BOTTOM,
    "media": {"errors"},
    "quant": BOTTOM,
    "checkpoint": {*BOTTOM, "quant"},
    "kvcache": {*BOTTOM, "checkpoint"},
    "model": {*BOTTOM, "quant", "kvcache", "checkpoint"},
    "store": {*BOTTOM, "quant", "checkpoint"},
    "offload": {*BOTTOM, "quant", "checkpoint"},
    "engine": {*BOTTOM, "model", "offload", "store", "kvcache", "quant", "checkpoint", "media"},
    "chat": {*BOTTOM, "engine", "media", "checkpoint"},
    "miniature": {*BOTTOM, "checkpoint", "quant", "chat"},
    "dialogue": {*BOTTOM, "chat", "engine", "media"},
    "towers": {*BOTTOM, "chat", "engine", "model", "media", "checkpoint"},
    "api": {*BOTTOM, "dialogue", "towers", "chat", "engine", "media", "checkpoint", "miniature"},
    "evaluation": {*BOTTOM, "api", "dialogue", "chat", "engine", "media", "checkpoint"},
    "commands": {*BOTTOM, "evaluation", "api", "dialogue", "chat", "engine", "media", "checkpoint", "miniature"}
    | {"store", "offload", "settings", "terminal"},
    "app": {*BOTTOM, "commands", "settings", "terminal"},
    "__main__": {"app"},
    "": {"api"},
}
"""Sub-package or module -> what of ours it may import besides itself."""

ONLY_THESE_MODULES = {
    ("engine", "media"): {"media.types", "media.prompt"},  # what the engine is handed, never how media are opened
    ("checkpoint", "quant"): {
        f"quant.{name}" for name in ("buffers", "fp8", "mxfp4", "formats", "packed", "pages", "stored")
    },
    ("model", "checkpoint"): {"checkpoint.config", "checkpoint.vision_config", "checkpoint.audio_config"},
    ("kvcache", "checkpoint"): {"checkpoint.config"},
    ("commands", "offload"): {"offload.budget", "offload.reading"},  # what `--ram` and `--io` mean
}
"""Where a sub-package may import only some modules of another."""

LIBRARY_HOMES = {
    "typer": {"app", "commands"},
    "rich": {"terminal", "commands"},
    "prompt_toolkit": {"terminal", "commands"},
    "cv2": {"media"},
    "soundfile": {"media"},
    "av": {"media"},
    "tokenizers": {"chat.tokenizer"},
    "jinja2": {"chat"},
    "triton": {"quant"},
    "bitsandbytes": {"quant.nf4"},
    "accelerate": {"offload", "engine.load"},
    "huggingface_hub": {"commands"},
    "torch": {"engine", "model", "kvcache", "checkpoint", "offload", "quant", "store", "miniature", "towers", "api"}
    | {"evaluation"},
}
"""Library -> the sub-packages or modules that may import it."""

COMPILED = {(f"quant.{name}", "_native") for name in ("availability", "kernels", "quantize", "direct")}
"""The extension module and the modules that check what it is given; nothing else talks to it."""

LAZY_MODULES = {"engine.card", "engine.card_dense", "media.libraries"}
"""What a card needs is loaded where there is a card: Triton takes a second, and few machines have it."""

LAZY_PARTS = {"commands", "app", "settings", "terminal", "api", ""}
"""The command line's edge: an import may stand inside a function here, so that `mimo --help` stays light."""


def ours(source: Source) -> list[tuple[str, int]]:
    """What of ours a module imports from other parts: dotted name without the package, and line."""
    imports = [found for found in source.imports() if _is_ours(found.module)]
    names = [(found.module.removeprefix(PACKAGE).lstrip("."), found.line) for found in imports]
    return [(name, line) for name, line in names if name.split(".")[0] != source.part]


def _is_ours(module: str) -> bool:
    return module.split(".")[0] == PACKAGE


def test_a_module_imports_only_what_lies_below_it() -> None:
    wrong = []
    for source in package_sources():
        for name, line in ours(source):
            target = name.split(".")[0]
            only = ONLY_THESE_MODULES.get((source.part, target))
            if target not in MAY_IMPORT[source.part] or (only is not None and name not in only):
                wrong.append(f"{source.path}:{line} imports {name or 'the package itself'}")
    assert not wrong


def test_the_table_of_imports_has_no_cycle() -> None:
    done: set[str] = set()
    while left := {part for part in MAY_IMPORT if part not in done}:
        free = {part for part in left if MAY_IMPORT[part] <= done}
        assert free, f"these import one another: {sorted(left)}"
        done |= free


def test_the_sub_packages_have_no_cycle() -> None:
    edges = defaultdict(set)
    for source in package_sources():
        edges[source.part] |= {name.split(".")[0] for name, _ in ours(source)}
    left = dict(edges)
    while left:
        free = [part for part, targets in left.items() if not targets & left.keys()]
        assert free, (
            f"these import one another: { {part: sorted(targets & left.keys()) for part, targets in left.items()} }"
        )
        for part in free:
            del left[part]


@pytest.mark.parametrize("library", LIBRARY_HOMES)
def test_a_library_stays_where_it_belongs(library: str) -> None:
    for source in package_sources():
        for found in source.imports():
            if found.module.split(".")[0] == library and not found.for_types_only:
                home = source.part in LIBRARY_HOMES[library] or source.name in LIBRARY_HOMES[library]
                assert home, f"{source.path}:{found.line} imports {library}"


def test_no_module_uses_the_underscore_names_of_another() -> None:
    wrong = [
        f"{source.path}:{found.line} imports {name}"
        for source in package_sources()
        for found in source.imports()
        for name in (*found.module.split("."), *found.names)
        if _is_ours(found.module) and name.startswith("_") and (source.name, name) not in COMPILED
    ]
    assert not wrong


def test_imports_stand_at_the_head_of_a_module() -> None:
    wrong = []
    for source in package_sources():
        if source.part not in LAZY_PARTS and source.name not in LAZY_MODULES:
            wrong += [f"{source.path}:{found.line}" for found in source.imports() if found.in_function]
            wrong += [f"{source.path} imports by name"] if "import_module" in source.text else []
    assert not wrong


def test_init_files_load_nothing() -> None:
    for source in package_sources():
        if source.path.name == "__init__.py" and source.part:
            assert source.lines <= 10 and not source.imports(), f"{source.path} should be nearly empty"


def test_nothing_below_the_commands_prints_or_exits() -> None:
    talkers = {"commands", "app", "terminal", "__main__"}
    for source in package_sources():
        if source.part in talkers:
            continue
        for node in ast.walk(source.tree):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            assert called not in {"print", "sys.exit", "exit", "input"}, f"{source.path}:{node.lineno} calls {called}"
            read = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            assert read not in {"sys.argv", "sys.stdout", "sys.stderr"}, f"{source.path}:{node.lineno} uses {read}"


def test_the_package_never_imports_its_tests() -> None:
    for source in package_sources():
        assert not [found for found in source.imports() if found.module.split(".")[0] in {"tests", "pytest"}], (
            source.path
        )
