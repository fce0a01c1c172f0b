import numpy as np
import pytest
import tensorflow as tf

from keras_robust._keras import LEGACY, keras
from keras_robust.attacks import FGSM, PGD, AutoAttack, Square
from keras_robust.evaluation import evaluate
from keras_robust.evaluation._inputs import check_count, check_eps_sweep, check_histories, rescaled

X = np.full((4, 3), 0.5, np.float32)
Y = [0, 1, 0, 1]


def model(x):
    return tf.stack([x[:, 0] - 0.5, 0.5 - x[:, 1]], -1)


class Silent:
    """Fails the test when an attack runs although the inputs are wrong."""

    name, eps, norm = "silent", 0.1, "linf"

    def __call__(self, model, x, y, seed=0):
        raise AssertionError("the attack ran")


def run(artifacts=None, x=X, y=Y, attacks=None, **settings):
    artifacts = {"m": model} if artifacts is None else artifacts
    attacks = [Silent()] if attacks is None else attacks
    return evaluate(artifacts, x, y, attacks, **{"progress": False, **settings})


@pytest.mark.parametrize(
    "settings, error, message",
    [
        ({"x": (X * 255).astype("uint8")}, TypeError, "`x` must be floating point.*uint8"),
        ({"x": X[0]}, ValueError, "`x` must have a batch axis"),
        ({"x": X * 3}, ValueError, r"`x` has values in \[1.5, 1.5\], outside bounds"),
        ({"x": X * np.nan}, ValueError, "`x` holds 12 values that are NaN"),
        ({"x": X[:0], "y": []}, ValueError, "`x` is empty"),
        ({"x": tf.data.Dataset.from_tensors(X)}, TypeError, "`x` is a tf.data.Dataset"),
        ({"y": [0, 1, 2, 1]}, ValueError, r"`y` must be in \[0, 2\)"),
        ({"y": [0, 1, -1, 1]}, ValueError, r"`y` must be in \[0, classes\)"),
        ({"y": [0, 1]}, ValueError, "same length, got 4 and 2"),
        ({"y": np.full((4, 2), np.nan)}, ValueError, "`y` holds vectors that are not one-hot"),
        ({"y": np.full((4, 2), 0.5)}, ValueError, "`y` holds vectors that are not one-hot"),
        ({"y": np.eye(5)[Y]}, ValueError, "`y` has 5 columns, but the model gives 2 classes"),
        (
            {"attacks": [FGSM(0.1)], "black_box": [Square(0.1, bounds=(0.6, 1.0))]},
            ValueError,
            r"`x` has values in \[0.5, 0.5\], outside bounds=\(0.6, 1.0\)",
        ),
        ({"y": list("abab")}, TypeError, "`y` holds strings"),
        ({"artifacts": {}}, ValueError, "`artifacts` is empty"),
        ({"artifacts": [model]}, TypeError, "`artifacts` must be a dict.*got list"),
        ({"artifacts": {3: model}}, TypeError, "names of `artifacts`.*got 3"),
        ({"artifacts": {" ": model}}, TypeError, "names of `artifacts`"),
        ({"artifacts": {"m": 3}}, TypeError, r"`artifacts\['m'\]` must be a Keras model or a"),
        ({"attacks": FGSM(0.1)}, TypeError, r"give attacks=\[attack\]"),
        ({"attacks": []}, ValueError, "`attacks` is empty"),
        ({"attacks": [FGSM]}, TypeError, r"`attacks\[0\]` must be an attack.*the class FGSM"),
        ({"attacks": [model]}, TypeError, "without name, eps, norm"),
        ({"attacks": {"a": "PGD"}}, TypeError, r"`attacks\['a'\]` must be an attack"),
        ({"attacks": {1: FGSM(0.1)}}, TypeError, "names of `attacks`.*got 1"),
        ({"attacks": [FGSM(0.1), FGSM(0.2)]}, ValueError, "two attacks called 'FGSM'"),
        ({"attacks": [PGD(0.1, targeted=True)]}, ValueError, "is targeted"),
        ({"batch_size": 0}, ValueError, "`batch_size` must be an int >= 1, got batch_size=0"),
        ({"seed": -1}, ValueError, "`seed` must be an int >= 0"),
        ({"latency_runs": 0}, ValueError, "`latency_runs`"),
        ({"sweep_images": 1.5}, ValueError, "`sweep_images`"),
        ({"progress": 3}, TypeError, "`progress` must be True, False or a callable"),
        ({"eps_sweep": 0.1}, TypeError, "`eps_sweep` must be a list"),
        ({"eps_sweep": [-0.1]}, ValueError, r"`eps_sweep` must hold finite numbers.*-0.1"),
        ({"eps_sweep": [0.1]}, TypeError, "`eps_sweep` needs a last attack that is a dataclass"),
        ({"class_names": ["a"]}, ValueError, "`class_names` must hold 2 names.*got 1"),
        ({"class_names": "ab"}, ValueError, "`class_names` must hold 2 names"),
        ({"histories": [1]}, TypeError, "`histories` must be a dict"),
        ({"histories": {"a": 1}}, TypeError, r"`histories\['a'\]` must be what `fit` returned"),
        ({"twins": [model]}, TypeError, "`twins` must be a dict"),
        ({"twins": {"q": model}}, ValueError, "names 'q', which is none of the artifacts: m"),
        ({"twins": {"m": 3}}, TypeError, r"`twins\['m'\]`"),
    ],
)
def test_wrong_inputs_are_refused_before_any_attack(settings, error, message):
    with pytest.raises(error, match=message):
        run(**settings)


def test_softmax_models_are_refused():
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
    with pytest.raises(ValueError, match=r"`artifacts\['m'\]` ends in a softmax"):
        run({"m": network})
    with pytest.raises(ValueError, match=r"`artifacts\['m'\]` returned probabilities"):
        run({"m": lambda x: tf.nn.softmax(model(x))})


def test_model_without_weights_is_refused():
    with pytest.raises(ValueError, match="has no weights yet"):
        run({"m": keras.Sequential([keras.layers.Dense(2)])})


def test_wrong_input_shape_is_named():
    network = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match=r"`artifacts\['m'\]` fails on a batch of `x` of shape"):
        run({"m": network})


def test_models_of_different_classes_are_refused():
    def three(x):
        return tf.concat([model(x), x[:, :1]], -1)

    message = r"`artifacts\['b'\]` gives 3 classes, but .*'a'.* gives 2"
    with pytest.raises(ValueError, match=message):
        run({"a": model, "b": three})


def test_one_logit_is_refused():
    with pytest.raises(ValueError, match="at least 2 classes"):
        run({"m": lambda x: x[:, :1]})


def test_model_of_the_other_keras_is_refused():
    other = pytest.importorskip("keras" if LEGACY else "tf_keras")
    network = other.Sequential([other.Input((3,)), other.layers.Dense(2)])
    with pytest.raises(TypeError, match=r"`artifacts\['m'\]` is a .* model"):
        run({"m": network})


def test_callable_without_gradient_needs_a_twin():
    def blind(x):
        return tf.stop_gradient(model(x))

    with pytest.raises(ValueError, match="has no gradients.*Pass the models it was made from"):
        run({"m": blind})
    with pytest.raises(ValueError, match=r"`twins\['m'\]` has no gradients itself"):
        run({"m": blind}, twins={"m": lambda x: tf.stop_gradient(model(x))})
    report = run({"m": blind}, attacks=[FGSM(0.1)], twins={"m": model}, eps_sweep=())
    assert list(report.to_dict()["artifacts"]["m"]["sources"]["FGSM"]) == ["twin"]


def test_file_without_any_twin_says_what_to_pass(tflite_file):
    with pytest.raises(ValueError, match=r"twins=\{'file': \[fake_quantized_model"):
        run({"file": tflite_file(model, 3)})


def test_quantized_probabilities_are_refused(tmp_path, rng):
    weights = tf.constant(rng.normal(size=(3, 7)), tf.float32)
    function = tf.function(
        lambda x: tf.nn.softmax(x @ weights), input_signature=[tf.TensorSpec((1, 3), tf.float32)]
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([row[None]] for row in rng.random((8, 3), "f4"))
    path = tmp_path / "soft.tflite"
    path.write_bytes(converter.convert())
    with pytest.raises(ValueError, match=r"`artifacts\['file'\]` returned probabilities"):
        run({"file": path, "m": lambda x: x @ weights}, x=rng.random((4, 3), "f4"))


def test_eps_sweep_is_sorted_and_without_doubles():
    assert check_eps_sweep([0.3, 0, 0.1, 0.3], FGSM(0.1)) == [0.0, 0.1, 0.3]
    assert check_eps_sweep(None, FGSM(0.0)) == []
    assert check_eps_sweep(None, Silent()) == check_eps_sweep(None, AutoAttack(0.1)) == []
    assert check_eps_sweep([0.1], AutoAttack(0.2)) == [0.1]


def test_rescaled_keeps_the_ratio_of_a_fixed_step():
    assert rescaled(PGD(0.1, step_size=0.02), 0.2) == PGD(0.2, step_size=0.04)
    assert rescaled(PGD(0.1), 0.2) == PGD(0.2)


def test_histories_become_plain_numbers():
    history = keras.callbacks.History()
    history.history = {"loss": [np.float32(1.5), float("inf")]}
    assert check_histories({"a": history, "b": {"accuracy": np.array([0.5])}}) == {
        "a": {"loss": [1.5, None]},
        "b": {"accuracy": [0.5]},
    }


def test_counts_take_numpy_integers():
    assert check_count("n", np.int64(3), 1) == 3
    with pytest.raises(ValueError, match="`n` must be an int >= 1, got n=True"):
        check_count("n", True, 1)


def test_channels_first_are_refused_before_an_attack_that_moves_them():
    """Also where it would be added as a black box, for artifacts without gradients only."""
    x = np.full((4, 3, 8, 8), 0.5, np.float32)
    whole = {"m": lambda x: model(tf.reduce_mean(x, [2, 3]))}
    for settings in (
        {"attacks": [Silent(), Square(0.1)]},
        {"attacks": [Silent(), AutoAttack(0.1)]},
    ):
        with pytest.raises(ValueError, match="looks channels first"):
            run(whole, x=x, black_box=False, **settings)
    with pytest.raises(AssertionError, match="the attack ran"):
        run(whole, x=x)


def test_labels_that_are_none_are_refused_by_name():
    with pytest.raises(TypeError, match="`y` must be an array .*, got None"):
        run(y=None)
