"""What all checks of one artifact share: images, threat model, and the attacks already run."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_robust.attacks import PGD, Ascent, Ball, BlackBox, Square
from keras_robust.attacks._attack import LOSSES, call_logits
from keras_robust.evaluation._artifacts import KINDS, Artifact
from keras_robust.evaluation._run import predicted
from keras_robust.evaluation._sources import any_batch
from keras_robust.evaluation.diagnosis._finding import LeftOut

STEPS = 20
QUERIES = 300
# More than there are batches: no two starts share a seed.
_APART = 1_000_003


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """One artifact under examination.

    Attributes:
        artifact: what is examined.
        x: `(right, ...)` float32, the images that it classifies correctly when clean.
        y: `(right,)` int, their labels.
        images: how many there were with the misclassified ones: what shares are of.
        classes: number of logits.
        given: the attack that the report relies on; its eps, norm and bounds are used.
        seed: of the attacks, plus one for each batch.
        batch_size: images at a time.
    """

    artifact: Artifact
    x: np.ndarray
    y: np.ndarray
    images: int
    classes: int
    given: Callable
    seed: int
    batch_size: int
    _runs: dict = dataclasses.field(default_factory=dict)

    @property
    def model(self):
        """The TensorFlow callable that gradients are taken of, None when there is none."""
        return self.artifact.gradient_model

    def needs_gradient(self) -> None:
        """Raises `LeftOut` where there is none."""
        if self.model is None:
            raise LeftOut(
                f"A {KINDS[self.artifact.kind]} has no gradients"
                if self.remote
                else "No gradient reaches the input"
            )

    @property
    def remote(self) -> bool:
        """Whether there is nothing of TensorFlow to take gradients of."""
        return self.artifact.kind in ("tflite", "endpoint")

    @functools.cached_property
    def asked(self):
        """A TensorFlow callable of its logits, for attacks that need no gradient."""
        if self.model is None:
            return BlackBox(any_batch(self.artifact), self.classes)
        return self.model

    @property
    def ball(self) -> Ball:
        """The threat model of the attack given."""
        bounds = getattr(self.given, "bounds", (0.0, 1.0))
        return Ball(self.given.norm, self.given.eps, bounds)

    def pgd(self, **settings) -> PGD:
        """PGD in that threat model, climbing the loss of the attack given if it has one."""
        settings = {
            "eps": self.ball.eps,
            "norm": self.ball.norm,
            "bounds": self.ball.bounds,
            "steps": STEPS,
            "loss": self.loss,
            **settings,
        }
        return PGD(**settings)

    @property
    def loss(self):
        """What `pgd` climbs."""
        loss = self.given.loss if isinstance(self.given, Ascent) else "ce"
        return loss if callable(loss) or loss in LOSSES else "ce"

    def square(self, **settings) -> Square:
        """Square in that threat model: it asks for logits only."""
        settings = {
            "eps": self.ball.eps,
            "norm": self.ball.norm,
            "bounds": self.ball.bounds,
            "queries": QUERIES,
            **settings,
        }
        return Square(**settings)

    def broken(self, attack, model=None, start: int = 0) -> np.ndarray:
        """`(right,)` bool, the images that `attack` breaks; each attack runs once.

        Args:
            attack: any attack.
            model: what the examples are made on, to be tried on the artifact; default itself.
            start: number of the random start.
        """
        key = (attack, None if model is None else id(model), start)
        if key not in self._runs:
            own = self.model if attack.needs_gradient else self.asked
            seed = self.seed + start * _APART
            self._runs[key] = self._run(attack, own if model is None else model, seed)
        return self._runs[key]

    def _run(self, attack, model, seed):
        broken = np.zeros(len(self.y), bool)
        for index, (rows, count) in enumerate(self.batches()):
            x_adv = attack(model, self.x[rows], self.y[rows], seed=seed + index)
            broken[rows[:count]] = self.fooled(np.asarray(x_adv), rows)[:count]
        return broken

    def white_box(self) -> np.ndarray:
        """`(right,)` bool, the images that gradients broke in any run so far, within eps."""
        runs = [
            broken
            for (attack, made_on, _), broken in self._runs.items()
            if made_on is None and attack.eps <= self.ball.eps and attack.needs_gradient
        ]
        return np.logical_or.reduce([np.zeros(len(self.y), bool), *runs])

    def fooled(self, x, rows) -> np.ndarray:
        """Whether the artifact misses the labels of these rows at inputs `x`."""
        return predicted(self.artifact.predict(x)) != self.y[rows]

    def accuracy(self, broken) -> float:
        """Share of all images that are classified right and not `broken`."""
        return float((~broken).sum() / self.images)

    @property
    def size(self) -> int:
        """Rows of a batch; all batches have as many, so that each attack is traced once."""
        return min(self.batch_size, len(self.y))

    def batches(self):
        """Row numbers of each batch, the last filled up from the start, and how many are new."""
        for start in range(0, len(self.y), self.size):
            rows = np.arange(start, start + self.size) % len(self.y)
            yield rows, min(self.size, len(self.y) - start)

    def per_batch(self, function) -> list[np.ndarray]:
        """What `function(x, y)` returns of all rows, each of its results put together.

        Args:
            function: of tensors `(batch, ...)` and int32 `(batch,)`, to tensors `(batch, ...)`.
        """
        specs = [
            tf.TensorSpec((self.size, *self.x.shape[1:]), tf.float32),
            tf.TensorSpec((self.size,), tf.int32),
        ]
        traced = tf.function(function, autograph=False).get_concrete_function(*specs)
        parts = [
            [
                part.numpy()[:count]
                for part in traced(
                    tf.constant(self.x[rows]), tf.constant(self.y[rows].astype(np.int32))
                )
            ]
            for rows, count in self.batches()
        ]
        return [np.concatenate(column) for column in zip(*parts, strict=True)]

    @functools.cached_property
    def logits(self) -> np.ndarray:
        """`(right, classes)`, of the clean images."""
        logits = np.empty((len(self.y), self.classes), np.float32)
        for rows, count in self.batches():
            logits[rows[:count]] = self.artifact.predict(self.x[rows])[:count]
        return logits


def value_and_gradient(model, loss, x, y):
    """`loss(y, logits)` and its raw gradient by `x`, zeros where there is none."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(x)
        value = loss(y, call_logits(model, x))
    return value, tape.gradient(value, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)
