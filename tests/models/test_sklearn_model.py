"""Fitted estimators against scikit-learn's own decision functions, probabilities, predictions."""

from __future__ import annotations

import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

import paramrob.models
from paramrob.errors import ModelError
from paramrob.models.model import Model
from paramrob.models.network import Array, Dense
from paramrob.models.sklearn_model import from_sklearn


def data(inputs: int, classes: int, seed: int = 0) -> tuple[Array, npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, inputs)) * rng.uniform(0.1, 10, size=inputs) + rng.normal(size=inputs)
    y = np.argmax(x @ rng.normal(size=(inputs, classes)), axis=1)
    y[:classes] = np.arange(classes)
    return x, y


def fit(estimator: Any, x: Any, y: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return estimator.fit(x, y)


def compare(estimator: Any, model: Model, x: Array) -> None:
    """Compare with everything that the estimator says about ``x``."""
    z = model.network.evaluate(x)
    if model.output.kind == "value":
        np.testing.assert_allclose(
            z.reshape(len(x), -1).squeeze(), estimator.predict(x), rtol=1e-9, atol=1e-9
        )
        return
    if hasattr(estimator, "decision_function"):
        np.testing.assert_allclose(
            z.squeeze(-1) if z.shape[1] == 1 else z,
            estimator.decision_function(x),
            rtol=1e-9,
            atol=1e-9,
        )
    if model.output.kind == "logit":
        p = 1 / (1 + np.exp(-z))
        probabilities, best = np.hstack([1 - p, p]), (z[:, 0] > 0).astype(int)
    else:
        e = np.exp(z - z.max(axis=1, keepdims=True))
        probabilities, best = e / e.sum(axis=1, keepdims=True), np.argmax(z, axis=1)
    np.testing.assert_allclose(probabilities, estimator.predict_proba(x), rtol=1e-9, atol=1e-9)
    assert model.output.labels is not None
    clear = np.abs(np.sort(probabilities)[:, -1] - np.sort(probabilities)[:, -2]) > 1e-9
    labels = np.array(model.output.labels)[best]
    np.testing.assert_array_equal(labels[clear], estimator.predict(x).astype(str)[clear])


@settings(max_examples=30, deadline=None)
@given(
    inputs=st.integers(1, 4),
    classes=st.integers(2, 4),
    hidden=st.lists(st.integers(1, 5), max_size=3),
    activation=st.sampled_from(["identity", "logistic", "tanh", "relu"]),
    kind=st.sampled_from(["logistic", "classifier", "regressor", "regressors"]),
    with_mean=st.booleans(),
    with_std=st.booleans(),
    scaled=st.booleans(),
    single=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_random_architectures(
    inputs: int,
    classes: int,
    hidden: list[int],
    activation: str,
    kind: str,
    with_mean: bool,
    with_std: bool,
    scaled: bool,
    single: bool,
    seed: int,
) -> None:
    x, y = data(inputs, classes, seed)
    shape = {"hidden_layer_sizes": hidden, "activation": activation, "max_iter": 8}
    estimator: Any = LogisticRegression(fit_intercept=not single, max_iter=50)
    target: Any = y
    if kind == "classifier":
        estimator = MLPClassifier(**shape, random_state=seed)
    elif kind.startswith("regressor"):
        estimator = MLPRegressor(**shape, random_state=seed)
        target = x[:, 0] * 0.5 if kind == "regressor" else np.stack([x[:, 0], y], axis=1)
    if scaled:
        scaler = StandardScaler(with_mean=with_mean, with_std=with_std)
        estimator = make_pipeline(scaler, estimator)
    if single and not scaled:
        x = x.astype(np.float32)
    fit(estimator, x, target)
    model = from_sklearn(estimator)
    compare(estimator, model, np.random.default_rng(seed).normal(size=(20, inputs)) * 3)
    layers = set(model.network.layer_parameters())
    assert ("standardscaler.mean" in layers) == (scaled and with_mean)
    assert ("standardscaler.scale" in layers) == (scaled and with_std)


def test_logistic_regression_keeps_exact_values_and_names() -> None:
    x, y = data(2, 2)
    estimator = fit(LogisticRegression(), x, np.array(["F", "M"])[y])
    model = paramrob.models.from_sklearn(estimator)
    assert model.network.layer_parameters() == {"linear": ("linear.weight", "linear.bias")}
    stored = model.network.parameters
    np.testing.assert_array_equal(stored["linear.weight"].value, estimator.coef_)
    np.testing.assert_array_equal(stored["linear.bias"].value, estimator.intercept_)
    assert model.output.kind == "logit"
    assert model.output.level == Fraction(1, 2)
    assert model.output.labels == ("F", "M")
    assert model.inputs.names is None
    assert model.assumptions == ()


def test_an_intercept_that_was_not_fitted_is_no_parameter() -> None:
    x, y = data(2, 3)
    model = from_sklearn(fit(LogisticRegression(fit_intercept=False), x, y))
    assert set(model.network.parameters) == {"linear.weight"}


def test_sparse_coefficients() -> None:
    x, y = data(3, 2)
    estimator = fit(LogisticRegression(), x, y).sparsify()
    compare(estimator, from_sklearn(estimator), x)


def test_perceptron_layers() -> None:
    x, y = data(3, 3)
    estimator = fit(MLPClassifier((4, 5), activation="tanh", max_iter=5), x, y)
    model = from_sklearn(estimator)
    names = ["input", "layers.0", "layers.0.tanh", "layers.1", "layers.1.tanh", "layers.2"]
    assert [n.name for n in model.network.nodes] == names
    assert (model.output.kind, model.output.level) == ("logits", None)
    assert model.output.labels == ("0", "1", "2")
    for i, weight in enumerate(estimator.coefs_):
        np.testing.assert_array_equal(
            model.network.parameters[f"layers.{i}.weight"].value, weight.T
        )


def test_float32_parameters_say_so() -> None:
    x, y = data(2, 2)
    model = from_sklearn(fit(MLPClassifier((3,), max_iter=5), x.astype(np.float32), y))
    assert {p.dtype for p in model.network.parameters.values()} == {"float32"}


def test_a_pipeline_is_its_scalers_then_the_model() -> None:
    x, y = data(2, 2)
    steps = [
        ("first", StandardScaler()),
        ("nothing", "passthrough"),
        ("second", StandardScaler(with_mean=False)),
        ("model", LogisticRegression()),
    ]
    estimator = fit(Pipeline(steps), x, y)
    model = from_sklearn(estimator)
    compare(estimator, model, x)
    assert [n.name for n in model.network.nodes[1:]] == [
        "first.mean",
        "first.scale",
        "second.scale",
        "linear",
    ]
    scale = estimator.named_steps["first"].scale_
    np.testing.assert_array_equal(model.network.parameters["first.scale"].value, scale)
    assert isinstance(model.network.nodes[-1].op, Dense)
    (said,) = model.assumptions
    assert "first.mean, first.scale, second.scale" in said


def test_a_constant_column_is_scaled_by_one() -> None:
    x, y = data(2, 2)
    x[:, 1] = 7.0
    estimator = fit(make_pipeline(StandardScaler(), LogisticRegression()), x, y)
    compare(estimator, from_sklearn(estimator), x)


@pytest.mark.parametrize("scaled", [False, True])
def test_feature_names(scaled: bool) -> None:
    x, y = data(2, 2)
    estimator: Any = LogisticRegression()
    estimator = make_pipeline(StandardScaler(), estimator) if scaled else estimator
    fit(estimator, x, y)
    first = estimator[0] if scaled else estimator
    first.feature_names_in_ = np.array(["Hwt", "Bwt"], dtype=object)
    assert from_sklearn(estimator).inputs.names == ("Hwt", "Bwt")


class Louder(LogisticRegression):  # type: ignore[misc]
    def decision_function(self, X: Any) -> Any:
        return 2 * super().decision_function(X)


@pytest.mark.parametrize(
    "estimator",
    [
        LinearRegression(),
        RandomForestClassifier(n_estimators=2),
        make_pipeline(MinMaxScaler(), LogisticRegression()),
        make_pipeline(LogisticRegression(), StandardScaler()),
        Louder(),
        StandardScaler(),
    ],
)
def test_other_estimators_are_refused(estimator: Any) -> None:
    x, y = data(2, 2)
    if not (isinstance(estimator, Pipeline) and isinstance(estimator[0], LogisticRegression)):
        fit(estimator, x, y)
    with pytest.raises(ModelError, match="supported are fitted LogisticRegression"):
        from_sklearn(estimator)


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        MLPClassifier(),
        MLPRegressor(),
        make_pipeline(StandardScaler(), LogisticRegression()),
    ],
)
def test_unfitted_estimators_are_refused(estimator: Any) -> None:
    with pytest.raises(ModelError, match="not fitted"):
        from_sklearn(estimator)


@pytest.mark.parametrize("what", [None, "a path", 3, Pipeline([("none", "passthrough")])])
def test_no_estimators(what: object) -> None:
    with pytest.raises(ModelError, match="supported are"):
        from_sklearn(what)


def test_multilabel_is_refused() -> None:
    x, y = data(2, 2)
    with pytest.raises(ModelError, match="multilabel"):
        from_sklearn(fit(MLPClassifier((2,), max_iter=2), x, np.stack([y, 1 - y], axis=1)))


def test_an_exponential_output_is_refused() -> None:
    x, y = data(2, 2)
    estimator = fit(MLPRegressor(hidden_layer_sizes=(2,), max_iter=2), x, y)
    estimator.out_activation_ = "exp"
    with pytest.raises(ModelError, match="exp"):
        from_sklearn(estimator)


@pytest.mark.parametrize(("classes", "scheme"), [(2, "multinomial"), (3, "ovr")])
def test_older_schemes_are_refused(classes: int, scheme: str) -> None:
    estimator = fit(LogisticRegression(), *data(2, classes))
    estimator.multi_class = scheme
    with pytest.raises(ModelError, match="multi_class"):
        from_sklearn(estimator)


def test_values_that_are_not_finite_are_refused() -> None:
    estimator = fit(LogisticRegression(), *data(2, 2))
    estimator.coef_[0, 0] = np.nan
    with pytest.raises(ModelError, match="NaN"):
        from_sklearn(estimator)


def test_the_package_names_its_readers_lazily() -> None:
    assert paramrob.models.from_sklearn is from_sklearn
    with pytest.raises(AttributeError, match="nothing"):
        _ = paramrob.models.nothing
