"""A net given as layers and arrays, in torch: same weights, same logits, channels first."""

import torch
import torch.nn.functional as F


class TorchTwin(torch.nn.Module):
    """The net of `tests/reference/reference_nets.py`, `(batch, channels, h, w)` to logits."""

    def __init__(self, layers, arrays):
        super().__init__()
        self.layers = layers
        for name, value in arrays.items():
            tensor = torch.tensor(value)
            if tensor.ndim == 4:
                tensor = tensor.permute(3, 2, 0, 1).contiguous()
            self.register_buffer(name.replace("/", "_"), tensor)

    def forward(self, x):
        for layer in self.layers:
            x = getattr(self, f"_{layer['kind']}")(x, layer)
        return x

    def _affine(self, x, layer):
        return x * layer["scale"] + layer["offset"]

    def _relu(self, x, layer):
        return F.relu(x)

    def _pool(self, x, layer):
        return F.max_pool2d(x, layer["size"])

    def _flatten(self, x, layer):
        return x.permute(0, 2, 3, 1).flatten(1)  # Channels last, as the dense kernels are.

    def _dense(self, x, layer):
        kernel, bias = self._weights(layer)
        return x @ kernel + bias

    def _conv(self, x, layer):
        kernel, bias = self._weights(layer)
        stride = layer["stride"]
        if layer["padding"] == "same":
            sides = []
            for size, width in zip(x.shape[:1:-1], kernel.shape[:1:-1]):
                # TensorFlow puts the odd one of the padding at the end, torch at both sides.
                total = max((-(-size // stride) - 1) * stride + width - size, 0)
                sides += [total // 2, total - total // 2]
            x = F.pad(x, sides)
        return F.conv2d(x, kernel, bias, stride=stride)

    def _weights(self, layer):
        return (getattr(self, f"{layer['name']}_{part}") for part in ("kernel", "bias"))
