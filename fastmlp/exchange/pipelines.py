"""Converters of the estimators for skl2onnx, so that pipelines with them become ONNX models."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper
from skl2onnx import update_registered_converter
from skl2onnx.common.data_types import Int64TensorType, StringTensorType, guess_proto_type

from fastmlp.estimators import MLPClassifier, MLPRegressor
from fastmlp.exchange.onnx_model import Graph, write_prediction

__all__ = ["register_skl2onnx"]


def register_skl2onnx() -> None:
    """Make `MLPClassifier` and `MLPRegressor` known to skl2onnx; once in a process is enough.

    Examples
    --------
    >>> from fastmlp import register_skl2onnx  # doctest: +SKIP
    >>> register_skl2onnx()  # doctest: +SKIP
    >>> model = skl2onnx.to_onnx(pipeline, X[:1], options={"zipmap": False})  # doctest: +SKIP
    """
    update_registered_converter(
        MLPClassifier,
        "FastmlpMLPClassifier",
        _classifier_shapes,
        _convert_classifier,
        options={"zipmap": [True, False, "columns"], "nocl": [True, False]},
    )
    update_registered_converter(
        MLPRegressor, "FastmlpMLPRegressor", _regressor_shapes, _convert_regressor
    )


class ContainerGraph(Graph):
    """A `Graph` that writes into the model which skl2onnx is making."""

    def __init__(self, dtype: np.dtype, scope: Any, container: Any):
        super().__init__(dtype)
        self.scope, self.container = scope, container

    def constant(self, value: Any, dtype: Any = None) -> str:
        array = np.asarray(value)
        content: Any
        if array.dtype.kind in "OU":
            kind, content = TensorProto.STRING, [str(s).encode() for s in array.ravel()]
        else:
            array = array.astype(dtype or self.dtype)
            kind, content = helper.np_dtype_to_tensor_dtype(array.dtype), array.ravel()
        name: str = self.scope.get_unique_variable_name("constant")
        self.container.add_initializer(name, kind, list(array.shape), content)
        return name

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or self.scope.get_unique_variable_name(kind.lower())
        name = self.scope.get_unique_operator_name(kind)
        self.container.add_node(kind, list(inputs), output, name=name, **attributes)
        return output


def _outputs(scope: Any, operator: Any, container: Any) -> tuple[ContainerGraph, str]:
    """The network's outputs, in its own dtype as when the estimator predicts."""
    network = operator.raw_operator.network_
    graph = ContainerGraph(network.architecture.dtype, scope, container)
    kind = helper.np_dtype_to_tensor_dtype(graph.dtype)
    x = graph.op("Cast", operator.inputs[0].full_name, to=kind)
    y = scope.get_unique_variable_name("outputs")
    write_prediction(graph, network, x, y, pixels=False)
    return graph, y


def _like(variable: Any) -> int:
    """ONNX's number of a variable's element type."""
    return int(guess_proto_type(variable.type))


def _regressor_shapes(operator: Any) -> None:
    n_outputs = operator.raw_operator.network_.architecture.n_outputs
    operator.outputs[0].type.shape = [operator.inputs[0].get_first_dimension(), n_outputs]


def _convert_regressor(scope: Any, operator: Any, container: Any) -> None:
    graph, y = _outputs(scope, operator, container)
    graph.op("Cast", y, output=operator.outputs[0].full_name, to=_like(operator.outputs[0]))


def _classifier_shapes(operator: Any) -> None:
    n = operator.inputs[0].get_first_dimension()
    classifier = operator.raw_operator
    classes = classifier.classes_
    kind = StringTensorType if classes.dtype.kind in "OU" else Int64TensorType
    operator.outputs[0].type = kind([n, len(classes)] if _is_multilabel(classifier) else [n])
    operator.outputs[1].type.shape = [n, len(classes)]


def _convert_classifier(scope: Any, operator: Any, container: Any) -> None:
    classifier = operator.raw_operator
    labels, probabilities = operator.outputs
    classes = classifier.classes_
    graph, y = _outputs(scope, operator, container)
    if not _is_multilabel(classifier) and classifier.network_.architecture.n_outputs == 1:
        if len(classes) != 2:
            raise ValueError(f"expected a classifier of at least 2 classes, got {len(classes)}")
        y = graph.op("Concat", graph.op("Sub", graph.constant([[1]]), y), y, axis=1)
    graph.op("Cast", y, output=probabilities.full_name, to=_like(probabilities))
    if _is_multilabel(classifier):
        positive = graph.op("Greater", y, graph.constant(0.5))
        graph.op("Cast", positive, output=labels.full_name, to=TensorProto.INT64)
        return
    names = graph.constant(classes, np.int64)
    best = graph.op("ArgMax", y, axis=1, keepdims=0)
    graph.op("Gather", names, best, output=labels.full_name)


def _is_multilabel(classifier: Any) -> bool:
    return bool(classifier._target_type == "multilabel-indicator")
