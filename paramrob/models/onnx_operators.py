"""The operators of an ONNX graph, translated to the network IR one node at a time."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from paramrob.errors import ModelError, UnsupportedOperatorError
from paramrob.models import (
    onnx_activations,
    onnx_dense,
    onnx_grids,
    onnx_images,
    onnx_quantized,
    onnx_shapes,
)
from paramrob.models.network import Network
from paramrob.models.onnx_builder import Builder, Handler
from paramrob.models.onnx_constants import Constant, RefusedError
from paramrob.models.onnx_forms import Forms

# The newest version of each operator whose meaning is the one implemented here.
NEWEST_VERSION = {
    "Add": 14,
    "AveragePool": 22,
    "BatchNormalization": 15,
    "Cast": 28,
    "Clip": 13,
    "Concat": 13,
    "Constant": 25,
    "ConstantOfShape": 25,
    "Conv": 22,
    "ConvInteger": 10,
    "DequantizeLinear": 28,
    "Div": 14,
    "Dropout": 22,
    "DynamicQuantizeLinear": 11,
    "Elu": 22,
    "Erf": 13,
    "Flatten": 25,
    "Gather": 13,
    "Gelu": 20,
    "Gemm": 13,
    "GlobalAveragePool": 22,
    "GlobalMaxPool": 22,
    "HardSigmoid": 22,
    "HardSwish": 22,
    "Identity": 25,
    "LeakyRelu": 16,
    "MatMul": 13,
    "MatMulInteger": 10,
    "MaxPool": 22,
    "Mul": 14,
    "Pad": 25,
    "Pow": 15,
    "QLinearConv": 10,
    "QLinearMatMul": 21,
    "QuantizeLinear": 28,
    "ReduceMax": 20,
    "ReduceMean": 18,
    "Relu": 14,
    "Reshape": 25,
    "Shape": 25,
    "Sigmoid": 13,
    "Slice": 13,
    "Softmax": 13,
    "Softplus": 22,
    "Squeeze": 25,
    "Sub": 14,
    "Sum": 13,
    "Tanh": 13,
    "Transpose": 25,
    "Unsqueeze": 25,
}
OLDEST_OPSET = 7
HANDLERS: dict[str, Handler] = {
    **onnx_activations.HANDLERS,
    **onnx_dense.HANDLERS,
    **onnx_images.HANDLERS,
    **onnx_quantized.HANDLERS,
    **onnx_shapes.HANDLERS,
}


class Translator:
    """Builds a :class:`Network` from the nodes that the output depends on, in graph order.

    Args:
        opset: version of the default operator set.
        uses: how many live nodes and graph outputs read each tensor.
        constants: the initialisers by name.
    """

    def __init__(
        self, opset: int, uses: Mapping[str, int], constants: Mapping[str, Constant]
    ) -> None:
        self._graph = Builder(opset, uses, constants)
        self._forms = Forms(self._graph)

    def add_input(self, tensor: str, name: str, dims: tuple[int, ...], elem_type: int) -> None:
        """Start the network with the graph's input, called ``name``."""
        self._graph.add_input(tensor, name, dims, elem_type)

    def add_node(self, node: onnx.NodeProto, name: str) -> None:
        """Translate one node.

        Raises:
            UnsupportedOperatorError: naming node and operator.
            ModelError: the node's attributes do not fit its operands.
        """
        try:
            self._check_version(node)
            self._add(node, name)
        except RefusedError as reason:
            raise UnsupportedOperatorError(f"node {name!r} ({node.op_type}): {reason}") from None
        except (
            ArithmeticError,
            LookupError,
            TypeError,
            ValueError,
            onnx.defs.SchemaError,
        ) as error:
            # The checker passes some attributes that fit no tensor, e.g. a bad permutation, and
            # operators of other domains that stand for one that the opset does not have.
            raise ModelError(
                f"node {name!r} ({node.op_type}) cannot be read ({error}); export the model again"
            ) from error

    def network(self, output: str) -> Network:
        """Return the network whose output is the tensor ``output``.

        Raises:
            ModelError: the output depends on no input, or the shapes do not fit.
        """
        return self._graph.network(output)

    def _check_version(self, node: onnx.NodeProto) -> None:
        if node.domain == onnx_quantized.MICROSOFT:
            return
        newest = NEWEST_VERSION.get(node.op_type)
        if newest is None:
            raise RefusedError(
                "this operator is not supported; export the model for inference with "
                + ", ".join(sorted(NEWEST_VERSION))
            )
        version = onnx.defs.get_schema(node.op_type, self._graph.opset, "").since_version
        if version > newest:
            raise RefusedError(f"has version {version}; export with an opset that has {newest}")

    def _add(self, node: onnx.NodeProto, name: str) -> None:
        graph, out = self._graph, node.output[0]
        if node.op_type == "Shape":
            graph.constants[out] = onnx_shapes.shape_of(graph, node)
            return
        if not any(graph.is_computed(tensor) for tensor in node.input):
            fold = onnx_grids.FOLDS.get(node.op_type, onnx_shapes.fold)
            graph.constants[out] = fold(graph, node)
            return
        form = self._forms.match(node)
        if form is not None:
            activation, base = form
            graph.values[out] = graph.activation(name, activation, graph.values[base])
            return
        try:
            own = node.domain == onnx_quantized.MICROSOFT
            handlers = onnx_quantized.MICROSOFT_HANDLERS if own else HANDLERS
            if node.op_type not in handlers:
                raise RefusedError(_alone(node.op_type))
            graph.values[out] = handlers[node.op_type](graph, node, name)
        except (RefusedError, UnsupportedOperatorError) as reason:
            if not self._forms.knows(out):
                raise
            # Perhaps a later node makes a known form of it; any other use is refused.
            earlier = [graph.waiting[t] for t in node.input if t in graph.waiting]
            graph.waiting[out] = (earlier or [f"node {name!r} ({node.op_type}): {reason}"])[0]


def _alone(op_type: str) -> str:
    if op_type in ("Erf", "Pow"):
        return "is not supported outside a GELU; export without it"
    return "is supported on constants only; export without it"
