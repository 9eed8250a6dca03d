"""The measures of the house: sizes of modules and functions, types, docstrings, names, and how much is tested."""

import ast
import statistics

from tests.support.source_tree import ROOT, package_sources, suite_sources

MAX_MODULE_LINES = 500
MAX_MEDIAN_MODULE_LINES = 180
LONG_FUNCTION_LINES = 60
MAX_LONG_FUNCTIONS = 0.02
MIN_TYPED_FUNCTIONS = 0.95
MIN_TEST_LINES_PER_CODE_LINE = 0.7
NAMELESS = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc"}


def test_a_module_fits_into_a_head() -> None:
    sources = [*package_sources(), *suite_sources()]
    long = [f"{source.path}: {source.lines} lines" for source in sources if source.lines > MAX_MODULE_LINES]
    assert not long


def test_most_modules_are_short() -> None:
    median = statistics.median(source.lines for source in package_sources())
    assert median <= MAX_MEDIAN_MODULE_LINES


def test_long_functions_are_rare() -> None:
    functions = [(source, function) for source in package_sources() for function in source.functions()]
    long = [
        f"{source.path.relative_to(ROOT)}:{function.lineno} {function.name}"
        for source, function in functions
        if (function.end_lineno or 0) - function.lineno + 1 > LONG_FUNCTION_LINES
    ]
    assert len(long) <= MAX_LONG_FUNCTIONS * len(functions), "\n".join(long)


def test_functions_are_typed() -> None:
    functions = [(source, function) for source in package_sources() for function in source.functions()]
    untyped = [f"{source.name}.{function.name}" for source, function in functions if not _is_typed(function)]
    assert len(untyped) <= (1 - MIN_TYPED_FUNCTIONS) * len(functions), untyped


def _is_typed(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    named = [argument for argument in named if argument.arg not in {"self", "cls"}]
    return function.returns is not None and all(argument.annotation for argument in named)


def test_a_module_says_what_it_owns() -> None:
    mute = [str(source.path) for source in package_sources() if not ast.get_docstring(source.tree)]
    assert not mute


def test_public_things_have_docstrings() -> None:
    bare = [
        f"{source.path}:{node.lineno} {name}"
        for source in package_sources()
        for name, node in _public(source.tree.body)
        if not ast.get_docstring(node)
    ]
    assert not bare


def _public(nodes: list[ast.stmt], prefix: str = "") -> list[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    """Public functions, classes and their public methods; overloads, overrides and property setters say nothing new."""
    found: list[tuple[str, ast.FunctionDef | ast.ClassDef]] = []
    for node in nodes:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        decorators = {ast.unparse(decorator).split("(")[0].split(".")[-1] for decorator in node.decorator_list}
        if decorators & {"overload", "override", "setter"}:
            continue
        found.append((prefix + node.name, node))
        if isinstance(node, ast.ClassDef):
            found += _public(node.body, f"{prefix}{node.name}.")
    return found


def test_files_are_named_after_things() -> None:
    for source in [*package_sources(), *suite_sources()]:
        words = set(source.path.stem.split("_")) | {folder.name for folder in source.path.relative_to(ROOT).parents}
        assert not words & NAMELESS, f"{source.path} is named after nothing"


def test_no_bare_except() -> None:
    for source in package_sources():
        for node in ast.walk(source.tree):
            assert not (isinstance(node, ast.ExceptHandler) and node.type is None), f"{source.path}:{node.lineno}"


def test_there_are_enough_tests() -> None:
    code = sum(source.lines for source in package_sources())
    tests = sum(source.lines for source in suite_sources())
    assert tests >= MIN_TEST_LINES_PER_CODE_LINE * code, f"{tests} lines of tests for {code} lines of code"


def test_no_test_module_is_without_a_test() -> None:
    for source in suite_sources():
        if source.path.name.startswith("test_"):
            assert any(function.name.startswith("test_") for function in source.functions()), source.path
