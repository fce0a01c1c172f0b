"""AutoAttack: four attacks that fail in different ways, one after the other."""

import dataclasses
import functools

import tensorflow as tf

from keras_robust import losses
from keras_robust._seed import fold
from keras_robust.attacks._apgd import APGD
from keras_robust.attacks._attack import Attack, call_logits, make_goal, settle
from keras_robust.attacks._fab import FAB
from keras_robust.attacks._square import Square
from keras_robust.attacks._threat import beyond_range, check_finite

VERSIONS = ("standard", "rand")
_EOT = 20


@dataclasses.dataclass(frozen=True)
class AutoAttack(Attack):
    """The ensemble of Croce and Hein 2020, https://arxiv.org/abs/2003.01690, nothing to tune.

    Each attack sees only the rows that the ones before left standing. The budgets are those of
    the authors' implementation; for l1 those of Croce and Hein 2021,
    https://arxiv.org/abs/2103.01208.

    Returns for each row an example that fools the model, or, where none was found, the one
    with the highest cross-entropy.

    Attributes:
        eps: radius in the units of the inputs.
        norm: "linf", "l2" or "l1".
        version: "standard", or "rand" for models with random numbers inside: gradients are the
            mean of 20 calls, and a row falls when most of 20 calls are wrong.
        bounds: range of valid inputs.

    Raises:
        ValueError: a setting out of its range.

    >>> list(AutoAttack(eps=0.1).stages(classes=10))
    ['APGD-CE', 'APGD-T', 'FAB-T', 'Square']
    """

    eps: float
    norm: str = "linf"
    version: str = "standard"
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self):
        settle(self)
        if self.version not in VERSIONS:
            raise ValueError(
                f"`version` must be one of {', '.join(map(repr, VERSIONS))}, got "
                f"version={self.version!r}."
            )
        if self.norm == "l1" and self.version == "standard":  # for FAB
            check_finite(self)

    @property
    def _channels_last(self):
        return self.version == "standard"  # which ends in Square

    @property
    def name(self):
        parts = ["AutoAttack"] + ([self.norm] if self.norm != "linf" else [])
        return " ".join(parts + ([self.version] if self.version != "standard" else []))

    def stages(self, classes: int) -> dict[str, Attack]:
        """The attacks in their order, by name.

        Targeted attacks go for all wrong classes when there are fewer than their budget says.
        The targeted DLR needs 4 classes and the plain one 3: with fewer the margin takes their
        place, which is the same without the denominator.

        Args:
            classes: logits of the model, at least 2.
        """
        with beyond_range():
            return self._stages(classes)

    def _stages(self, classes):
        threat = {"eps": self.eps, "norm": self.norm, "bounds": self.bounds}
        if self.version == "rand":
            loss, name = ("dlr", "APGD-DLR") if classes >= 3 else ("margin", "APGD-MARGIN")
            return {
                "APGD-CE": APGD(**threat, loss="ce", eot=_EOT),
                name: APGD(**threat, loss=loss, eot=_EOT),
            }
        restarts, targets = (5, 5) if self.norm == "l1" else (1, 9)
        loss = "dlr" if classes >= 4 else "margin"
        return {
            "APGD-CE": APGD(**threat, loss="ce", restarts=restarts),
            "APGD-T": APGD(**threat, loss=loss, targets=min(targets, classes - 1)),
            "FAB-T": FAB(**threat, targets=min(9, classes - 1)),
            "Square": Square(**threat, queries=5000),
        }

    def run(self, model, x, y, seed, eps):
        classes = call_logits(model, x[:1]).shape[-1]

        def attacked(number, stage, x_adv, standing):
            rows = tf.where(standing)[:, 0]
            ours, labels = tf.gather(x, rows), tf.gather(y, rows)
            found = stage.run(model, ours, labels, fold(seed, number), eps)
            fooled = self._fools(model, found, labels)
            # The first leaves strong examples even where it fails.
            kept = fooled | (number == 0)
            return (
                tf.tensor_scatter_nd_update(x_adv, rows[kept][:, None], found[kept]),
                tf.tensor_scatter_nd_update(standing, rows[:, None], ~fooled),
            )

        state = x, tf.ones(tf.shape(x)[:1], tf.bool)
        for number, stage in enumerate(self.stages(classes).values()):
            state = tf.cond(
                tf.reduce_any(state[1]),
                functools.partial(attacked, number, stage, *state),
                functools.partial(tuple, state),
            )
        return state[0]

    def _fools(self, model, x_adv, y) -> tf.Tensor:
        calls = _EOT if self.version == "rand" else 1
        return make_goal(model, y, losses.margin, eot=calls)(x_adv).fooled
