import numpy as np
import pytest
import tensorflow as tf

import keras_robust as kr
from keras_robust._keras import LEGACY, keras
from keras_robust.compress import Binarize, Quantize, Recipe, load
from keras_robust.compress._flatten import flatten
from keras_robust.compress._kernels import kernels
from keras_robust.compress._stage import Context
from keras_robust.export._interpreter import load as interpreter_of

pytestmark = pytest.mark.skipif(not LEGACY, reason="compress needs tf_keras")
layers = keras.layers


def inputs_of(tools):
    return tools.dataset().map(lambda x, y: x)


@pytest.fixture(scope="module")
def block(tools):
    model = flatten(tools.block_model())
    context = Context(1, 4, inputs_of(tools))
    return model, tools.run_stage(Quantize(), model, context, tools.dataset())


def interpret(content, x):
    resolver = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = tf.lite.Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    enter, leave = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    outputs = []
    for image in x:
        interpreter.set_tensor(enter["index"], image[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(leave["index"])[0])
    types = {t["index"]: t["dtype"] for t in interpreter.get_tensor_details()}
    operations = [(op["op_name"], types[op["outputs"][0]]) for op in interpreter._get_ops_details()]
    return np.array(outputs), operations


@pytest.mark.filterwarnings("ignore")
def test_resnet_v2_block_becomes_an_int8_file_close_to_its_twin(tools, block):
    _, twin = block
    x, _ = tools.data(64)
    converter = tf.lite.TFLiteConverter.from_keras_model(twin)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in x)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    logits, operations = interpret(converter.convert(), x)
    expected = twin.predict(x, verbose=0)
    step = np.ptp(expected) / 255
    assert np.abs(logits - expected).mean() < 4 * step
    assert np.mean(logits.argmax(1) == expected.argmax(1)) > 0.9
    convolutions = [kind for name, kind in operations if name == "CONV_2D"]
    assert len(convolutions) == 3 and all(kind is np.int8 for kind in convolutions)


def test_saved_model_comes_back(tools, block, tmp_path):
    _, twin = block
    x, _ = tools.data(16)
    twin.save(tmp_path / "m.h5")
    assert np.array_equal(load(tmp_path / "m.h5").predict(x, verbose=0), twin.predict(x, verbose=0))
    twin.save(tmp_path / "m.keras")
    with pytest.raises(ValueError, match=r"model.save\('model.h5'\)"):
        load(tmp_path / "m.keras")
    plain = keras.Sequential([layers.Dense(2, input_shape=(3,))])
    plain.save(tmp_path / "p.keras")
    assert load(tmp_path / "p.keras").count_params() == 8


def test_gradients_pass_straight_through(tools, block):
    model, twin = block
    x, y = tools.data(16)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    gradients = []
    for each in (model, twin):
        with tf.GradientTape() as tape:
            at = tf.constant(x)
            tape.watch(at)
            value = loss(y, each(at, training=False))
        gradients.append(tf.reshape(tape.gradient(value, at), [-1]).numpy())
    assert np.all(np.isfinite(gradients[1])) and np.count_nonzero(gradients[1]) > 0.5 * x.size
    # The twin was trained for four steps more, so alike but not the same.
    assert np.corrcoef(gradients)[0, 1] > 0.5
    with tf.GradientTape() as tape:
        value = loss(y, twin(x, training=True))
    assert all(g is not None for g in tape.gradient(value, twin.trainable_variables))


def test_depthwise_separable_and_pooling_layers(tools):
    inputs = keras.Input(tools.shape)
    x = layers.Conv2D(4, 3)(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU(max_value=6.0)(x)
    x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = layers.Concatenate()([x, layers.Multiply()([x, x])])
    x = layers.AveragePooling2D()(layers.ZeroPadding2D()(x))
    x = layers.SeparableConv2D(4, 3, padding="same")(x)
    model = flatten(keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x))))
    stage = Quantize()
    wrapped = stage.wrap(model, Context(1, 4, inputs_of(tools)))
    x, _ = tools.data(32)
    exact = model(x).numpy()
    for quantized in (wrapped, stage.strip(wrapped, model)):
        assert np.abs(quantized(x, training=False) - exact).max() < 0.1 * np.ptp(exact)


@pytest.mark.parametrize(("activation", "consumers"), [("relu", 1), (None, 2), (None, 1)])
def test_a_batch_normalization_after_a_separable_layer(tools, activation, consumers):
    inputs = keras.Input(tools.shape)
    x = layers.SeparableConv2D(4, 3, activation=activation, name="separable")(inputs)
    y = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    y = layers.Add()([x, y]) if consumers == 2 else y
    model = keras.Model(inputs, layers.Dense(4)(layers.Flatten()(y)))
    x, _ = tools.data(32)
    exact = model(x).numpy()
    quantized = Quantize().apply(model, x)
    assert np.abs(quantized(x, training=False) - exact).max() < 0.1 * np.ptp(exact)


def shared():
    inputs, dense = keras.Input((4,)), layers.Dense(4, name="twice")
    return keras.Model(inputs, dense(dense(inputs)))


def sequential(*stack):
    return keras.Sequential([keras.Input((6, 6, 1)), *stack, layers.Flatten(), layers.Dense(2)])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (shared, "'twice'.*called 2 times.*shared"),
        (
            lambda: sequential(layers.Conv2D(2, 3, activation="elu", name="c")),
            r"'c' \(Conv2D\) has the activation 'elu'.*Activation\('elu'\)",
        ),
        (
            lambda: sequential(layers.LayerNormalization(name="norm")),
            r"'norm' \(LayerNormalization\) has weights that TF-MOT cannot quantize",
        ),
    ],
)
def test_layers_that_cannot_be_quantized_are_named(make, match):
    with pytest.raises(ValueError, match=match):
        Quantize().check(flatten(make()), Context(1, 1))


def test_mixed_precision_is_refused(tools):
    policy = keras.mixed_precision.global_policy()
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, dtype="mixed_bfloat16", name="half")(inputs))
    with pytest.raises(ValueError, match="float32 only, but the layer 'half'.*'mixed_bfloat16'"):
        Quantize().check(flatten(model), Context(1, 1))
    try:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
        with pytest.raises(ValueError, match="the global policy has the dtype policy"):
            Quantize().check(flatten(tools.model()), Context(1, 1))
    finally:
        keras.mixed_precision.set_global_policy(policy)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (dict(bits="int4"), "`bits` must be 'int8', got 'int4'"),
        (dict(bits=8), "got 8"),
        (dict(preserve="sparsity"), "must be a sequence of names"),
        (dict(preserve=["zeros"]), r"out of \('sparsity', 'clusters'\)"),
    ],
)
def test_errors(arguments, match):
    with pytest.raises(ValueError, match=match):
        Quantize(**arguments)


def test_quantized_after_training_without_a_recipe(tools):
    model, (x, _) = tools.model(), tools.data(64)
    before = model.get_weights()
    exact = model(x).numpy()
    for calibration in ("mean", "percentile", "mse"):
        ready = Quantize(calibration=calibration).apply(model, x)
        assert np.abs(ready(x, training=False) - exact).max() < 0.1 * np.ptp(exact)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    with pytest.raises(ValueError, match="`calibration` must be one of"):
        Quantize(calibration="max")


def test_binary_kernels_stay_so_through_quantization_aware_training(tools, tmp_path):
    """Depthwise ones too, for which TF-MOT has no quantizer that keeps clusters."""
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input(tools.shape),
            layers.Conv2D(8, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3),
            layers.Flatten(),
            layers.Dense(tools.classes),
        ]
    )
    result = Recipe([Binarize(), Quantize()]).run(model, tools.dataset(), epochs=2, verbose=0)
    for stage in result.stages:
        assert not stage.broken
        assert [row["distinct_after"] for row in stage.layers] == [2, 2, 2]
    kr.export.tflite(result.model, tmp_path / "binary.tflite")
    interpreter = interpreter_of(tmp_path / "binary.tflite")
    shapes = {(8, 3, 3, 1), (1, 3, 3, 8), (4, 128)}
    for detail in interpreter.get_tensor_details():
        if tuple(detail["shape"]) in shapes and detail["dtype"] == np.int8:
            codes = interpreter.get_tensor(detail["index"])
            assert np.unique(codes).size == 2
            shapes.remove(codes.shape)
    assert not shapes


@pytest.mark.parametrize(
    "values", [[0.0, -0.2, 0.1], np.linspace(-0.2, 0.2, 41) * (np.arange(41) % 2)]
)
def test_kernels_without_a_quantizer_of_their_own_keep_what_they_have(tools, rng, values):
    stack = [
        layers.Conv2DTranspose(4, 3, name="up"),
        layers.DepthwiseConv2D(3, name="depth"),
        layers.SeparableConv2D(4, 3, name="separable"),
        layers.Flatten(),
        layers.Dense(tools.classes, name="out"),
    ]
    model = flatten(keras.Sequential([keras.Input(tools.shape), *stack]))
    for layer in model.layers:
        old = layer.get_weights()
        new = [rng.choice(np.float32(values), w.shape) if w.ndim > 1 else w for w in old]
        layer.set_weights(new)
    before, stage = kernels(model), Quantize()
    few = len(values) if len(values) < 10 else None
    context = Context(2, 4, inputs_of(tools), sparse=True, clusters=few)
    after = kernels(tools.run_stage(stage, model, context, tools.dataset()))
    assert stage.broken(before, after, [], context) == []
    moved = [np.abs(after[key].values - before[key].values).max() for key in after if key in before]
    assert len(moved) >= 3 and min(moved) > 1e-4
    if few:
        assert all(kernel.distinct <= few for kernel in after.values())


@pytest.mark.parametrize("preserve", [(), ("sparsity", "clusters")])
def test_a_layer_that_is_not_trained_stays_so(tools, preserve):
    model = flatten(tools.block_model())
    first, *_, last = (layer for layer in model.layers if hasattr(layer, "kernel"))
    first.trainable = False
    for layer in (first, last):  # Few values, so that there are clusters to keep.
        kernel, *bias = layer.get_weights()
        kernel = np.sign(kernel) * (np.abs(kernel) > np.median(np.abs(kernel))) * 0.1
        layer.set_weights([kernel, *bias])
    stage, context = Quantize(preserve=preserve), Context(1, 4, inputs_of(tools))
    result = tools.run_stage(stage, model, context, tools.dataset())
    rounded = [layer for layer in result.layers if getattr(layer, "_weight_vars", ())]
    held = {layer.layer.name: layer._weight_vars[0][0].numpy() for layer in rounded}
    np.testing.assert_array_equal(held[first.name], first.kernel)
    assert np.abs(held[last.name] - last.kernel).max() > 1e-4
