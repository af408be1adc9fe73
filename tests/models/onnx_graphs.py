"""Small ONNX models for the tests, and what onnxruntime makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Dims = Sequence[int | str | None]
node = helper.make_node


def build(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, npt.NDArray[Any] | onnx.TensorProto] | None = None,
    shape: Dims = ("N", 4),
    *,
    opset: int = 13,
    elem: int = TensorProto.DOUBLE,
    out_elem: int | None = None,
    output: str = "y",
    rank: int = 2,
) -> onnx.ModelProto:
    """Return a model from ``x`` of ``shape`` to ``output`` of the given rank."""
    tensors = [
        value if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(value, name)
        for name, value in (constants or {}).items()
    ]
    out = helper.make_tensor_value_info(output, out_elem or elem, [None] * rank)
    given = helper.make_tensor_value_info("x", elem, shape)
    graph = helper.make_graph(list(nodes), "g", [given], [out], tensors)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def run(model: onnx.ModelProto, x: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return what onnxruntime computes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    # Its fusions keep scalar factors as float32, also in a model of doubles.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0], dtype=np.float64)
