"""What the tests share stands once, in tests/kit: no folder of tests leans on another."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.kit.places import ROOT

TESTS = ROOT / "tests"
KIT = TESTS / "kit"
# Programs that tests start: each is a script of its own, run by its path, and shares no names with anybody.
PROGRAMS = TESTS / "programs"
# A path to /proc/PID/stat, status or comm with the pid put in.
PROC_READER = re.compile(r"/proc/\{[^\"']*\}/(stat|status|comm)\b")


@cache
def sources() -> dict[Path, ast.Module]:
    """Return every module of the tests, read."""
    paths = [path for path in sorted(TESTS.rglob("*.py")) if not path.is_relative_to(PROGRAMS)]
    return {path: ast.parse(path.read_text()) for path in paths}


def folder_of(module: str) -> str:
    """Return the part of the tests that a module of them belongs to: a folder, `conftest`, or nothing for the root."""
    return module.partition(".")[2].partition(".")[0]


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield the full name of every module of the tests that is imported, wherever in the file."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name.split(".")[0] == "tests")
            case ast.ImportFrom(level=0, module="tests", names=names):
                yield from (f"tests.{alias.name}" for alias in names)
            case ast.ImportFrom(level=0, module=str(module)) if module.startswith("tests."):
                yield module
            case ast.ImportFrom(level=level) if level:
                yield f"tests.relative.import_{level}"  # belongs to no folder, so that it is refused


def is_fixture(node: ast.AST) -> bool:
    """Tell whether this is a fixture, which a file may define anew: that is pytest's way to change one."""
    return isinstance(node, ast.FunctionDef) and any("fixture" in ast.unparse(each) for each in node.decorator_list)


def defined(node: ast.AST) -> Iterator[str]:
    """Yield the names of all functions and classes below a node, but of no methods and no fixtures."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                if not isinstance(node, ast.ClassDef) and not is_fixture(child):
                    yield child.name
        yield from defined(child)


def public(tree: ast.Module) -> Iterator[str]:
    """Yield the names of the functions and classes that a module offers."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not is_fixture(node) and not node.name.startswith("_"):
            yield node.name


def test_a_folder_of_tests_imports_from_the_kit_and_itself_only() -> None:
    """What two folders need is in tests/kit, which itself needs none of them."""
    crossing = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path, tree in sources().items()
        for module in imported(tree)
        if folder_of(module) not in {"kit", path.relative_to(TESTS).parts[0]}
    ]
    assert crossing == []


def test_a_helper_of_the_kit_is_defined_once() -> None:
    """No function or class of tests/kit has a second definition by its name, in the kit or outside."""
    helpers = Counter(name for path, tree in sources().items() if path.is_relative_to(KIT) for name in public(tree))
    assert {"wait_until", "alive", "ended", "send", "Service"} <= helpers.keys()
    assert [name for name, times in helpers.items() if times > 1] == []
    again = [
        f"{path.relative_to(ROOT)} defines {name}"
        for path, tree in sources().items()
        if not path.is_relative_to(KIT)
        for name in defined(tree)
        if name in helpers
    ]
    assert again == []


def test_one_file_reads_proc() -> None:
    """Only tests/kit/processes.py reads /proc/PID/stat and its like; whoever else needs a field asks it."""
    readers = {str(path.relative_to(TESTS)) for path in sources() if PROC_READER.search(path.read_text())}
    assert readers == {"kit/processes.py"}
