"""Weights that are computed in each call, computed once for all calls of a step."""

import contextlib


@contextlib.contextmanager
def resolved_weights(model):
    """While it lasts, layers that compute their weights have done so already.

    The weights move at the end of a step only, but an attack calls the model many times
    before. A layer takes part by a method `resolve_once()`, a context manager.
    """
    with contextlib.ExitStack() as stack:
        for layer in model._flatten_layers():
            if hasattr(layer, "resolve_once"):
                stack.enter_context(layer.resolve_once())
        yield
