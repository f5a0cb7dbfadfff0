"""Without the compiled core everything works, and one warning says why. What an import costs."""

from __future__ import annotations

import json

import pytest

from fastmlp.backends import compiled_error, load_compiled
from fastmlp.config import requested_backend

WITHOUT_CORE = """
import sys
sys.modules["fastmlp._core"] = None  # any import of it or from it fails

"""

TRAIN = (
    WITHOUT_CORE
    + """
import json, os, warnings
import numpy as np

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import fastmlp
    from fastmlp import Adam, Dense, Network

    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 5))
    y = (X[:, 0] > 0).astype(int)
    for seed in range(3):
        net = Network(5, [Dense(8, "relu"), Dense(2, "softmax")], loss="cross_entropy", seed=seed)
        net.fit(X, y, optimizer=Adam(0.01), epochs=20, batch_size=16)
    net.save(sys.argv[1])
    loaded = Network.load(sys.argv[1])
    difference = fastmlp.check_gradient(loaded, X[:5], y[:5])
    threads = fastmlp.get_num_threads()
    fastmlp.show_config()

print("REPORT" + json.dumps({
    "backend": loaded.backend.name,
    "accuracy": loaded.evaluate(X, y)["accuracy"],
    "difference": difference,
    "threads": threads,
    "warnings": [[w.category.__name__, str(w.message), os.path.basename(w.filename)]
                 for w in caught],
}))
"""
)


def report_of(output):
    shown, report = output.split("REPORT")
    return shown, json.loads(report)


def test_the_compiled_core_is_there():
    """A build that has silently lost it fails here; FASTMLP_BACKEND=numpy means that none is."""
    if requested_backend() == "numpy" and load_compiled() is None:
        pytest.skip(f"FASTMLP_BACKEND=numpy: the compiled core is not wanted ({compiled_error()})")
    assert compiled_error() is None
    assert load_compiled().name == "compiled"


def test_everything_works_with_one_warning(run_python, tmp_path):
    shown, report = report_of(run_python(TRAIN, tmp_path / "net.safetensors"))
    assert report["backend"] == "numpy"
    assert report["accuracy"] > 0.9
    assert report["difference"] < 1e-6
    assert report["threads"] == 1
    ((category, message, filename),) = report["warnings"]
    assert category == "RuntimeWarning"
    assert "compiled core cannot be imported" in message
    assert "fastmlp._core" in message
    assert filename == "<string>"  # the user's own line, not one of this package
    assert "not available (" in shown


def test_a_wish_for_numpy_needs_no_warning(run_python, tmp_path):
    output = run_python(TRAIN, tmp_path / "net.safetensors", FASTMLP_BACKEND="numpy")
    _, report = report_of(output)
    assert report["backend"] == "numpy"
    assert report["warnings"] == []


MAKE = """
import sys
from fastmlp import Dense, Network

try:
    Network(1, [Dense(1)], loss="mse", backend=sys.argv[1])
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("argument", "environment", "named"),
    [
        ("compiled", {}, "backend"),
        ("auto", {"FASTMLP_BACKEND": "compiled"}, "FASTMLP_BACKEND"),
    ],
)
def test_a_wish_for_the_missing_core_is_an_import_error(run_python, argument, environment, named):
    output = run_python(WITHOUT_CORE + MAKE, argument, **environment)
    assert output.startswith(f"ImportError {named}: the compiled core cannot be imported: ")
    assert "fastmlp._core" in output


def test_a_wish_for_an_unknown_backend_is_an_error(run_python):
    output = run_python(MAKE, "auto", FASTMLP_BACKEND="cuda")
    assert output == (
        "ValueError FASTMLP_BACKEND: expected 'auto', 'compiled' or 'numpy', got 'cuda'\n"
    )


def test_a_core_is_taken_where_it_is(run_python, backend):
    code = """
        import sys
        from fastmlp import Dense, Network
        print(Network(1, [Dense(1)], loss="mse").backend.name)
    """
    assert (
        run_python(code, FASTMLP_BACKEND="" if backend == "compiled" else "numpy") == f"{backend}\n"
    )


def test_import_is_light(run_python):
    """What takes long to import is imported where it is used."""
    code = """
        import sys
        import fastmlp
        heavy = "sklearn scipy matplotlib rich typer pooch safetensors pandas"
        print([name for name in heavy.split() if name in sys.modules])
    """
    assert run_python(code) == "[]\n"


def test_predicting_stays_light(run_python, backend):
    code = """
        import sys
        from fastmlp import Adam, Dense, Network
        net = Network(2, [Dense(3, "relu"), Dense(2, "softmax")], loss="cross_entropy")
        net.fit([[0, 1], [1, 0]], [0, 1], optimizer=Adam(), epochs=1)
        net.predict([[0, 1]])
        print([name for name in ("sklearn", "scipy", "rich") if name in sys.modules])
    """
    assert run_python(code, FASTMLP_BACKEND=backend) == "[]\n"
