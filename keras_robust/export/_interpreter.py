"""A `.tflite` file as a callable from images to logits, run by the LiteRT interpreter."""

import pathlib
import time

import numpy as np
import tensorflow as tf

from keras_robust.export._quiet import quiet


def interpreter_class():
    """The LiteRT interpreter: TensorFlow's own, else that of the package ai-edge-litert.

    TensorFlow 2.21 still ships it, built with the very converter that writes the files, and
    needs no further package. It warns that it will be dropped: then the other one serves,
    which has the same interface.
    """
    if hasattr(tf.lite, "Interpreter"):
        return tf.lite.Interpreter
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ImportError(
            f"TensorFlow {tf.__version__} has no tf.lite.Interpreter any more. Install its "
            "successor: pip install ai-edge-litert."
        ) from error
    return Interpreter


class TFLiteModel:
    """A `.tflite` classifier as a callable: images `(n, ...)` to logits `(n, classes)`.

    Quantized inputs and outputs are converted with the file's own scale and zero point, so
    that the caller sees float32 whatever the file takes. Not differentiable, and one
    object must not be called from two threads at once.

    Args:
        path: the file.
        threads: CPU threads of the interpreter; None leaves it its default.
        batch_size: images run at once; the file is resized for it.

    Raises:
        ValueError: the file is missing, corrupt, or no classifier (one floating-point, int8
            or uint8 input with a batch axis, one such output `(batch, classes)`).
    """

    def __init__(self, path, threads: int | None = None, batch_size: int = 64):
        self.path = pathlib.Path(path)
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise ValueError(f"`threads` must be a positive integer or None, got {threads!r}.")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"`batch_size` must be a positive integer, got {batch_size!r}.")
        self._interpreter = load(self.path, threads)
        self._batch_size, self._batch = batch_size, None
        self._read_signature()

    def _read_signature(self) -> None:
        inputs = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        if len(inputs) != 1 or len(outputs) != 1:
            raise self._no_classifier(f"{len(inputs)} inputs and {len(outputs)} outputs")
        self._input, self._output = inputs[0], outputs[0]
        for name, detail in (("input", self._input), ("output", self._output)):
            if detail["dtype"] not in (np.float32, np.int8, np.uint8):
                raise self._no_classifier(f"an {name} of type {detail['dtype'].__name__}")
            if detail["dtype"] != np.float32 and not detail["quantization"][0] > 0:
                raise self._no_classifier(
                    f"an {name} of type {detail['dtype'].__name__} without a scale"
                )
        if len(self._input["shape"]) < 2 or len(self._output["shape"]) != 2:
            raise self._no_classifier(
                f"an input of shape {tuple(map(int, self._input['shape']))} and an output of "
                f"shape {tuple(map(int, self._output['shape']))}"
            )
        signature = self._input["shape_signature"][1:]
        # Lengths that the file leaves open are None.
        self.input_shape = tuple(int(n) if n > 0 else None for n in signature)
        self.classes = int(self._output["shape"][1])

    def _no_classifier(self, what: str) -> ValueError:
        return ValueError(
            f"{str(self.path)!r} is no classifier: it has {what}, but one input (batch, ...) and "
            "one output (batch, classes) are needed, in float32 or quantized to int8 or uint8."
        )

    def __call__(self, images) -> np.ndarray:
        """Logits `(n, classes)` float32 of images `(n, ...)` float32."""
        images = self._check(images)
        step = self._batch_size
        parts = [self._run(images[k : k + step]) for k in range(0, len(images), step)]
        return np.concatenate(parts)

    def _check(self, images) -> np.ndarray:
        images = np.asarray(images, np.float32)
        shape = self.input_shape
        if (
            images.ndim != len(shape) + 1
            or len(images) == 0
            or any(
                want not in (None, got) for want, got in zip(shape, images.shape[1:], strict=True)
            )
        ):
            raise ValueError(
                f"{str(self.path)!r} takes images of shape (n, {', '.join(map(str, shape))}) with "
                f"n >= 1, got {images.shape}."
            )
        return images

    def _run(self, images: np.ndarray) -> np.ndarray:
        try:
            return self._run_batch(images)
        except RuntimeError as error:
            if len(images) == 1:
                raise ValueError(f"{str(self.path)!r} does not run: {error}") from error
        # A file whose inner shapes fix the batch cannot be resized: one image at a time then.
        self._batch_size, self._batch = 1, None
        return np.concatenate([self._run(images[k : k + 1]) for k in range(len(images))])

    def _run_batch(self, images: np.ndarray) -> np.ndarray:
        self._resize(images.shape)
        self._interpreter.set_tensor(self._input["index"], _quantize(images, self._input))
        self._interpreter.invoke()
        logits = _dequantize(self._interpreter.get_tensor(self._output["index"]), self._output)
        if logits.shape != (len(images), self.classes):
            raise RuntimeError(f"it returned shape {logits.shape} for {len(images)} images")
        return logits

    def _resize(self, shape) -> None:
        if self._batch != shape:
            self._interpreter.resize_tensor_input(self._input["index"], shape)
            with quiet():
                self._interpreter.allocate_tensors()
            self._batch = shape

    def latency_ms(self, x, runs: int = 50) -> float:
        """The median time of one image of `x` alone, in milliseconds, after a warm-up.

        From the image in numpy to its logits in numpy, as a caller in Python waits for it.

        Args:
            x: images `(n, ...)`, taken in turn.
            runs: how many are timed, >= 1.
        """
        if not isinstance(runs, int) or runs < 1:
            raise ValueError(f"`runs` must be a positive integer, got {runs!r}.")
        images = self._check(x)
        times = []
        for run in range(runs + 3):
            image = images[run % len(images)][None]
            start = time.perf_counter()
            self._run_batch(image)
            times.append(time.perf_counter() - start)
        return float(np.median(times[3:])) * 1e3


def load(path: pathlib.Path, threads: int | None = None):
    """An interpreter of the file, its tensors allocated; `ValueError` names the path."""
    if path.is_dir() or not path.exists():
        kind = "a folder" if path.is_dir() else "missing"
        raise ValueError(f"{str(path)!r} is {kind}, a .tflite file was expected.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error}.") from error
    if content[4:8] != b"TFL3":
        raise ValueError(
            f"{str(path)!r} is no .tflite file: its {len(content)} bytes do not start as one. "
            "Write it with kr.export.tflite."
        )
    try:
        with quiet():
            interpreter = interpreter_class()(model_content=content, num_threads=threads)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"{str(path)!r} is damaged, or needs operations that this interpreter lacks: {error}. "
            "Write it again with kr.export.tflite."
        ) from error
    return interpreter


def _quantize(values: np.ndarray, detail: dict) -> np.ndarray:
    dtype = detail["dtype"]
    if dtype == np.float32:
        return values
    scale, zero = detail["quantization"]
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / scale) + zero, limits.min, limits.max).astype(dtype)


def _dequantize(values: np.ndarray, detail: dict) -> np.ndarray:
    if detail["dtype"] == np.float32:
        return values
    scale, zero = detail["quantization"]
    return ((values.astype(np.float32) - zero) * scale).astype(np.float32)
