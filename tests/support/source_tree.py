"""The package's source files as syntax trees, for the tests of its structure."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "mimo_cli"


@dataclass(frozen=True)
class Import:
    """One imported module (`mimo_cli.quant.fp8`, `torch`), the names taken from it, and where it happens."""

    module: str
    names: tuple[str, ...]
    line: int
    in_function: bool
    for_types_only: bool


@dataclass(frozen=True)
class Source:
    """One Python file."""

    path: Path

    @cached_property
    def text(self) -> str:
        """The file's content."""
        return self.path.read_text("utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text)

    @property
    def lines(self) -> int:
        """Number of lines."""
        return self.text.count("\n")

    @property
    def name(self) -> str:
        """Dotted name without the package: `quant.fp8`, `errors`; the package's own `__init__` is empty."""
        parts = self.path.relative_to(ROOT / PACKAGE).with_suffix("").parts
        return ".".join(part for part in parts if part != "__init__")

    @property
    def part(self) -> str:
        """Sub-package or top-level module: `quant`, `errors`."""
        return self.name.split(".")[0]

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Every function and method."""
        return (node for node in ast.walk(self.tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))

    def imports(self) -> list[Import]:
        """Every import, wherever it stands; `from package import module` names the module."""
        found: list[Import] = []
        _collect(self.tree.body, found, in_function=False, for_types_only=False)
        return found


def _collect(nodes: list[ast.stmt], found: list[Import], in_function: bool, for_types_only: bool) -> None:
    for node in nodes:
        if isinstance(node, ast.Import):
            found.extend(Import(a.name, (), node.lineno, in_function, for_types_only) for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            names = tuple(a.name for a in node.names)
            found.extend(
                Import(module, taken, node.lineno, in_function, for_types_only)
                for module, taken in _modules(node.module or "", names)
            )
        is_function = in_function or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        types_only = for_types_only or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for field in ("body", "orelse", "finalbody"):
            _collect(getattr(node, field, []), found, is_function, types_only)
        for branch in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]:
            _collect(branch.body, found, is_function, types_only)


def _modules(module: str, names: tuple[str, ...]) -> list[tuple[str, tuple[str, ...]]]:
    """Split `from a import b, c` into the modules meant: b and c may be modules of ours themselves."""
    if not module.startswith(PACKAGE):
        return [(module, names)]
    folder = ROOT / Path(*module.split("."))
    inner = [name for name in names if (folder / f"{name}.py").exists() or (folder / name / "__init__.py").exists()]
    rest = tuple(name for name in names if name not in inner)
    return [(f"{module}.{name}", ()) for name in inner] + ([(module, rest)] if rest else [])


@cache
def package_sources() -> tuple[Source, ...]:
    """Every module of the package that is not empty."""
    sources = (Source(path) for path in sorted((ROOT / PACKAGE).rglob("*.py")))
    return tuple(source for source in sources if source.text.strip())


@cache
def suite_sources() -> tuple[Source, ...]:
    """Every Python file below tests/."""
    return tuple(Source(path) for path in sorted((ROOT / "tests").rglob("*.py")))
