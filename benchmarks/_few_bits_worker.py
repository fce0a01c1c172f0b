"""Files of fewer bits by ai-edge-quantizer, and their time in ai-edge-litert.

`python _few_bits_worker.py FOLDER ROUNDS`, in an interpreter that has both; the folder holds
float32.tflite and x.npy. The last line printed is JSON, file -> microseconds an image.
"""

import json
import pathlib
import statistics
import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import qtyping, quantizer, recipe_manager

OPS = qtyping.TFLOperationName
DENSE, CONV, DEPTHWISE = OPS.FULLY_CONNECTED, OPS.CONV_2D, OPS.DEPTHWISE_CONV_2D
# File -> bits of the weights by operation; "float": computed in float.
FILES = {
    "int4 weights, dynamic": {DENSE: 4, CONV: 4, DEPTHWISE: 8},
    "int4 weights, float": {DENSE: 4},
    "int2 weights, dynamic, dense layers alone": {DENSE: 2},
    "int2 weights, dynamic": {DENSE: 2, CONV: 2, DEPTHWISE: 8},
}


def main(folder: pathlib.Path, rounds: int) -> None:
    for name, bits in FILES.items():
        recipe = recipe_manager.RecipeManager()
        add = recipe.add_weight_only_config if "float" in name else recipe.add_dynamic_config
        for operation, width in bits.items():
            add(regex=".*", operation_name=operation, num_bits=width)
        chosen = recipe.get_quantization_recipe()
        made = quantizer.Quantizer(str(folder / "float32.tflite"), chosen).quantize()
        (folder / f"{name}.tflite").write_bytes(made.quantized_model)
    x = np.load(folder / "x.npy")[:1]
    runs = {path.stem: runner(path, x) for path in sorted(folder.glob("*.tflite"))}
    times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    print(json.dumps({name: 1e6 * statistics.median(taken) for name, taken in times.items()}))


def runner(path, x):
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    return interpreter.invoke


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
