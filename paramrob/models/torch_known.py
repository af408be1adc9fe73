"""The modules of torch that paramrob knows: where each is defined and what it may carry.

This is the one list that files, live modules and graphs are read by. torch itself is not needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Known:
    """A module's defining file below ``torch.nn.modules``, and the names that it may carry.

    ``settings`` are its hyper-parameters, which are read and checked; ``parameters`` and
    ``buffers`` are exactly what it holds, some perhaps ``None``.
    """

    file: str
    settings: frozenset[str] = frozenset()
    parameters: frozenset[str] = frozenset()
    buffers: frozenset[str] = frozenset()


_AFFINE = frozenset({"weight", "bias"})
_STATISTICS = frozenset({"running_mean", "running_var", "num_batches_tracked"})


def _plain(file: str, *settings: str) -> Known:
    return Known(file, frozenset(settings))


_CONV = Known(
    "conv",
    frozenset({"in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation"})
    | {
        "transposed",
        "output_padding",
        "groups",
        "padding_mode",
        "_reversed_padding_repeated_twice",
    },
    _AFFINE,
)
_NORM = Known(
    "batchnorm",
    frozenset({"num_features", "eps", "momentum", "affine", "track_running_stats"}),
    _AFFINE,
    _STATISTICS,
)
_POOL = ("kernel_size", "stride", "padding", "ceil_mode")
_MAX_POOL = _plain("pooling", *_POOL, "dilation", "return_indices")
_ADAPTIVE_MAX = _plain("pooling", "output_size", "return_indices")
_CLAMP = _plain("activation", "min_val", "max_val", "inplace")
_INPLACE = _plain("activation", "inplace")
_DROPOUT = _plain("dropout", "p", "inplace")

KNOWN: Mapping[str, Known] = {
    "Sequential": _plain("container"),
    "Linear": Known("linear", frozenset({"in_features", "out_features"}), _AFFINE),
    "Conv1d": _CONV,
    "Conv2d": _CONV,
    "BatchNorm1d": _NORM,
    "BatchNorm2d": _NORM,
    "AvgPool1d": _plain("pooling", *_POOL, "count_include_pad"),
    "AvgPool2d": _plain("pooling", *_POOL, "count_include_pad", "divisor_override"),
    "MaxPool1d": _MAX_POOL,
    "MaxPool2d": _MAX_POOL,
    "AdaptiveAvgPool1d": _plain("pooling", "output_size"),
    "AdaptiveAvgPool2d": _plain("pooling", "output_size"),
    "AdaptiveMaxPool1d": _ADAPTIVE_MAX,
    "AdaptiveMaxPool2d": _ADAPTIVE_MAX,
    "ReLU": _INPLACE,
    "LeakyReLU": _plain("activation", "inplace", "negative_slope"),
    "ReLU6": _CLAMP,
    "Hardtanh": _CLAMP,
    "Sigmoid": _plain("activation"),
    "Tanh": _plain("activation"),
    "Softplus": _plain("activation", "beta", "threshold"),
    "ELU": _plain("activation", "alpha", "inplace"),
    "SiLU": _INPLACE,
    "GELU": _plain("activation", "approximate"),
    "Hardswish": _INPLACE,
    "Hardsigmoid": _INPLACE,
    "Softmax": _plain("activation", "dim"),
    "Flatten": _plain("flatten", "start_dim", "end_dim"),
    "Unflatten": _plain("flatten", "dim", "unflattened_size"),
    "Identity": _plain("linear"),
    "Dropout": _DROPOUT,
    "Dropout1d": _DROPOUT,
    "Dropout2d": _DROPOUT,
    "AlphaDropout": _DROPOUT,
    "FeatureAlphaDropout": _DROPOUT,
}
QUALIFIED: Mapping[str, str] = {
    f"torch.nn.modules.{known.file}.{kind}": kind for kind, known in KNOWN.items()
}


def layer_label(path: str, qualified: str) -> str | None:
    """Return what users call the layer at ``path``; ``None`` where its class is not known."""
    kind = QUALIFIED.get(qualified)
    return None if kind in (None, "Sequential") else path or str(kind).lower()
