"""What an installation, a wheel and an sdist hold, and what a build says when it fails."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.resources
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import fastmlp

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "fastmlp"

needs_sources = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the source tree")


@pytest.fixture(scope="module")
def distribution():
    try:
        return importlib.metadata.distribution("fastmlp")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs an installed fastmlp")


def test_version(distribution):
    assert distribution.version == fastmlp.__version__


def test_command(distribution):
    (command,) = distribution.entry_points.select(group="console_scripts")
    assert command.name == "fastmlp"
    assert callable(command.load())


def test_types_are_marked():
    assert importlib.resources.files("fastmlp").joinpath("py.typed").is_file()


@needs_sources
def test_flags():
    flags = {
        node.value
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
        if isinstance(node, ast.Constant) and str(node.value).startswith("-")
    }
    assert "-ffp-contract=off" in flags
    for word in ("native", "fast", "unsafe", "finite"):
        assert not [flag for flag in flags if word in flag.lower()]


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """``build(code, **environment)``: runs `code` in a copy of the sources, old builds among them.

    `code` finds setuptools' build functions as ``backend`` and a folder as ``target``.
    """
    pytest.importorskip("setuptools", minversion="77")
    if not (ROOT / "setup.py").exists():
        pytest.skip("needs the source tree")
    folder = tmp_path_factory.mktemp("sources") / "fastmlp"
    target = tmp_path_factory.mktemp("built")
    traces = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "*.so", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=traces)
    shutil.copy(ROOT / ".clang-format", folder)
    for trace in (
        "fastmlp/_core/cpu.c",
        "fastmlp/_core/cpu.so",
        "tests/__pycache__/test_packaging.cpython-311.pyc",
        "data/mnist/train-images-idx3-ubyte.gz",
        "build/temp/fastmlp/old.py",
    ):
        (folder / trace).parent.mkdir(parents=True, exist_ok=True)
        (folder / trace).write_bytes(b"")

    def run(code, **environment):
        start = f"from setuptools import build_meta as backend; target = {str(target)!r}; "
        own = {name: value for name, value in os.environ.items() if name != "FASTMLP_PURE"}
        process = subprocess.run(
            [sys.executable, "-c", start + code],
            cwd=folder,
            env={**own, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return process, target

    return run


def files_of(folder, patterns):
    return {
        path.relative_to(ROOT).as_posix()
        for pattern in patterns.split()
        for path in (ROOT / folder).rglob(pattern)
        if "__pycache__" not in path.parts
    }


def test_sdist(build):
    process, target = build("backend.build_sdist(target)")
    assert process.returncode == 0, process.stderr
    (path,) = target.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames() if "/" in name}
    wanted = {"LICENSE", "CHANGELOG.md", "README.md", "pyproject.toml", "setup.py"}
    wanted |= files_of("csrc", "*.c *.h") | files_of("fastmlp", "*.py *.pyx *.pxd *.h py.typed")
    wanted |= files_of("tests", "*.py") | files_of("benchmarks", "*.py")
    assert wanted <= names
    unwanted = {name for name in names if name.endswith((".so", ".pyc", ".gz"))}
    unwanted |= {name for name in names if name.startswith(("build/", "data/"))}
    unwanted |= {name for name in names if name.startswith("fastmlp/") and name.endswith(".c")}
    assert not unwanted


def test_pure_wheel(build):
    process, target = build("backend.build_wheel(target)", FASTMLP_PURE="1")
    assert process.returncode == 0, process.stderr
    (path,) = target.glob("*.whl")
    assert path.name == f"fastmlp-{fastmlp.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(path) as archive:
        names = {name for name in archive.namelist() if name.startswith("fastmlp/")}
    assert names == files_of("fastmlp", "*.py py.typed")


def test_failing_compiler_names_the_switch(build):
    process, target = build("backend.build_wheel(target)", CC="false", FASTMLP_PURE="0")
    assert process.returncode != 0
    assert process.stderr.rstrip().endswith("FASTMLP_PURE=1 pip install .")
    assert all(path.name.endswith("none-any.whl") for path in target.glob("*.whl"))
