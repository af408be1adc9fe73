"""Reading fitted scikit-learn estimators, also behind a pipeline of standard scalers.

Only fitted attributes are read; no method of the estimator is called. Networks end in the logits
(what ``decision_function`` returns, or would return), so that class 1 of two is predicted where
the logit is above 0 and the best of several where it leads, as scikit-learn predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paramrob.errors import ModelError
from paramrob.models.model import InputInfo, Model, OutputInfo
from paramrob.models.network import (
    Activation,
    ActivationKind,
    Array,
    Dense,
    Elementwise,
    Input,
    Network,
    Node,
    Op,
    Parameter,
)

_SUPPORTED = (
    "supported are fitted LogisticRegression, MLPClassifier and MLPRegressor, alone or behind "
    "StandardScalers in a Pipeline"
)
_HIDDEN: dict[str, ActivationKind | None] = {
    "identity": None,
    "logistic": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
}


class _Chain:
    """A network in the making: one node after the other."""

    def __init__(self, inputs: int) -> None:
        self.nodes = [Node("input", Input(), (), (inputs,))]
        self.parameters: list[Parameter] = []

    def add(self, name: str, op: Op, width: int | None = None) -> None:
        """Append a node; ``width`` is its output's where that differs from its input's."""
        last = self.nodes[-1]
        shape = last.shape if width is None else (width,)
        self.nodes.append(Node(name, op, (last.name,), shape))

    def parameter(self, name: str, value: Array) -> str:
        """Store a fitted array with its exact values and return its name."""
        self.parameters.append(Parameter(name, value, str(value.dtype)))
        return name

    def dense(self, name: str, weight: Array, bias: Array | None) -> None:
        """Append a dense layer; ``weight`` is ``(out, in)``."""
        named = None if bias is None else self.parameter(f"{name}.bias", bias)
        self.add(name, Dense(self.parameter(f"{name}.weight", weight), named), len(weight))


def from_sklearn(estimator: object) -> Model:
    """Read a fitted scikit-learn estimator.

    Layers are called ``linear`` (LogisticRegression) or ``layers.0``, ``layers.0.relu``,
    ``layers.1``, ... (MLP); a StandardScaler is two layers, ``<step>.mean`` and ``<step>.scale``.
    Parameters keep their exact fitted values, those of a scaler included: leave its layers out
    by name where they are not to be perturbed.

    Args:
        estimator: LogisticRegression, MLPClassifier (two or more classes, one label) or
            MLPRegressor (squared error), alone or last in a Pipeline of StandardScalers.

    Returns:
        A model whose output is a ``logit`` (two classes; labels change where the probability
        crosses one half), ``logits`` (more) or a ``value`` (regression, no level).

    Raises:
        ModelError: another estimator, one that is not fitted, or a variant whose predictions
            are no such network.
    """
    scalers, last = _steps(estimator)
    kind = _require(last, ("LogisticRegression", "MLPClassifier", "MLPRegressor"))
    chain = _Chain(_fitted(last, "n_features_in_"))
    scaled: list[str] = []
    for name, scaler in scalers:
        scaled += _add_scaler(chain, name, scaler)
    if kind == "LogisticRegression":
        _add_logistic(chain, last)
    else:
        _add_perceptron(chain, last)
    first = scalers[0][1] if scalers else last
    names = getattr(first, "feature_names_in_", None)
    inputs = InputInfo(names=None if names is None else tuple(map(str, names)))
    said = f"the scaler's layers {', '.join(scaled)} hold parameters like any other layer"
    return Model(
        Network(chain.nodes, chain.parameters),
        inputs,
        _output(kind, last, chain.nodes[-1].shape[0]),
        assumptions=(said,) if scaled else (),
    )


def _steps(estimator: Any) -> tuple[list[tuple[str, Any]], Any]:
    """Return the named scalers in front and the estimator behind them."""
    try:
        from sklearn.pipeline import Pipeline
    except ImportError as error:
        raise ModelError("scikit-learn is missing; pip install 'paramrob[sklearn]'") from error

    if type(estimator) is not Pipeline:
        return [], estimator
    steps = [(n, s) for n, s in estimator.steps if s is not None and s != "passthrough"]
    if not steps:
        raise ModelError(f"the pipeline is empty; {_SUPPORTED}")
    for _, step in steps[:-1]:
        _require(step, ("StandardScaler",))
    return steps[:-1], steps[-1][1]


def _require(estimator: object, allowed: Sequence[str]) -> str:
    """Return which of the allowed classes this is: a subclass may predict in another way."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.preprocessing import StandardScaler

    for kind in (LogisticRegression, MLPClassifier, MLPRegressor, StandardScaler):
        if type(estimator) is kind and kind.__name__ in allowed:
            return str(kind.__name__)
    raise ModelError(f"no reader for {type(estimator).__name__}; {_SUPPORTED}")


def _fitted(estimator: Any, attribute: str) -> Any:
    if not hasattr(estimator, attribute):
        raise ModelError(f"this {type(estimator).__name__} is not fitted; call fit first")
    return getattr(estimator, attribute)


def _add_scaler(chain: _Chain, name: str, scaler: Any) -> list[str]:
    """Append ``(x - mean) / scale`` as far as the scaler does it; return the layers' names."""
    if _fitted(scaler, "n_features_in_") != chain.nodes[-1].shape[0]:
        raise ModelError(f"the scaler {name!r} was fitted on another number of inputs; fit again")
    layers = []
    if scaler.with_mean:
        layers.append(f"{name}.mean")
        mean = chain.parameter(layers[-1], np.asarray(_fitted(scaler, "mean_")))
        chain.add(layers[-1], Elementwise("sub", mean))
    if scaler.with_std:
        layers.append(f"{name}.scale")
        scale = chain.parameter(layers[-1], np.asarray(_fitted(scaler, "scale_")))
        chain.add(layers[-1], Elementwise("div", scale))
    return layers


def _add_logistic(chain: _Chain, model: Any) -> None:
    weight, bias = _fitted(model, "coef_"), np.asarray(_fitted(model, "intercept_"))
    weight = np.asarray(weight.toarray() if hasattr(weight, "toarray") else weight)
    rows = 1 if len(model.classes_) == 2 else len(model.classes_)
    if weight.shape[0] != rows:
        raise ModelError(f"{len(weight)} rows of coefficients for {rows}; fit the model again")
    # Older releases of scikit-learn normalise one-vs-rest sigmoids, or take the softmax of
    # (-d, d) for two classes: neither is the sigmoid or the softmax of the logits.
    scheme = getattr(model, "multi_class", "deprecated")
    if rows > 1 and (scheme == "ovr" or model.solver == "liblinear"):
        raise ModelError(
            "one-vs-rest probabilities are no softmax; fit with solver='lbfgs' and without "
            "multi_class='ovr'"
        )
    if rows == 1 and scheme == "multinomial":
        raise ModelError("multi_class='multinomial' on two classes doubles the logit; leave it out")
    chain.dense("linear", weight, bias if model.fit_intercept else None)


def _add_perceptron(chain: _Chain, model: Any) -> None:
    weights, biases = _fitted(model, "coefs_"), _fitted(model, "intercepts_")
    classifier = hasattr(model, "classes_")
    if classifier and model.n_outputs_ > 1 and model.out_activation_ != "softmax":
        raise ModelError("a multilabel classifier has no single label; fit one model per label")
    expected = ("logistic", "softmax") if classifier else ("identity",)
    if model.out_activation_ not in expected:
        raise ModelError(
            f"the output activation {model.out_activation_!r} is not supported; fit with "
            "loss='squared_error'"
        )
    if model.activation not in _HIDDEN:
        raise ModelError(f"no activation {model.activation!r}; choose from {', '.join(_HIDDEN)}")
    hidden = _HIDDEN[model.activation]
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        chain.dense(f"layers.{i}", np.asarray(weight).T, np.asarray(bias))
        if hidden is not None and i < len(weights) - 1:
            chain.add(f"layers.{i}.{hidden}", Activation(hidden))


def _output(kind: str, estimator: Any, size: int) -> OutputInfo:
    if kind == "MLPRegressor":
        return OutputInfo("value", None)
    labels = tuple(map(str, estimator.classes_))
    return OutputInfo("logit", labels=labels) if size == 1 else OutputInfo("logits", None, labels)
