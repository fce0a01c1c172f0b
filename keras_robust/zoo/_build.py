"""The built-in models by name."""

import difflib

from keras_robust.zoo._lenet import lenet5, lenet_300_100
from keras_robust.zoo._mobilenet import mobilenet
from keras_robust.zoo._resnet import resnet18, resnet50
from keras_robust.zoo._shufflenet import shufflenet
from keras_robust.zoo._small_cnn import small_cnn
from keras_robust.zoo._squeezenet import squeezenet
from keras_robust.zoo._vgg import vgg19

_BUILDERS = {
    f.__name__: f
    for f in (
        *(lenet5, lenet_300_100, mobilenet, resnet18, resnet50, shufflenet, small_cnn),
        *(squeezenet, vgg19),
    )
}


def names() -> tuple[str, ...]:
    """Names of the built-in models, sorted.

    >>> names()[:4]
    ('lenet5', 'lenet_300_100', 'mobilenet', 'resnet18')
    """
    return tuple(sorted(_BUILDERS))


def build(name: str, **kwargs):
    """The built-in model `name`.

    Args:
        name: one of `names()`.
        kwargs: for its builder: `input_shape`, `classes`, `seed`, `mean`, `std`, and what it has
            of its own.

    Returns:
        A functional model, `(batch, h, w, c)` in [0, 1] to `(batch, classes)` logits.

    Raises:
        ValueError: an unknown name, or an argument out of its range.

    >>> build("small_cnn", classes=5).output_shape
    (None, 5)
    """
    if name not in _BUILDERS:
        close = difflib.get_close_matches(str(name), names(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"`name` must be one of {', '.join(names())}, got {name!r}.{hint}")
    return _BUILDERS[name](**kwargs)
