"""The environment, the number of threads, and what `show_config` says of them."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fastmlp import config, get_num_threads, set_num_threads, show_config
from fastmlp.backends import get_backend, load_compiled
from fastmlp.runtime import configuration


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in ("FASTMLP_BACKEND", "FASTMLP_ISA", "FASTMLP_NUM_THREADS", "FASTMLP_DATA"):
        monkeypatch.delenv(name, raising=False)
    yield
    set_num_threads(None)


@pytest.fixture
def _eight_cpus(monkeypatch):
    monkeypatch.setattr(config, "available_cpus", lambda: 8)


# --- The environment ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "name", "default"),
    [
        (config.requested_backend, "FASTMLP_BACKEND", "auto"),
        (config.requested_isa, "FASTMLP_ISA", None),
        (config.data_folder, "FASTMLP_DATA", None),
    ],
)
def test_variables(monkeypatch, read, name, default):
    """Read at every call; an empty one is none."""
    assert read() == default
    monkeypatch.setenv(name, "value")
    assert str(read()) == "value"
    monkeypatch.setenv(name, "")
    assert read() == default


def test_data_folder_is_a_path_and_knows_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("FASTMLP_DATA", "~/data")
    assert config.data_folder() == tmp_path / "data"


@pytest.mark.parametrize("name", ["auto", "numpy"])
def test_backend_variable(monkeypatch, name):
    monkeypatch.setenv("FASTMLP_BACKEND", "numpy")
    assert get_backend(name).name == "numpy"


def test_the_argument_goes_before_the_variable(monkeypatch, backend):
    monkeypatch.setenv("FASTMLP_BACKEND", "numpy")
    assert get_backend(backend).name == backend


@pytest.mark.parametrize("name", ["Numpy", "c", ""])
def test_unknown_backends_are_refused(name):
    with pytest.raises(ValueError, match=f"backend: expected 'auto', .* got '{name}'"):
        get_backend(name)


# --- Threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (0, ValueError, "n: expected at least 1 thread, got 0"),
        (-2, ValueError, "n: expected at least 1 thread, got -2"),
        (2.0, TypeError, "n: expected an integer or None, got float"),
        ("2", TypeError, "n: expected an integer or None, got str"),
        (True, TypeError, "n: expected an integer or None, got bool"),
    ],
)
@pytest.mark.usefixtures("_eight_cpus")
def test_bad_numbers_of_threads_are_refused_and_change_nothing(n, error, message):
    set_num_threads(3)
    with pytest.raises(error, match=message):
        set_num_threads(n)
    assert config.thread_limit(8) == 3


@pytest.mark.usefixtures("_eight_cpus")
def test_the_first_limit_that_is_set(monkeypatch):
    """`set_num_threads`, then the variable, then OpenMP's own limit."""
    assert config.thread_limit(5) == 5
    monkeypatch.setenv("FASTMLP_NUM_THREADS", "4")
    assert config.thread_limit(2) == 4
    set_num_threads(np.int64(3))
    assert config.thread_limit(2) == 3
    set_num_threads(None)
    assert config.thread_limit(2) == 4


@pytest.mark.usefixtures("_eight_cpus")
def test_never_more_than_the_cpus_nor_less_than_one(monkeypatch):
    set_num_threads(1000)
    assert config.thread_limit(1) == 8
    set_num_threads(None)
    monkeypatch.setenv("FASTMLP_NUM_THREADS", "9")
    assert config.thread_limit(1) == 8
    monkeypatch.delenv("FASTMLP_NUM_THREADS")
    assert config.thread_limit(64) == 8
    assert config.thread_limit(0) == 1


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", " 2"])
def test_bad_thread_variables_are_named(monkeypatch, value):
    monkeypatch.setenv("FASTMLP_NUM_THREADS", value)
    with pytest.raises(ValueError, match=f"FASTMLP_NUM_THREADS: expected .* got '{value}'"):
        config.thread_limit(2)


@pytest.mark.usefixtures("_eight_cpus")
def test_get_num_threads(monkeypatch, backend):
    monkeypatch.setenv("FASTMLP_BACKEND", backend)
    set_num_threads(3)
    has_threads = backend == "compiled" and load_compiled().describe()["openmp"]
    assert get_num_threads() == (3 if has_threads else 1)


def test_the_openmp_limit_is_obeyed(run_python):
    """Also where another library has set it in this process."""
    if load_compiled() is None or not load_compiled().describe()["openmp"]:
        pytest.skip("needs the compiled core, built with OpenMP")
    code = """
        from fastmlp import config, get_num_threads
        from threadpoolctl import threadpool_limits
        config.available_cpus = lambda: 8
        numbers = [get_num_threads()]
        with threadpool_limits(3, user_api="openmp"):
            numbers.append(get_num_threads())
        print(*numbers)
    """
    assert run_python(code, OMP_NUM_THREADS="5") == "5 3\n"


# --- CPUs -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs affinity masks")
@pytest.mark.parametrize(("cpus", "quota", "expected"), [(4, None, 4), (4, 2, 2), (2, 8, 2)])
def test_cpus_are_the_affinity_mask_cut_by_the_quota(monkeypatch, cpus, quota, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cpus)))
    monkeypatch.setattr(config, "_quota_in", lambda second: quota)
    assert config.available_cpus() == expected


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/", {"cpu.max": "max 100000\n"}, None),
        ("0::/", {}, None),
        ("0::/a/b", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "300000 100000"}, 3),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "cpu.max": "300000 100000"}, 3),
        ("0::/a", {"a/cpu.max": "not a number"}, None),
        ("0::/a", {"a/cpu.max": "100000"}, None),
        ("0::/a", {"a/cpu.max": "100000 0"}, None),
        (
            "4:memory:/x\n3:cpu,cpuacct:/x",
            {"cpu/x/cpu.cfs_quota_us": "250000\n", "cpu/x/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        (
            "3:cpu:/x",
            {"cpu/x/cpu.cfs_quota_us": "-1\n", "cpu/x/cpu.cfs_period_us": "100000\n"},
            None,
        ),
        ("3:cpuset:/x", {"cpu/x/cpu.cfs_quota_us": "1", "cpu/x/cpu.cfs_period_us": "1"}, None),
        ("", {"cpu.max": "100000 100000"}, None),
    ],
)
def test_quota_of_the_control_group(tmp_path, own, files, expected):
    """Version 2 and version 1; the smallest of all levels; rounded up."""
    root, description = tmp_path / "cgroup", tmp_path / "self"
    write(description, own)
    for name, text in files.items():
        write(root / name, text)
    assert config._cgroup_quota(root, description) == expected


def test_no_control_groups(tmp_path):
    assert config._cgroup_quota(tmp_path, Path(tmp_path / "missing")) is None


# --- show_config ----------------------------------------------------------------------------------


def test_configuration_is_json_and_is_what_is_shown(monkeypatch, backend, capsys):
    monkeypatch.setenv("FASTMLP_BACKEND", backend)
    found = configuration()
    assert json.loads(json.dumps(found)) == found
    assert found["backend"] == backend
    assert found["threads"] == get_num_threads()
    compiled = load_compiled()
    if compiled is None:
        assert found["compiled core"].startswith("not available (")
    else:
        assert found["compiled core"] == "available"
        assert found["instruction set"] in found["instruction sets built"]
        assert isinstance(found["openmp"], bool)
    show_config()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(found)


def test_threads_of_a_block_of_code(monkeypatch):
    monkeypatch.setattr(config, "available_cpus", lambda: 4)
    with config.limited_threads(2):
        assert config.thread_limit(8) == 2
        with config.limited_threads(None):
            assert config.thread_limit(8) == 2
        with config.limited_threads(-2):
            assert config.thread_limit(8) == 3
        with ThreadPoolExecutor(1) as pool:  # of this Python thread alone
            assert pool.submit(config.thread_limit, 8).result() == 4
    assert config.thread_limit(8) == 4
