"""Spectra of activations that are known in closed form."""

import re

import numpy as np
import pytest

from keras_robust._keras import keras
from keras_robust.analysis import _variance as variance
from keras_robust.analysis import plot_variance, variance_ratio


def with_spectrum(rng, values, inputs, features):
    """Centred `(inputs, features)` float64 with these singular values, moved off the origin."""
    count = len(values)
    rows = rng.normal(size=(inputs, count))
    left = np.linalg.qr(rows - rows.mean(axis=0))[0]
    right = np.linalg.qr(rng.normal(size=(features, count)))[0]
    return (left * values) @ right.T + 3.0


@pytest.mark.parametrize(("inputs", "features"), [(40, 12), (12, 40)])
def test_the_spectrum_is_found(rng, inputs, features):
    values = np.array([8.0, 4.0, 1.0])
    found = variance_ratio(with_spectrum(rng, values, inputs, features), batch_size=7)
    np.testing.assert_allclose(found.singular_values[:3], values, rtol=1e-9)
    assert found.singular_values[3:].max() < 1e-6 and len(found.singular_values) == 12
    np.testing.assert_allclose(found.curve[:3], np.array([64, 80, 81]) / 81)
    assert [found.at(k) for k in (1, 99)] == pytest.approx([64 / 81, 1.0])
    assert (found.rank_for(0.5), found.rank_for(0.9), found.rank_for(0.99)) == (1, 2, 3)


@pytest.mark.parametrize("panel", [1, 2, 5, 100])
def test_the_gram_matrix_is_the_same_in_panels(rng, monkeypatch, panel):
    z = rng.normal(size=(11, 30)) * np.geomspace(1, 1e-3, 30) + 5
    monkeypatch.setattr(variance, "_PANEL_BYTES", 8 * 30 * panel)
    found = variance_ratio(z, batch_size=4)
    exact = np.linalg.svd(z - z.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(found.singular_values[:-1], exact[:-1], rtol=1e-7)


def test_effective_rank_of_equal_values_is_their_number(rng):
    z = with_spectrum(rng, np.full(5, 2.0), 30, 9)
    assert variance_ratio(z).effective_rank == pytest.approx(5.0, abs=1e-4)
    assert variance_ratio(z).rank_for(1.0) == 5
    shares = np.array([0.75, 0.25])
    z = with_spectrum(rng, shares, 30, 9)
    expected = np.exp(-np.sum(shares * np.log(shares)))
    assert variance_ratio(z).effective_rank == pytest.approx(expected, abs=1e-4)


def test_constant_activations_have_no_rank():
    found = variance_ratio(np.full((6, 4), 2.0))
    assert (found.effective_rank, found.rank_for(), found.at(1)) == (0.0, 0, 1.0)


def test_a_layer_of_a_model_is_looked_at(rng):
    inputs = keras.Input((6,))
    x = keras.layers.Dense(4, use_bias=False, name="narrow")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(20, name="wide")(x))
    x = rng.normal(size=(33, 6)).astype("float32")
    before = model.get_weights()
    found = variance_ratio(model, x, "wide", batch_size=8)
    assert (found.inputs, found.features) == (33, 20)
    assert found.rank_for(1 - 1e-9) == 4
    z = model.predict(x, verbose=0).astype(np.float64)
    exact = np.linalg.svd(z - z.mean(axis=0), compute_uv=False)
    np.testing.assert_allclose(found.singular_values[:4], exact[:4], rtol=1e-4)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_curves_are_drawn_with_their_names(rng, tmp_path):
    ratios = {name: variance_ratio(rng.normal(size=(20, 8))) for name in ("one", "two")}
    path = plot_variance(ratios, tmp_path / "v.svg", "Spectra")
    words = re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text())
    assert {"one", "two", "Spectra", "singular values", "share of the variance"} <= set(words)
    assert ratios["one"].plot(tmp_path / "v.png").exists()
    assert ratios["one"].to_dict()["curve"][-1] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda z: variance_ratio(z.astype(int)), TypeError, "must be floating-point activations"),
        (lambda z: variance_ratio(z[0]), ValueError, r"shape \(n, features\)"),
        (lambda z: variance_ratio(z * np.nan), ValueError, "holds NaN"),
        (lambda z: variance_ratio(z, batch_size=0), ValueError, "`batch_size` must be a whole"),
        (lambda z: variance_ratio(z, z), ValueError, "`layer` is missing"),
        (lambda z: variance_ratio(abs, z, "a"), TypeError, "`model` must be a Keras model"),
        (lambda z: variance_ratio(z).at(0), ValueError, "`k` must be a whole number >= 1"),
        (lambda z: variance_ratio(z).rank_for(0), ValueError, r"`share` must be in \(0, 1\]"),
        (lambda z: plot_variance({}, "p.png"), ValueError, "`ratios` is empty"),
    ],
)
def test_wrong_input_says_what_to_do(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((5, 3)))


def test_too_much_to_solve_is_refused(monkeypatch):
    monkeypatch.setattr(variance, "LARGEST", 4)
    with pytest.raises(ValueError, match="5 inputs and 6 features.*Give fewer inputs"):
        variance_ratio(np.ones((5, 6)))


def test_an_unknown_layer_is_named_with_those_there_are(cnn):
    model = cnn()
    with pytest.raises(ValueError, match=f"'nothing' is no layer.*{model.layers[-1].name}"):
        variance_ratio(model, np.zeros((2, 6, 6, 1), "float32"), "nothing")
