"""A network as an ONNX model.

Operators and their types: https://onnx.ai/onnx/operators/. For float64 only those are used that
onnxruntime computes in float64:
https://github.com/microsoft/onnxruntime/blob/main/docs/OperatorKernels.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastmlp.activations import ELU_ALPHA, LEAKY_RELU_SLOPE, SELU_ALPHA, SELU_SCALE
from fastmlp.exchange.steps import Activate, Affine, Normalise, Scale, prediction_steps
from fastmlp.version import __version__

if TYPE_CHECKING:
    from fastmlp.network import Network

__all__ = ["OPSET", "Graph", "onnx_model", "write_prediction"]

# The first with LayerNormalization; what onnxruntime 1.12 of 2022 and later reads.
OPSET, IR_VERSION = 17, 8
# Protocol buffers end at 2 GB.
LARGEST = (1 << 31) - (1 << 20)


def onnx_model(network: Network, pixels: bool) -> Any:
    """The network as an ``onnx.ModelProto``; see `Network.to_onnx`."""
    try:
        import onnx
    except ImportError:
        raise ImportError('to_onnx needs onnx: pip install "fastmlp[onnx]"') from None
    from onnx import TensorProto, checker, helper

    architecture = network.architecture
    if network.arena.flat.nbytes > LARGEST:
        raise ValueError(
            f"expected parameters of at most {LARGEST:,} bytes, as ONNX files can hold; got "
            f"{network.arena.flat.nbytes:,}"
        )
    graph = Graph(architecture.dtype)
    kind = helper.np_dtype_to_tensor_dtype(architecture.dtype)
    write_prediction(graph, network, "X", "Y", pixels)
    body = helper.make_graph(
        graph.nodes,
        "fastmlp",
        [
            helper.make_tensor_value_info(
                "X", TensorProto.UINT8 if pixels else kind, ["n", architecture.n_inputs]
            )
        ],
        [helper.make_tensor_value_info("Y", kind, ["n", architecture.n_outputs])],
        graph.initializers,
    )
    model: onnx.ModelProto = helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="fastmlp",
        producer_version=__version__,
    )
    checker.check_model(model)
    return model


class Graph:
    """Nodes and constants of a graph in the making; every result gets a name of its own."""

    def __init__(self, dtype: np.dtype, prefix: str = ""):
        self.dtype, self.prefix = dtype, prefix
        self.single = dtype == np.float32
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []

    def constant(self, value: Any, dtype: Any = None) -> str:
        from onnx import numpy_helper

        name = f"{self.prefix}constant_{len(self.initializers)}"
        array = np.ascontiguousarray(value, dtype or self.dtype)
        # ascontiguousarray makes a row of a scalar.
        array = array.reshape(np.shape(value))
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or f"{self.prefix}{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output


def write_prediction(graph: Graph, network: Network, x: str, y: str, pixels: bool) -> None:
    """Nodes that compute `Network.predict` of `x` (uint8 with `pixels`) under the name `y`."""
    if pixels:
        from onnx import helper

        x = graph.op("Cast", x, to=helper.np_dtype_to_tensor_dtype(graph.dtype))
        x = graph.op("Mul", x, graph.constant(1 / 255))
    for step in prediction_steps(network, "ONNX"):
        match step:
            case Affine(W, b):
                x = graph.op("Gemm", x, graph.constant(W), graph.constant(b))
            case Scale(factor, shift):
                x = graph.op("Mul", x, graph.constant(factor))
                x = graph.op("Add", x, graph.constant(shift))
            case Normalise(epsilon):
                mean = graph.op("ReduceMean", x, axes=[1])
                x = graph.op("Sub", x, mean)
                variance = graph.op("ReduceMean", graph.op("Mul", x, x), axes=[1])
                variance = graph.op("Add", variance, graph.constant(epsilon))
                x = graph.op("Div", x, graph.op("Sqrt", variance))
            case Activate(name):
                x = ACTIVATIONS[name](graph, x)
    graph.op("Identity", x, output=y)


def _relu(g: Graph, z: str) -> str:
    return g.op("Relu", z)


def _leaky_relu(g: Graph, z: str) -> str:
    if g.single:
        return g.op("LeakyRelu", z, alpha=LEAKY_RELU_SLOPE)
    return g.op("Max", z, g.op("Mul", z, g.constant(LEAKY_RELU_SLOPE)))


def _elu(g: Graph, z: str, alpha: float = ELU_ALPHA) -> str:
    if g.single:
        return g.op("Elu", z, alpha=alpha)
    below = g.op("Exp", g.op("Min", z, g.constant(0)))
    below = g.op("Mul", g.op("Sub", below, g.constant(1)), g.constant(alpha))
    return g.op("Add", g.op("Max", z, g.constant(0)), below)


def _selu(g: Graph, z: str) -> str:
    if g.single:
        return g.op("Selu", z, alpha=SELU_ALPHA, gamma=SELU_SCALE)
    return g.op("Mul", _elu(g, z, SELU_ALPHA), g.constant(SELU_SCALE))


def _softplus(g: Graph, z: str) -> str:
    if g.single:
        return g.op("Softplus", z)
    e = g.op("Exp", g.op("Neg", g.op("Abs", z)))
    log = g.op("Log", g.op("Add", e, g.constant(1)))
    return g.op("Add", g.op("Max", z, g.constant(0)), log)


def _gelu(g: Graph, z: str) -> str:
    """Z (1 + erf(z / sqrt 2)) / 2; onnxruntime has erf for float32 alone."""
    from onnx import TensorProto

    erf = g.op("Mul", z, g.constant(np.sqrt(0.5)))
    if not g.single:
        erf = g.op("Cast", erf, to=TensorProto.FLOAT)
    erf = g.op("Erf", erf)
    if not g.single:
        erf = g.op("Cast", erf, to=TensorProto.DOUBLE)
    half = g.op("Mul", z, g.constant(0.5))
    return g.op("Mul", half, g.op("Add", erf, g.constant(1)))


def _step(g: Graph, z: str) -> str:
    from onnx import helper

    kind = helper.np_dtype_to_tensor_dtype(g.dtype)
    return g.op("Cast", g.op("GreaterOrEqual", z, g.constant(0)), to=kind)


def _increasing(g: Graph, z: str) -> str:
    """The first as it is, softplus of the others, summed along the row."""
    first = g.op("Slice", z, *(g.constant([i], np.int64) for i in (0, 1, 1)))
    others = g.op("Slice", z, *(g.constant([i], np.int64) for i in (1, np.iinfo("i8").max, 1)))
    steps = g.op("Concat", first, _softplus(g, others), axis=1)
    return g.op("CumSum", steps, g.constant(1, np.int64))


ACTIVATIONS = {
    "identity": lambda g, z: z,
    "relu": _relu,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "selu": _selu,
    "sigmoid": lambda g, z: g.op("Sigmoid", z),
    "tanh": lambda g, z: g.op("Tanh", z),
    "softplus": _softplus,
    "gelu": _gelu,
    "silu": lambda g, z: g.op("Mul", z, g.op("Sigmoid", z)),
    "softmax": lambda g, z: g.op("Softmax", z, axis=-1),
    "step": _step,
    "exp": lambda g, z: g.op("Exp", z),
    "increasing": _increasing,
}
