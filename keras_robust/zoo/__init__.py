"""Built-in models: logits out, normalisation inside, images in [0, 1]."""

from keras_robust.zoo._build import build, names
from keras_robust.zoo._lenet import lenet5, lenet_300_100
from keras_robust.zoo._mobilenet import mobilenet
from keras_robust.zoo._resnet import resnet18, resnet50
from keras_robust.zoo._shufflenet import shufflenet
from keras_robust.zoo._small_cnn import small_cnn
from keras_robust.zoo._squeezenet import squeezenet
from keras_robust.zoo._vgg import vgg19

__all__ = [
    "build",
    "lenet5",
    "lenet_300_100",
    "mobilenet",
    "names",
    "resnet18",
    "resnet50",
    "shufflenet",
    "small_cnn",
    "squeezenet",
    "vgg19",
]
