"""Small ONNX models for the tests, and what onnxruntime makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from paramrob.models.network import Network
from paramrob.models.onnx_file import read_onnx

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


def agrees(
    model: onnx.ModelProto, *shape: int, dtype: type[Any] = np.float64, rtol: float = 1e-12
) -> Network:
    """Read the model and compare it with onnxruntime on random inputs."""
    network = read_onnx(model)
    rng = np.random.default_rng(7)
    x = rng.normal(size=shape or (6, 4)).astype(dtype)
    batch = x.reshape(-1, *network.input_shape)
    truth = run(model, x)
    ours = network.evaluate(batch)
    np.testing.assert_allclose(ours.ravel(), truth.ravel(), rtol=rtol, atol=rtol)
    return network


def agrees_float(model: onnx.ModelProto, *shape: int, scale: float = 3.0) -> Network:
    """Compare a model of float32 with onnxruntime, to about its precision."""
    network = read_onnx(model)
    rng = np.random.default_rng(8)
    x = (scale * rng.normal(size=shape)).astype(np.float32)
    truth = run(model, x)
    ours = network.evaluate(x.astype(np.float64).reshape(-1, *network.input_shape))
    size = max(1.0, float(np.abs(truth).max()))
    np.testing.assert_allclose(ours.ravel(), truth.ravel(), rtol=2e-5, atol=2e-6 * size)
    return network
