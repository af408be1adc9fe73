"""What torch's settings of a layer mean, the same for modules, graph operators and sidecars.

Settings come from files, so nothing about their types is taken for granted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from paramrob.errors import ModelError, UnsupportedOperatorError
from paramrob.models.network import Activation, ActivationKind, Conv, Pool, Shape
from paramrob.models.ops import PoolKind

_LARGEST = 2**31
_PLAIN: Mapping[str, ActivationKind] = {
    "relu": "relu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "silu": "silu",
    "hardswish": "hardswish",
    "hardsigmoid": "hardsigmoid",
}
ACTIVATIONS = (*_PLAIN, "leaky_relu", "relu6", "hardtanh", "softplus", "elu", "gelu")


def shown(value: object) -> str:
    """Return a short text of a value from a file, whatever it is."""
    # Anything else may be nested so deeply, or shared so often, that its text has no end.
    plain = value is None or isinstance(value, (bool, int, float, str))
    return repr(value)[:80] if plain else f"of type {type(value).__name__}"


def number(where: str, what: str, value: object) -> float:
    """Return a real number as the float64 that it is.

    Raises:
        ModelError: it is none, or no float64.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ModelError(f"{where}: {what} {shown(value)} is no number; save the model again")
    if isinstance(value, int) and abs(value) > 2**53:
        raise ModelError(f"{where}: {what} is beyond 2**53; write it as a float")
    return float(value)


def flag(where: str, what: str, value: object, wanted: bool) -> None:
    """Refuse a setting that is not ``wanted``.

    Raises:
        UnsupportedOperatorError: it is anything else.
    """
    if value is not wanted:
        raise UnsupportedOperatorError(
            f"{where}: {what}={shown(value)} is not supported; only {what}={wanted} is"
        )


def per_axis(where: str, what: str, value: object, axes: int) -> tuple[int, ...]:
    """Return one whole number for each axis; a single one serves all.

    Raises:
        ModelError: it is neither a whole number of 0 or more nor one for each axis.
    """
    given = list(value) if isinstance(value, (list, tuple)) else [value]
    if len(given) == 1:
        given *= axes
    good = [n for n in given if type(n) is int and 0 <= n < _LARGEST]
    if not len(given) == len(good) == axes:
        text = shown(value) if not isinstance(value, (list, tuple)) else f"of {len(given)} entries"
        raise ModelError(
            f"{where}: {what} {text} is not {axes} whole number(s) of 0 or more; save the model "
            "again"
        )
    return tuple(good)


def conv_op(
    where: str, weight: str, bias: str | None, kernel: Shape, settings: Mapping[str, object]
) -> Conv:
    """Return a convolution.

    Args:
        where: the layer, for messages.
        weight: name of the kernel.
        bias: name of the bias.
        kernel: the kernel's spatial shape.
        settings: torch's ``stride``, ``padding`` (also ``same`` and ``valid``), ``dilation`` and
            ``groups``; what is missing has torch's default.

    Raises:
        ModelError: a setting is no number, or does not fit the kernel.
    """
    axes = len(kernel)
    stride = per_axis(where, "stride", settings.get("stride", 1), axes)
    dilation = per_axis(where, "dilation", settings.get("dilation", 1), axes)
    (groups,) = per_axis(where, "groups", settings.get("groups", 1), 1)
    given = settings.get("padding", 0)
    if given == "same":
        if set(stride) != {1}:
            raise ModelError(f"{where}: padding='same' needs a stride of 1; say the padding")
        # As in torch, an odd number of zeros leaves the greater half behind.
        wide = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        padding = tuple((n // 2, n - n // 2) for n in wide)
    else:
        plain = per_axis(where, "padding", 0 if given == "valid" else given, axes)
        padding = tuple((n, n) for n in plain)
    return Conv(weight, bias, stride, padding, dilation, groups)


def pool_op(where: str, kind: PoolKind, size: Shape, settings: Mapping[str, object]) -> Pool:
    """Return a pool; what rounding up adds becomes padding behind.

    Args:
        where: the layer, for messages.
        kind: average or maximum.
        size: the input's spatial shape.
        settings: torch's ``kernel_size``, ``stride``, ``padding``, ``dilation``, ``ceil_mode``,
            ``count_include_pad`` and ``divisor_override``; what is missing has torch's default.

    Raises:
        UnsupportedOperatorError: the setting has no exact meaning here.
        ModelError: a setting is no number, or does not fit.
    """
    axes = len(size)
    kernel = per_axis(where, "kernel_size", settings.get("kernel_size"), axes)
    stride = settings.get("stride")
    steps = kernel if stride in (None, [], ()) else per_axis(where, "stride", stride, axes)
    given = per_axis(where, "padding", settings.get("padding", 0), axes)
    dilation = per_axis(where, "dilation", settings.get("dilation", 1), axes)
    ceil_mode = settings.get("ceil_mode", False)
    include = settings.get("count_include_pad", True)
    if not isinstance(ceil_mode, bool) or not isinstance(include, bool):
        raise ModelError(f"{where}: ceil_mode and count_include_pad are True or False; save again")
    if settings.get("divisor_override") is not None:
        raise UnsupportedOperatorError(f"{where}: divisor_override is not supported; leave it out")
    if min((*kernel, *steps, *dilation)) < 1:
        raise ModelError(f"{where}: kernel_size, stride and dilation start at 1")
    if any(p > (d * (k - 1) + 1) // 2 for k, p, d in zip(kernel, given, dilation, strict=True)):
        raise ModelError(f"{where}: a padding above half the window; torch refuses it as well")
    extra = [
        _behind(n, k, s, p, d) if ceil_mode else 0
        for n, k, s, p, d in zip(size, kernel, steps, given, dilation, strict=True)
    ]
    if kind == "average" and any(extra):
        # torch counts the padding in its divisor, but never what rounding up adds.
        if any(given) and include:
            raise UnsupportedOperatorError(
                f"{where}: ceil_mode with counted padding is not supported; pass "
                "count_include_pad=False or ceil_mode=False"
            )
        include = False
    padding = tuple((p, p + e) for p, e in zip(given, extra, strict=True))
    return Pool(kind, kernel, steps, padding, dilation, include)


def _behind(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Return the positions behind the padding that ``ceil_mode`` lets the last window cover."""
    reach = dilation * (kernel - 1) + 1
    count = -(-(size + 2 * padding - reach) // stride) + 1
    if (count - 1) * stride >= size + padding:  # the last window has to start before them
        count -= 1
    return max(0, (count - 1) * stride + reach - size - 2 * padding)


def adaptive_size(where: str, value: object, size: Shape) -> Shape:
    """Return the spatial shape that an adaptive pool gives; ``None`` keeps an axis as it is.

    Raises:
        ModelError: it is no shape.
    """
    if value is None:
        return size
    if isinstance(value, (list, tuple)) and len(value) == len(size):
        value = [n if given is None else given for given, n in zip(value, size, strict=True)]
    return per_axis(where, "output_size", value, len(size))


def batch_norm_epsilon(where: str, value: object, has_statistics: bool) -> float:
    """Return the epsilon of a batch norm that uses running statistics.

    Raises:
        UnsupportedOperatorError: it has none, so that its result depends on the whole batch.
    """
    if not has_statistics:
        raise UnsupportedOperatorError(
            f"{where}: a batch norm without running statistics (track_running_stats=False) makes "
            "an output depend on the other inputs of its batch; train it with running statistics"
        )
    return number(where, "eps", value)


def activation_op(where: str, name: str, settings: Mapping[str, object]) -> Activation:
    """Return an activation by torch's name for it.

    torch's softplus is the identity where ``beta z`` exceeds its threshold; here it means
    ``log(1 + exp(beta z)) / beta`` everywhere. With a threshold of 20 or more the two differ by
    less than ``2.1e-9 / beta``; what is proved is about the latter.

    Args:
        where: the layer, for messages.
        name: as in ``torch.nn.functional``, one of ``ACTIVATIONS``.
        settings: torch's arguments; what is missing has torch's default.

    Raises:
        UnsupportedOperatorError: the setting has no exact meaning here.
        ModelError: a setting is no number.
    """
    if name in _PLAIN:
        return Activation(_PLAIN[name])
    if name == "leaky_relu":
        slope = settings.get("negative_slope", 0.01)
        if isinstance(slope, int):  # bounded first: it may be beyond any float
            slope = slope if isinstance(slope, bool) else max(-1, min(slope, 2))
        return Activation("leaky_relu", number(where, "its negative_slope", slope))
    if name in ("relu6", "hardtanh"):
        low = number(where, "min_val", settings.get("min_val", 0.0 if name == "relu6" else -1.0))
        high = number(where, "max_val", settings.get("max_val", 6.0 if name == "relu6" else 1.0))
        return Activation("clamp", low=low, high=high)
    if name == "softplus":
        if not number(where, "threshold", settings.get("threshold", 20.0)) >= 20.0:
            raise UnsupportedOperatorError(
                f"{where}: a softplus with a threshold below 20 is not log(1 + exp(x)); use the "
                "default of 20"
            )
        return Activation("softplus", beta=number(where, "beta", settings.get("beta", 1.0)))
    if name == "elu":
        if any(number(where, key, settings.get(key, 1)) != 1 for key in ("scale", "input_scale")):
            raise UnsupportedOperatorError(f"{where}: an ELU with a scale is not supported")
        return Activation("elu", alpha=number(where, "alpha", settings.get("alpha", 1.0)))
    form = settings.get("approximate", "none")
    if name != "gelu" or form not in ("none", "tanh"):
        raise UnsupportedOperatorError(f"{where}: {name} {shown(form)} is not supported")
    return Activation("gelu" if form == "none" else "gelu_tanh")


def unflattened(where: str, shape: Shape, axis: int, sizes: Sequence[object]) -> Shape:
    """Return ``shape`` with one axis shared out among ``sizes``, at most one of them -1.

    Args:
        where: the layer, for messages.
        shape: without the batch axis.
        axis: of ``shape``, not negative.
        sizes: what the axis becomes.

    Raises:
        ModelError: the sizes do not make up the axis.
    """
    given = [n for n in sizes if type(n) is int and (n > 0 or n == -1)]
    known = math.prod(n for n in given if n != -1)
    if -1 in given and known:
        given[given.index(-1)] = shape[axis] // known
    if len(given) != len(sizes) or not given or math.prod(given) != shape[axis]:
        raise ModelError(f"{where}: an axis of {shape[axis]} is not made up of the sizes it names")
    return (*shape[:axis], *given, *shape[axis + 1 :])
