"""Weights on integer grids: scales, zero points, rounded values and their neighbours.

Three conventions, each with the arithmetic of its tool, float32 unless said otherwise. ``m`` and
``M`` are the least and the greatest weight that share a scale, 0 included; ``a = max(-m, M)``;
``q0 .. q1`` are the integers.

``onnxruntime`` (``onnxruntime.quantization.quant_utils``: ``compute_scale_zp``,
``compute_scale_zp_blocked``, ``quantize_nparray``; ``reduce_range`` off)
    scale = float32((M - m) / (q1 - q0)) in float64, with ``-a, a`` for ``m, M`` where symmetric;
    1 where that is below the smallest normal float32. Zero point round((q0 + q1) / 2), or
    round(q0 - m / scale) before the scale is rounded. Integer round(w / scale) + zero point.
    In groups the difference is formed in float32, and the rounded scale divides ``m``.
``litert`` (LiteRT 8-bit quantization specification: symmetric weights in [-127, 127]; arithmetic
of ai-edge-quantizer, ``uniform_quantize_tensor.py``)
    scale = max(a, 1e-9) / q1, integer round(w * (1 / scale)).
``torchao`` (``choose_qparams_affine``, ``quantize_affine``)
    scale = max(2 a / (q1 - q0), eps), zero point trunc((q0 + q1 + 1) / 2); affine:
    scale = max((M - m) / (q1 - q0), eps), zero point q0 - round(m / scale). eps is that of
    float32, 2**-23. Integer round(w * (1 / scale)) + zero point.

All round half to even and clip to ``q0 .. q1``. Weights are taken as float32 first, as the tools
store them. Neighbours are those of the exact quotient and of the tool's float32 one, whose floor
or ceiling is another where a weight lies within a rounding of the grid.

The dequantized weight of a scheme is the real number (integer - zero point) * scale, which float64
holds exactly. ONNX's DequantizeLinear and torchao give that product rounded to float32: a rounding
of execution, which ``--arithmetic float32`` covers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from paramrob.errors import InputError, SoundnessError
from paramrob.models.network import Array
from paramrob.quantize.scheme import Scheme

_EPS = np.float32(2.0**-23)
_TINY = np.finfo(np.float32).tiny
_LITERT_BOUND = np.float32(1e-9)
Float32 = npt.NDArray[np.float32]
_Parameters = tuple[Float32, Array]


@dataclass(frozen=True)
class Rounded:
    """A parameter on its grid.

    Attributes:
        values: the dequantized values after rounding to nearest, of the parameter's shape.
        below: the greatest number of the grid that is at most the original value, the grid's
            lowest where there is none; one step lower where the tool's floor is.
        above: likewise the least that is at least the original value, or the tool's ceiling.
        scale: float64 (exactly float32 numbers), broadcast to the parameter's shape; 1 in float
            formats.
        zero: zero points, broadcast likewise.
        integers: the stored integers; ``None`` in float formats.
    """

    values: Array
    below: Array
    above: Array
    scale: Array
    zero: Array
    integers: Array | None


def round_array(value: Array, scheme: Scheme) -> Rounded:
    """Put an array of weights on the integer grids of a scheme.

    Args:
        value: float64 weights; output channels along axis 0, groups along the last of two axes.
        scheme: with an integer format.

    Raises:
        InputError: groups in an array that is no matrix or that they do not divide (torchao),
            or weights whose scale is beyond float32.
        SoundnessError: a rounded value that is not between its neighbours: a defect.
    """
    value = np.asarray(value, dtype=np.float64)
    with np.errstate(over="ignore"):
        weights = value.astype(np.float32)
    if not np.isfinite(weights).all():
        raise InputError("a weight is beyond float32; keep that layer float")
    blocks = _blocks(weights, scheme)
    scale32, zero = _scales(blocks, scheme)
    if not np.isfinite(scale32).all():
        raise InputError("the range of the weights is beyond float32; keep that layer float")
    q0, q1 = scheme.integers()
    quotient = _quotients(blocks, scale32[:, None], scheme)
    shaped = [
        _unblocked(np.broadcast_to(part, blocks.shape), value.shape, scheme).astype(np.float64)
        for part in (quotient, scale32[:, None], zero[:, None])
    ]
    steps, scale, zero = shaped
    first, last = q0 - zero, q1 - zero
    values, low, high = (
        np.clip(rounded(steps), first, last) * scale for rounded in (np.rint, np.floor, np.ceil)
    )
    below, above = _neighbours(value, scale, first, last)
    below, above = np.minimum(below, low), np.maximum(above, high)
    integers = np.clip(np.rint(steps), first, last) + zero
    if not bool(((values >= below) & (values <= above) & (above - below <= 2 * scale)).all()):
        raise SoundnessError(
            "a rounded weight is not next to the original; this is a defect of paramrob: please "
            "report it"
        )
    return Rounded(values, below, above, scale, zero, integers)


def affine_grid(least: float, most: float, scheme: Scheme) -> tuple[float, int]:
    """Return scale and zero point of one grid over a range of values, 0 included.

    Args:
        least: smallest value.
        most: largest value.
        scheme: says which integers and whose arithmetic; ``symmetric`` as for weights.

    Raises:
        InputError: the range is beyond float32.
    """
    with np.errstate(over="ignore"):
        ends = np.array([[least, most]]).astype(np.float32)
    if not np.isfinite(ends).all():
        raise InputError("a range of values is beyond float32; calibrate on other data")
    scale, zero = _scales(ends, scheme)
    if not np.isfinite(scale).all():
        raise InputError("a range of values is beyond float32; calibrate on other data")
    return float(scale[0]), int(zero[0])


def quantize_bias(bias: Array, input_scale: float, weight_scale: Array) -> tuple[Array, Array]:
    """Return int32 biases and their scale, input scale times weight scale in float32.

    As ``BaseQuantizer.quantize_bias_static_impl`` of ONNX Runtime: the division is float64, the
    result is rounded half to even and clipped to int32.

    Args:
        bias: ``(out,)``.
        input_scale: of the layer's input, a float32 number.
        weight_scale: float32 numbers, one or ``(out,)``.

    Returns:
        ``(integers, scale)``; the bias is their product, which float64 holds up to one rounding.
    """
    scale = np.float32(input_scale) * np.asarray(weight_scale, dtype=np.float32)
    wide = np.asarray(scale, dtype=np.float64)
    stored = np.asarray(bias, dtype=np.float64).astype(np.float32).astype(np.float64)
    info = np.iinfo(np.int32)
    return np.clip(np.rint(stored / wide), info.min, info.max), wide


def _blocks(weights: Float32, scheme: Scheme) -> Float32:
    """Return ``(scales, weights that share one)``; zeros pad a short last group."""
    if scheme.granularity == "tensor":
        return weights.reshape(1, -1)
    if scheme.group is None:
        return weights.reshape(weights.shape[0], -1)
    if weights.ndim != 2:
        raise InputError(
            "groups are for matrices, not for the kernels of a convolution; take --granularity "
            "channel, or keep the convolutions float"
        )
    size = scheme.group
    missing = -weights.shape[1] % size
    if missing and scheme.convention == "torchao":
        raise InputError(
            f"groups of {size} do not divide rows of {weights.shape[1]} weights, which torchao "
            "asks for; take another size, or keep the layer float"
        )
    padded = np.pad(weights, ((0, 0), (0, missing)))
    return padded.reshape(-1, size)


def _unblocked(
    blocks: npt.NDArray[Any], shape: tuple[int, ...], scheme: Scheme
) -> npt.NDArray[Any]:
    if scheme.group is None:
        return blocks.reshape(shape)
    return blocks.reshape(shape[0], -1)[:, : shape[1]]


def _scales(blocks: Float32, scheme: Scheme) -> _Parameters:
    least = np.minimum(blocks.min(axis=1), np.float32(0))
    most = np.maximum(blocks.max(axis=1), np.float32(0))
    with np.errstate(over="ignore"):
        if scheme.convention == "litert":
            return _litert(np.maximum(-least, most), scheme)
        if scheme.convention == "torchao":
            return _torchao(least, most, scheme)
        return _onnxruntime(least, most, scheme)


def _onnxruntime(least: Float32, most: Float32, scheme: Scheme) -> _Parameters:
    q0, q1 = scheme.integers()
    if scheme.is_symmetric:
        most = np.maximum(-least, most)
        least = -most
    grouped = scheme.group is not None
    wide = least.astype(np.float64)
    span = (most - least).astype(np.float64) if grouped else most.astype(np.float64) - wide
    scale = span / (q1 - q0)
    if grouped:
        scale = scale.astype(np.float32).astype(np.float64)
    lost = scale < _TINY
    scale = np.where(lost, 1.0, scale)
    if scheme.is_symmetric:
        zero = np.full(scale.shape, np.rint((q0 + q1) / 2))
    else:
        zero = np.clip(np.rint(q0 - wide / scale), q0, q1)
    # A lost scale comes with zero point 0, but for symmetric groups.
    keeps = grouped and scheme.is_symmetric
    zero = zero if keeps else np.where(lost, 0.0, zero)
    return scale.astype(np.float32), zero


def _litert(largest: Float32, scheme: Scheme) -> _Parameters:
    scale = np.maximum(largest, _LITERT_BOUND) / np.float32(scheme.integers()[1])
    return scale.astype(np.float32), np.zeros(scale.shape)


def _torchao(least: Float32, most: Float32, scheme: Scheme) -> _Parameters:
    q0, q1 = scheme.integers()
    if scheme.is_symmetric:
        scale = np.maximum(-least, most) / np.float32((q1 - q0) / 2)
        zero = np.full(scale.shape, float(int((q0 + q1 + 1) / 2)))
        return np.maximum(scale, _EPS), zero
    scale = np.maximum((most - least) / np.float32(q1 - q0), _EPS)
    return scale, np.clip(q0 - np.rint(least / scale), q0, q1).astype(np.float64)


def _quotients(blocks: Float32, scale: Float32, scheme: Scheme) -> Float32:
    """Return weights over scales as the tool computes them, before rounding."""
    if scheme.convention == "onnxruntime":
        return blocks / scale
    return blocks * (np.float32(1) / scale)


def _neighbours(value: Array, scale: Array, first: Array, last: Array) -> tuple[Array, Array]:
    """Return the grid's numbers next to ``value``: multiples of the scale from first to last.

    A multiple of at most 2**17 by a float32 number is exact in float64, so comparing it with the
    value decides whether a floored quotient was off by one.
    """
    step = np.floor(value / scale)
    step -= step * scale > value
    step += (step + 1) * scale <= value
    higher = step + (step * scale < value)
    below, above = (np.clip(k, first, last) * scale for k in (step, higher))
    return below, above
