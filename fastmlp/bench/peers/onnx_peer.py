"""onnxruntime, which does not train: predictions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastmlp.bench.peers.base import Job, Peer

if TYPE_CHECKING:
    from fastmlp.backends.base import Array

__all__ = ["OnnxPeer"]


class OnnxPeer(Peer):
    """A session with all graph optimizations, held to the workload's threads."""

    def __init__(self, job: Job):
        super().__init__(job)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        model = _model(job)
        self.session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )

    def reset(self) -> None:
        """The weights are those of the model."""

    def weights(self) -> list[tuple[Array, Array]]:
        return [(W, b) for W, b in self.job.network().parameters]

    def inputs(self, X: Array) -> dict[str, Array]:
        return {"X": X}

    def predict(self, X: dict[str, Array]) -> Array:
        A: Array = self.session.run(None, X)[0]
        return A


def _model(job: Job) -> bytes:
    """The initial network as an ONNX model."""
    from onnx import TensorProto, checker, helper, numpy_helper

    kinds = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "softmax": "Softmax"}
    net = job.network()
    nodes, tensors, value = [], [], "X"
    for i, (layer, (W, b)) in enumerate(zip(net.architecture.layers, net.parameters, strict=True)):
        for name, array in ((f"W{i}", W), (f"b{i}", b)):
            tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        nodes.append(helper.make_node("Gemm", [value, f"W{i}", f"b{i}"], [f"Z{i}"]))
        nodes.append(helper.make_node(kinds[layer.activation.name], [f"Z{i}"], [f"A{i}"]))
        value = f"A{i}"
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(job.workload.dtype))
    X = helper.make_tensor_value_info("X", kind, ["n", net.architecture.n_inputs])
    A = helper.make_tensor_value_info(value, kind, ["n", net.architecture.n_outputs])
    assert kind in (TensorProto.FLOAT, TensorProto.DOUBLE)
    model = helper.make_model(
        helper.make_graph(nodes, "mlp", [X], [A], tensors),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    checker.check_model(model)
    serialized: bytes = model.SerializeToString()
    return serialized


# Old enough for any onnxruntime of the last years to read.
OPSET = 17
IR_VERSION = 8
