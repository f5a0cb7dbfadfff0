"""Networks in other programs' forms give the same outputs there."""

from __future__ import annotations

import ctypes
import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from fastmlp import Activation, BatchNorm, Dense, Dropout, LayerNorm, Network
from fastmlp.activations import ACTIVATIONS
from fastmlp.exchange import c_header, onnx_model

# Between the layers, of which one has a single unit, another more than any vector.
WIDTHS = [11, 37, 1, 20, 4]


def network(activation, dtype, output="identity", loss="mse", widths=WIDTHS):
    """Normal weights: pre-activations lie around +-3; before exp nearer 0: it stays finite."""
    layers = [Dense(n_units, activation) for n_units in widths[1:-1]]
    net = Network(widths[0], [*layers, Dense(widths[-1], output)], loss=loss, dtype=dtype, seed=0)
    rng = np.random.default_rng(0)
    size = 0.3 if activation == "exp" else 3
    for W, b in net.parameters:
        W[...] = rng.standard_normal(W.shape) * size / np.sqrt(len(W))
        b[...] = rng.standard_normal(b.shape)
    return net


def inputs(dtype, n=50, n_inputs=WIDTHS[0]):
    X = np.random.default_rng(1).standard_normal((n, n_inputs)).astype(dtype)
    X[0] = 0
    return X


def pixels(n=20, n_inputs=WIDTHS[0]):
    return np.random.default_rng(1).integers(0, 256, (n, n_inputs), dtype=np.uint8)


def nets(dtype):
    """A network of every activation, hidden and as the output's."""
    for name in ACTIVATIONS:
        yield name, network(name, dtype)
        yield f"{name} output", network("tanh", dtype, output=name)
    hidden = [Dense(9, "tanh"), Dropout(0.3), BatchNorm("relu"), LayerNorm("silu")]
    for name, layers in [
        ("layers", [*hidden, Dense(4)]),
        ("first and last", [LayerNorm(), *hidden, Dense(4), BatchNorm(), LayerNorm("softmax")]),
        ("none dense", [BatchNorm("tanh"), LayerNorm()]),
    ]:
        net = Network(WIDTHS[0], layers, loss="mse", dtype=dtype, seed=0)
        for group in net.arena.groups():
            for array in group:
                array += np.random.default_rng(0).uniform(0.1, 0.5, array.shape)
        yield name, net


SINE = Activation(np.sin, lambda dA, Z, A: dA * np.cos(Z), name="sine")


# --- ONNX -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_onnx(tmp_path_factory):
    """``run_onnx(net, X, **options)``: what onnxruntime makes of the exported file."""
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")

    def run(net, X, **options):
        path = tmp_path_factory.mktemp("onnx") / "model.onnx"
        net.to_onnx(path, **options)
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (result,) = session.run(["Y"], {"X": X})
        return result

    return run


def test_onnx_gives_the_same_outputs(run_onnx, dtype):
    for name, net in nets(dtype):
        X = inputs(dtype)
        result = run_onnx(net, X)
        assert result.dtype == dtype
        expected = net.predict(X)
        single = dtype == "float32" or name.startswith("gelu")
        bound = 1e-5 if single else 1e-12
        scale = max(1, np.abs(expected).max())
        assert np.abs(result - expected).max() <= bound * scale, name


@pytest.mark.parametrize("n", [1, 2, 33])
def test_onnx_takes_any_number_of_samples(run_onnx, n):
    net = network("relu", "float32", "softmax", "cross_entropy")
    np.testing.assert_allclose(
        run_onnx(net, inputs("float32", n)), net.predict(inputs("f4", n)), atol=1e-6
    )


def test_onnx_of_pixels(run_onnx, dtype):
    net = network("relu", dtype, "softmax", "cross_entropy")
    np.testing.assert_allclose(
        run_onnx(net, pixels(), pixels=True), net.predict(pixels()), atol=1e-6
    )


def test_onnx_of_extreme_inputs(run_onnx, dtype):
    """Nothing overflows on the way to a finite output."""
    X = np.array([[-1e4], [-100], [-1e-3], [0], [1e-3], [100], [1e4]], dtype)
    for name in ACTIVATIONS:
        if name == "exp":
            continue
        net = Network(1, [Dense(2, name)], loss="mse", dtype=dtype)
        net.parameters[0][0][...] = 1, 0.5
        result, expected = run_onnx(net, X), net.predict(X)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5, err_msg=name)


def test_onnx_refuses(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    path = tmp_path / "model.onnx"
    net = Network(3, [Dense(2, "relu"), Dense(2, SINE)], loss="mse")
    with pytest.raises(ValueError, match=r"layers\[1\]: activation 'sine' of your own.*ONNX"):
        net.to_onnx(path)
    monkeypatch.setattr(onnx_model, "LARGEST", 100)
    with pytest.raises(ValueError, match="at most 100 bytes"):
        network("relu", "float32").to_onnx(path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install \"fastmlp\[onnx\]\""):
        network("relu", "float32").to_onnx(path)
    assert not path.exists()


# --- C --------------------------------------------------------------------------------------------

FLAGS = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]


@pytest.fixture(scope="module")
def run_c(compile_c, tmp_path_factory):
    """``run_c(nets, inputs)``: outputs of the networks, each from its header, in one program."""

    def run(nets, inputs, **options):
        folder = tmp_path_factory.mktemp("headers")
        lines = []
        for i, net in enumerate(nets):
            net.to_c(folder / f"net{i}.h", **options)
            lines.append(f'#include "{folder}/net{i}.h"')
        for i, (net, X) in enumerate(zip(nets, inputs, strict=True)):
            T = {"float32": "float", "float64": "double"}[net.architecture.dtype.name]
            T_x = "unsigned char" if X.dtype == np.uint8 else T
            lines.append(f"void run{i}(const {T_x} *x, {T} *y); /* seen by ctypes */")
            lines.append(f"void run{i}(const {T_x} *x, {T} *y) {{ net{i}_predict(x, y); }}")
        path = compile_c("headers.so", "\n".join(lines) + "\n", *FLAGS, "-shared", "-fPIC")
        library = ctypes.CDLL(str(path))
        results = []
        for i, (net, X) in enumerate(zip(nets, inputs, strict=True)):
            y = np.full((len(X), net.architecture.n_outputs), np.nan, net.architecture.dtype)
            for row, out in zip(np.ascontiguousarray(X), y, strict=True):
                library[f"run{i}"](
                    ctypes.c_void_p(row.ctypes.data), ctypes.c_void_p(out.ctypes.data)
                )
            results.append(y)
        return results

    return run


def test_the_header_gives_the_same_outputs(run_c, dtype):
    names, cases = zip(*nets(dtype), strict=True)
    results = run_c(cases, [inputs(dtype)] * len(cases))
    for name, net, result in zip(names, cases, results, strict=True):
        expected = net.predict(inputs(dtype))
        bound = 1e-5 if dtype == "float32" else 1e-13
        assert np.abs(result - expected).max() <= bound * max(1, np.abs(expected).max()), name


def test_the_header_takes_pixels(run_c, dtype):
    shapes = [[11, 4], [11, 3, 4], [11, 3, 50, 4], [11, 60, 2, 4]]
    cases = [network("relu", dtype, "softmax", "cross_entropy", widths) for widths in shapes]
    for net, result in zip(cases, run_c(cases, [pixels()] * 4, pixels=True), strict=True):
        np.testing.assert_allclose(result, net.predict(pixels()), atol=1e-6)


def test_the_header_at_extreme_inputs(run_c, dtype):
    X = np.array([[-1e4], [-100], [-1e-3], [0], [1e-3], [100], [1e4]], dtype)
    cases = []
    for name in ACTIVATIONS:
        net = Network(1, [Dense(2, name)], loss="mse", dtype=dtype)
        net.parameters[0][0][...] = 1e-2 if name == "exp" else 1, 0.5
        cases.append(net)
    for net, result in zip(cases, run_c(cases, [X] * len(cases)), strict=True):
        np.testing.assert_allclose(result, net.predict(X), rtol=1e-5, atol=1e-7)


PROGRAM = """
#include <stdio.h>
#include "model.h"

int main(void) {
  float x[DIGITS_N_INPUTS], y[DIGITS_N_OUTPUTS];
  for (size_t i = 0; i < DIGITS_N_INPUTS; i++)
    if (scanf("%f", x + i) != 1) return 1;
  digits_predict(x, y);
  for (size_t j = 0; j < DIGITS_N_OUTPUTS; j++) printf("%.9g ", (double)y[j]);
  return 0;
}
"""


def test_a_program_of_its_own(compile_c, tmp_path):
    net = network("gelu", "float32", "softmax", "cross_entropy")
    net.to_c(tmp_path / "model.h", name="digits")
    program = compile_c("program", PROGRAM, *FLAGS, f"-I{tmp_path}")
    x = inputs("float32")[:1]
    text = " ".join(f"{value:.9g}" for value in x[0])
    printed = subprocess.run([program], input=text, capture_output=True, text=True, check=True)
    np.testing.assert_allclose(
        [float(y) for y in printed.stdout.split()], net.predict(x)[0], atol=1e-6
    )


def test_headers_keep_every_bit_of_the_weights(dtype):
    net = network("relu", dtype)
    text = c_header.c_header(net, "net", False)
    for i, (W, b) in enumerate(net.parameters):
        for letter, values in (("W", W), ("b", b)):
            body = text.split(f" net_{letter}{i}[{values.size}] = {{")[1].split("}")[0]
            numbers = [np.dtype(dtype).type(word.rstrip("f")) for word in body.split(",")]
            assert np.array(numbers).tobytes() == np.ascontiguousarray(values).tobytes()


@pytest.mark.parametrize("name", ["3d", "a-b", "", "a b", "ü"])
def test_names_that_c_would_not_take(tmp_path, name):
    with pytest.raises(ValueError, match="name: expected a C identifier"):
        network("relu", "float32").to_c(tmp_path / "model.h", name=name)
    with pytest.raises(ValueError, match="name: expected a C identifier, got 'my-model'"):
        network("relu", "float32").to_c(tmp_path / "my-model.h")
    assert not list(tmp_path.iterdir())


def test_c_refuses_what_is_the_users_own(tmp_path):
    net = Network(3, [Dense(2, SINE), Dense(2)], loss="mse")
    with pytest.raises(ValueError, match=r"layers\[0\]: activation 'sine' of your own.* as C"):
        net.to_c(tmp_path / "model.h")


# --- PyTorch --------------------------------------------------------------------------------------


def test_to_torch_and_back(dtype):
    net = network("relu", dtype, "softmax", "cross_entropy")
    arrays = net.to_torch()
    assert list(arrays)[:4] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert arrays["0.weight"].shape == (37, 11)
    assert arrays["0.weight"].flags.c_contiguous
    again = Network.from_torch(arrays, ["relu"] * 3 + ["softmax"])
    assert again.architecture == net.architecture
    assert again.predict(inputs(dtype)).tobytes() == net.predict(inputs(dtype)).tobytes()
    arrays["0.weight"][...] = 0
    assert again.predict(inputs(dtype)).tobytes() == net.predict(inputs(dtype)).tobytes()


def test_torch_computes_the_same(dtype):
    torch = pytest.importorskip("torch")
    kind = getattr(torch, dtype)
    sizes, layers = [8, 16, 5, 3], []
    for n_in, n_out in itertools.pairwise(sizes):
        layers += [torch.nn.Linear(n_in, n_out, dtype=kind, bias=n_out != 5), torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers[:-1], torch.nn.Softmax(dim=1))
    X = inputs(dtype, 20, 8)
    theirs = model(torch.from_numpy(X)).detach().numpy()
    for state in (model.state_dict(), dict(model.named_parameters())):
        net = Network.from_torch(state, ["tanh", "tanh", "softmax"])
        assert net.architecture.dtype == dtype
        assert net.architecture.loss.name == "cross_entropy"
        np.testing.assert_allclose(net.predict(X), theirs, rtol=1e-5)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden = torch.nn.Linear(11, 6, dtype=kind)
            self.out = torch.nn.Linear(6, 2, dtype=kind)

        def forward(self, x):
            return self.out(torch.relu(self.hidden(x)))

    net, other = network("relu", dtype, widths=[11, 6, 2]), Model()
    arrays = net.to_torch(["hidden", "out"])
    other.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    theirs = other(torch.from_numpy(inputs(dtype))).detach().numpy()
    np.testing.assert_allclose(net.predict(inputs(dtype)), theirs, rtol=1e-4, atol=1e-5)


GOOD = {"a.weight": np.ones((2, 3)), "a.bias": np.ones(2), "b.weight": np.ones((1, 2))}


@pytest.mark.parametrize(
    ("arrays", "activations", "message"),
    [
        ({}, [], "state_dict: expected the weights of at least one layer"),
        (GOOD, ["relu"], "activations: expected 2, one a layer"),
        (GOOD, "ab", "activations: expected 2, one a layer"),
        (GOOD, ["relu", "selfie"], "activation: expected one of"),
        ({**GOOD, "b.weight": np.ones((1, 3))}, ["relu"] * 2, "layer 1 takes 3 inputs behind 2"),
        ({**GOOD, "a.bias": np.ones(3)}, ["relu"] * 2, "layer 0 .* 3 biases for 2 units"),
        ({**GOOD, "a.weight": np.ones(3)}, ["relu"] * 2, r"got 'a.weight' of shape \(3,\)"),
        ({**GOOD, "n.running_mean": np.ones(3)}, ["relu"] * 2, "got 'n.running_mean'"),
        ({"a.bias": np.ones(2)}, ["relu"], "expected a.weight beside a.bias"),
        ({**GOOD, "a.bias": np.array([1, np.nan])}, ["relu"] * 2, "expected finite numbers"),
    ],
)
def test_from_torch_refuses(arrays, activations, message):
    with pytest.raises(ValueError, match=message):
        Network.from_torch(arrays, activations)


def test_to_torch_refuses_another_number_of_names():
    with pytest.raises(ValueError, match="names: expected 4, one a layer, got 1"):
        network("relu", "float32").to_torch(["fc"])


# --- scikit-learn ---------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
@pytest.mark.parametrize(
    "task", ["classes", "two classes", "labels", "regression", "targets", "counts"]
)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_scikit_learn_computes_the_same(dtype, activation, task):
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    X = inputs(dtype, 60)
    rng = np.random.default_rng(0)
    kind, y, loss = {
        "classes": (MLPClassifier, rng.integers(0, 3, 60), "cross_entropy"),
        "two classes": (MLPClassifier, rng.integers(0, 2, 60), "binary_cross_entropy"),
        "labels": (MLPClassifier, rng.integers(0, 2, (60, 3)), "binary_cross_entropy"),
        "regression": (MLPRegressor, rng.standard_normal(60), "mse"),
        "targets": (MLPRegressor, rng.standard_normal((60, 2)), "mse"),
        "counts": (MLPRegressor, rng.poisson(2, 60), "poisson"),
    }[task]
    options = {"loss": "poisson"} if task == "counts" else {}
    if not set(options) <= set(kind().get_params()):
        pytest.skip("this scikit-learn has no Poisson loss")
    options |= {"hidden_layer_sizes": (9, 5), "activation": activation, "max_iter": 3}
    mlp = kind(random_state=0, **options).fit(X, y)
    net = Network.from_sklearn(mlp)
    assert net.architecture.dtype == dtype
    assert net.architecture.loss.name == loss
    theirs = mlp.predict(X) if kind is MLPRegressor else mlp.predict_proba(X)
    if task == "two classes":
        theirs = theirs[:, 1]
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(net.predict(X), theirs.reshape(60, -1), rtol=tolerance, atol=1e-6)

    net.fit(X, y, epochs=1)
    mlp.coefs_, mlp.intercepts_ = net.to_sklearn()
    changed = mlp.predict(X) if kind is MLPRegressor else mlp.predict_proba(X)
    changed = changed[:, 1] if task == "two classes" else changed
    np.testing.assert_allclose(net.predict(X), changed.reshape(60, -1), rtol=1e-4, atol=1e-6)
    assert not np.allclose(changed, theirs, rtol=1e-6)


def test_from_sklearn_refuses_what_is_not_fitted():
    from sklearn.neural_network import MLPClassifier

    with pytest.raises(
        TypeError, match=r"mlp: expected a fitted MLPClassifier .* got MLPClassifier"
    ):
        Network.from_sklearn(MLPClassifier())


# --- skl2onnx -------------------------------------------------------------------------------------

TARGETS = {
    "classes": lambda rng: rng.integers(3, 6, 80),
    "two classes": lambda rng: rng.integers(0, 2, 80),
    "booleans": lambda rng: rng.integers(0, 2, 80) == 1,
    "floats": lambda rng: rng.integers(0, 3, 80) * 1.0,
    "strings": lambda rng: np.array(["ant", "bee", "ü"])[rng.integers(0, 3, 80)],
    "objects": lambda rng: np.array(["no", "yes"], object)[rng.integers(0, 2, 80)],
    "labels": lambda rng: rng.integers(0, 2, (80, 3)),
    "regression": lambda rng: rng.standard_normal(80),
    "targets": lambda rng: rng.standard_normal((80, 2)),
}


@pytest.mark.filterwarnings("ignore:.*ptimizer")
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("given", ["float32", "float64"])
def test_pipelines(dtype, kind, given):
    """Fitted on one dtype, exported for another: the outputs are declared as skl2onnx does."""
    skl2onnx, runtime = pytest.importorskip("skl2onnx"), pytest.importorskip("onnxruntime")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from fastmlp import MLPClassifier, MLPRegressor, register_skl2onnx

    register_skl2onnx()
    rng = np.random.default_rng(0)
    X, y = 3 * rng.standard_normal((80, 5)) + 1, TARGETS[kind](rng)
    classifies = kind not in ("regression", "targets")
    estimator = (MLPClassifier if classifies else MLPRegressor)(
        hidden_layer_sizes=(9, 4), activation="tanh", max_iter=30, random_state=0
    )
    pipeline = make_pipeline(StandardScaler(), estimator).fit(X.astype(dtype), y)
    X = X.astype(given)
    options = {"zipmap": False} if classifies else {}
    model = skl2onnx.to_onnx(pipeline, X[:1], options=options)
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    results = session.run(None, {"X": X})
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if "float32" in (dtype, given) else {"rtol": 1e-12}
    assert results[-1].dtype == given
    if classifies:
        np.testing.assert_allclose(results[1], pipeline.predict_proba(X), **tolerance)
        assert results[0].tolist() == pipeline.predict(X).tolist()
    else:
        np.testing.assert_allclose(results[0].reshape(y.shape), pipeline.predict(X), **tolerance)


@pytest.mark.filterwarnings("ignore:.*ptimizer")
def test_pipelines_refuse_a_single_class():
    skl2onnx = pytest.importorskip("skl2onnx")
    from fastmlp import MLPClassifier, register_skl2onnx

    register_skl2onnx()
    X = inputs("float32", 20)
    classifier = MLPClassifier(max_iter=2).fit(X, np.ones(20, dtype=int))
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        skl2onnx.to_onnx(classifier, X[:1])


@pytest.mark.parametrize("missing", ["skl2onnx", "onnx"])
def test_without_skl2onnx(monkeypatch, missing):
    import fastmlp

    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "fastmlp.exchange.pipelines", raising=False)
    with pytest.raises(ImportError, match=r"fastmlp.register_skl2onnx needs skl2onnx: pip"):
        _ = fastmlp.register_skl2onnx


def test_a_star_imports_no_more_than_the_dependencies(run_python):
    code = """
    import json, sys
    from fastmlp import *
    optional = "onnx", "skl2onnx", "matplotlib", "torch", "jax"
    print(json.dumps([name for name in optional if name in sys.modules]))
    Network, MLPClassifier, SGD
    """
    assert json.loads(run_python(code)) == []


def test_nothing_heavy_is_imported(run_python):
    code = """
    import json, sys
    import fastmlp
    fastmlp.Network(2, [fastmlp.Dense(1)], loss="mse").to_torch()
    print(json.dumps([name for name in ("onnx", "torch", "sklearn") if name in sys.modules]))
    """
    assert json.loads(run_python(code)) == []
