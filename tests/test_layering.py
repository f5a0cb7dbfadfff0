"""Imports only go down, and what one file owns stays in that file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import fastmlp

ROOT = Path(fastmlp.__file__).parent

# A module imports only those above it, at the top of the file or inside of functions. Imports for
# type checkers alone do not count. Modules in a package without entries of their own are one.
ORDER = [
    "version",
    "config",
    "cfunctions",
    "activations",
    "losses",
    "initializers",
    "philox",
    "arena",
    "monitor",
    "schedules",
    "optimizers",
    "layers",
    "custom_layer",
    "architecture",
    "propagation",
    "mapped",
    "validation",
    "_core",
    "backends.base",
    "backends.interrupts",
    "backends.numpy_backend",
    "backends.compiled_backend",
    "backends",
    "history",
    "training_state",
    "serialization",
    "snapshot",
    "callbacks",
    "loggers",
    "metrics",
    "progress",
    "feeding",
    "training",
    "lr_finder",
    "plots",
    "gradient_check",
    "idx",
    "datasets",
    "tables",
    "exchange",
    "network",
    "estimators",
    "exchange.pipelines",
    "scaling",
    "runtime",
    "experiments",
    "comparison",
    "settings",
    "jobs",
    "report",
    "fastmlp",  # __init__.py
    "bench",
    "cli",
    "__main__",
]

# Who imports the compiled core; a benchmark of one kernel alone may, too.
MAY_IMPORT_CORE = {"backends.compiled_backend", "_core", "bench"}
# Who touches the environment; a benchmark hands it on to its child processes.
MAY_READ_ENVIRONMENT = {"config", "bench"}

# Would run code from a file.
UNSAFE = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle"}


def sources(pattern):
    return {path.relative_to(ROOT): path for path in sorted(ROOT.rglob(pattern))}


PYTHON, CYTHON = sources("*.py"), sources("*.p[yx][xd]")


def entry(name):
    """The entry of ORDER for a dotted name below the package."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in ORDER:
            return ".".join(parts[:end])
    raise AssertionError(f"fastmlp.{name} has no place in ORDER")


def own_name(relative):
    parts = relative.with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    return entry(".".join(parts) or "fastmlp")


def is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


class Imports(ast.NodeVisitor):
    """Every imported module, as a dotted name; those under ``if TYPE_CHECKING`` left out."""

    def __init__(self):
        self.names = []

    def visit_If(self, node):
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            for child in node.orelse:
                self.visit(child)
        else:
            self.generic_visit(node)

    def visit_Import(self, node):
        self.names += [alias.name for alias in node.names]

    def visit_ImportFrom(self, node):
        assert node.level == 0, "imports are absolute here"
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            below = inner.removeprefix("fastmlp.")
            self.names.append(inner if below != inner and is_module(below) else node.module)


def imported_by(path):
    if path.suffix == ".py":
        visitor = Imports()
        visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
        return visitor.names
    lines = re.findall(
        r"^\s*(?:from\s+([\w.]+)\s+c?import|c?import\s+([\w.]+))",
        path.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    return [first or second for first, second in lines]


def imported_entries(path):
    names = [name for name in imported_by(path) if name.split(".")[0] == "fastmlp"]
    return {entry(name.removeprefix("fastmlp.")) for name in names}


every_source = pytest.mark.parametrize("relative", [*PYTHON, *CYTHON], ids=str)


def path_of(relative):
    return ROOT / relative


@every_source
def test_imports_only_go_down(relative):
    own = own_name(relative)
    above = {name for name in imported_entries(path_of(relative)) if name != own}
    wrong = {name for name in above if ORDER.index(name) > ORDER.index(own)}
    assert not wrong, f"{relative} imports {sorted(wrong)}"


@every_source
def test_only_the_compiled_backend_imports_the_core(relative):
    if own_name(relative) not in MAY_IMPORT_CORE:
        assert "_core" not in imported_entries(path_of(relative))


@pytest.mark.parametrize("relative", PYTHON, ids=str)
def test_only_config_reads_the_environment(relative):
    if own_name(relative) in MAY_READ_ENVIRONMENT:
        return
    tree = ast.parse(path_of(relative).read_text(encoding="utf-8"))
    names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "os"
        for alias in node.names
    }
    assert not names & {"environ", "environb", "getenv", "putenv", "unsetenv"}


@pytest.mark.parametrize("relative", PYTHON, ids=str)
def test_nothing_that_runs_code_from_files(relative):
    names = {name.split(".")[0] for name in imported_by(path_of(relative))}
    assert not names & UNSAFE
    tree = ast.parse(path_of(relative).read_text(encoding="utf-8"))
    called = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"eval", "exec", "__import__"}


# --- The tests above see what they are meant to see -----------------------------------------------


def test_the_sources_are_found():
    assert {Path("__init__.py"), Path("network.py"), Path("backends/base.py")} <= set(PYTHON)


def test_the_parser_sees_every_kind_of_import(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "from __future__ import annotations\n"
        "import os, fastmlp.config\n"
        "from fastmlp import training, Dense\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n"
        "    from fastmlp.network import Network\n"
        "else:\n"
        "    from fastmlp.arena import Arena\n"
        "def f():\n"
        "    from fastmlp.backends.compiled_backend import CompiledBackend\n"
        "    if f:\n"
        "        import fastmlp._core.cpu\n"
    )
    assert imported_entries(path) == {
        *("config", "training", "fastmlp", "arena", "backends.compiled_backend", "_core"),
    }
    path = tmp_path / "module.pyx"
    path.write_text(
        "cimport numpy\nfrom fastmlp._core.cpu cimport real\nfrom fastmlp.arena import x\n"
    )
    assert imported_entries(path) == {"_core", "arena"}


def test_modules_without_a_place_are_found():
    with pytest.raises(AssertionError, match=r"fastmlp.unheard_of has no place in ORDER"):
        entry("unheard_of")
