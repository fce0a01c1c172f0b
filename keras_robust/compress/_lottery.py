"""Lottery tickets: small nets that learn as well as the whole one, from its own first weights."""

from dataclasses import dataclass

import numpy as np

from keras_robust._checks import check_logit_model
from keras_robust.compress._iterations import Snapshot, Trained, train_iterations
from keras_robust.compress._logged import described, measured
from keras_robust.compress._lottery_files import Folder
from keras_robust.compress._masks import (
    check_copied,
    copy_of,
    find_kernels,
    fresh_copy,
    put_masks,
)
from keras_robust.compress._prune_checks import check_choice
from keras_robust.compress._seeds import seeded
from keras_robust.compress._stage import check_factored, freeze_layers
from keras_robust.compress._trainer import Trainers, check_share, check_whole, trainers_for


@dataclass(frozen=True)
class Round:
    """One round of `find_ticket`.

    Attributes:
        number: 0 is the whole net.
        remaining: share of the kernels' weights that this round trained, P_m.
        kept: weights kept and weights of each kernel, by layer.
        masks: bool, by layer.
        trained: what training them came to, a `Trained`; its `iteration` is the early stop.
    """

    number: int
    remaining: float
    kept: dict
    masks: dict
    trained: Trained

    @property
    def iteration(self) -> int:
        """The iteration of the best validation."""
        return self.trained.iteration


@dataclass(frozen=True)
class LotteryTickets:
    """What `find_ticket` returns: a `Round` for each sparsity, and how to train more like them.

    Attributes:
        model: a copy of the model given, with the weights that tickets are rewound to.
        rounds: from the whole net on.
        settings: of the training.
    """

    model: object
    rounds: tuple
    settings: dict
    training: "Training"

    def ticket(self, number: int):
        """The ticket of a round: the first weights, those pruned zero and staying so."""
        return self.training.masked(copy_of(self.model), self.rounds[number].masks)

    def trained(self, number: int):
        """The model of a round with the weights of its early stop."""
        model = self.ticket(number)
        model.set_weights(self.rounds[number].trained.weights)
        return model

    def control(self, number: int, seed: int = 1) -> Round:
        """The same masks with new first weights, trained in the same way.

        If it does as well as the ticket, the masks alone made the difference.
        """
        masks = self.rounds[number].masks
        with self.training.seeded(1000 * seed + number):
            model = self.training.masked(fresh_copy(self.model, seed), masks)
        trained = self.training.run(model, 1000 * seed + number)
        return _round(number, masks, trained)

    def summary(self) -> str:
        """A line a round, to print: share left, early stop, what validation said there."""
        names = sorted(name for name in self.rounds[0].trained.at_best if name.startswith("val_"))
        lines = ["  ".join(["round", "remaining %", "early stop", *names])]
        for row in self.rounds:
            cells = [f"{row.number:5d}", f"{100 * row.remaining:11.1f}", f"{row.iteration:10d}"]
            cells += [f"{row.trained.at_best[name]:{len(name)}.4f}" for name in names]
            lines.append("  ".join(cells))
        return "\n".join(lines)


@dataclass(frozen=True)
class Training:
    """How each round trains: the same for tickets and controls."""

    make: Trainers
    train_ds: object
    validation_data: object
    iterations: int
    every: int
    monitor: str
    seed: int

    def seeded(self, number: int):
        """For making the model too: Keras 3's Dropout draws its seed when it is made."""
        return seeded(self.seed + number)

    def run(self, model, number: int, callbacks=()) -> Trained:
        with self.seeded(number):
            return train_iterations(
                self.make(model),
                model,
                self.train_ds,
                self.validation_data,
                iterations=self.iterations,
                every=self.every,
                monitor=self.monitor,
                callbacks=callbacks,
            )

    @staticmethod
    def masked(model, masks):
        put_masks(model, masks)
        return model


def find_ticket(
    model,
    train_ds,
    validation_data,
    *,
    iterations: int,
    rounds: int = 15,
    every: int = 100,
    rate=0.2,
    output_rate: float | None = None,
    rewind: int = 0,
    scope: str = "layer",
    layers=None,
    fine_tune=None,
    optimizer=None,
    monitor: str = "val_loss",
    folder=None,
    verbose: int = 1,
    seed: int = 0,
) -> LotteryTickets:
    """Looks for a lottery ticket by pruning in rounds, each from the first weights again.

    Frankle and Carbin 2019, https://arxiv.org/abs/1803.03635: train; remove the smallest of the
    weights left; set the others back to what they were before the training; repeat. Biases stay.
    Robust tickets train with `fine_tune=lambda m: kr.AdversarialTraining(m, attack)`. Works in
    either Keras, and leaves `model` as it is.

    Args:
        model: a built Sequential or functional model that returns logits, not trained yet.
        train_ds, validation_data: `tf.data.Dataset` of (x, y) batches.
        iterations: training steps of each round (the paper: 50,000 of 60 images).
        rounds: of pruning, after round 0 with all weights.
        every: training steps from one validation to the next.
        rate: share of a kernel's weights left that a round removes, in (0, 1), rounded; or a
            dict of rates by layer.
        output_rate: that of the last kernel, in [0, 1); None for half of `rate`, 0 spares it.
        rewind: 0 for the weights given, or the step of the first training to go back to: deep
            nets need some hundreds or thousands.
        scope: "layer": each kernel loses its own smallest; "global": the hidden kernels together
            lose `rate` of theirs, as the paper prunes deep nets, the last its `output_rate`.
        layers: names, or a function layer -> bool; None for every convolution (but depthwise
            ones) and Dense.
        fine_tune: `m -> trainer`, None trains `m` itself. One that is not compiled gets
            Adam(1e-3), cross-entropy from logits, and accuracy.
        optimizer: what an uncompiled trainer gets instead; copied for each round.
        monitor: the logged number that early stopping would have looked at.
        folder: where rounds are kept as they end; those there are not trained again, and a
            search with other settings, trainer or optimizer is refused. The order in which a
            shuffled `train_ds` gives its images is then another one.
        verbose: 0 nothing, 1 a line a round.
        seed: of everything random here.

    Returns:
        `LotteryTickets`.

    Raises:
        TypeError, ValueError: an argument that does not fit, or a folder of other settings.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5), keras.layers.Dense(3)])
    >>> x = np.random.default_rng(0).uniform(size=(60, 4)).astype("float32")
    >>> data = tf.data.Dataset.from_tensor_slices((x, np.argmax(x[:, :3], 1))).batch(20)
    >>> tickets = find_ticket(model, data, data, iterations=6, every=3, rounds=1, verbose=0)
    >>> [tickets.rounds[1].kept[name] for name in tickets.rounds[1].kept]
    [(16, 20), (13, 15)]
    """
    for name, value in (("iterations", iterations), ("every", every)):
        check_whole(name, value, 1)
    check_whole("rounds", rounds, 0)
    check_whole("rewind", rewind, 0)
    check_choice("scope", scope, ("layer", "global"))
    if iterations % every:
        raise ValueError(f"`iterations` must be a multiple of every={every}, got {iterations}.")
    if rewind >= iterations:
        raise ValueError(f"`rewind` must be below iterations={iterations}, got {rewind}.")
    check_logit_model(model)
    check_copied(model)
    check_factored(model, freeze_layers(layers), "find_ticket", "prune")
    with seeded(seed):
        start = copy_of(model)
    names = list(find_kernels(start, layers))
    rates = layer_rates(names, rate, output_rate, scope)
    settings = dict(
        iterations=iterations, every=every, rates=rates, rewind=rewind, scope=scope,
        monitor=monitor, seed=seed,
    )  # fmt: skip
    make = trainers_for(train_ds, validation_data, fine_tune, optimizer)
    training = Training(make, train_ds, validation_data, iterations, every, monitor, seed)
    with seeded(seed):
        trainer = make(copy_of(start))
        _check_monitor(trainer, validation_data, monitor)
    files = Folder(folder, settings | described(trainer), start.get_weights())
    masks = {name: np.ones(tuple(v.shape), bool) for name, v in find_kernels(start, names).items()}
    done = []
    for number in range(rounds + 1):
        trained, rewound = files.load(number), None
        if trained is None:
            trained, rewound = _train(training, start, masks, number, rewind)
            files.save(number, trained, rewound)
        elif number == 0:
            rewound = files.rewound()
        if rewound is not None:
            start.set_weights(rewound)
        done.append(_round(number, masks, trained))
        if verbose:
            print(_line(done[-1], monitor), flush=True)
        masks = _smaller(start, masks, trained.last_weights, rates, scope)
    return LotteryTickets(start, tuple(done), settings, training)


def _check_monitor(trainer, validation_data, monitor):
    names = measured(trainer, validation_data)
    names += [f"val_{name}" for name in names]
    # What a trainer logs of its training alone is known after a first step only.
    known = isinstance(monitor, str) and (monitor in names or not monitor.startswith("val_"))
    if not known:
        raise ValueError(f"`monitor` must be one of {sorted(names)}, got {monitor!r}.")


def _train(training, start, masks, number, rewind):
    with training.seeded(number):
        model = training.masked(copy_of(start), masks)
    snapshot = Snapshot(model, rewind)
    trained = training.run(model, number, [snapshot] if rewind and number == 0 else ())
    return trained, snapshot.weights


def _round(number, masks, trained) -> Round:
    kept = {name: (int(mask.sum()), int(mask.size)) for name, mask in masks.items()}
    remaining = sum(left for left, _ in kept.values()) / sum(size for _, size in kept.values())
    return Round(number, remaining, kept, dict(masks), trained)


def _smaller(model, masks, weights, rates, scope) -> dict:
    """The masks of the next round, by the weights at the end of this one's training."""
    places = {id(variable): place for place, variable in enumerate(model.weights)}
    kernels = find_kernels(model, list(masks))
    values = {name: weights[places[id(kernel)]] for name, kernel in kernels.items()}
    return prune_more(masks, values, rates, scope)


def prune_more(masks: dict, values: dict, rates: dict, scope: str = "layer") -> dict:
    """Masks that keep all but the smallest of the weights left: `round(rate * left)` fewer.

    Args:
        masks: bool, by layer.
        values: the kernels, by layer.
        rates: share of the weights left that each layer loses; with `scope` "global" all but
            the last layer share the first one's.
    """
    if scope == "layer" or len(masks) == 1:
        return {name: _cut(masks[name], values[name], rates[name]) for name in masks}
    *hidden, last = masks
    flat = _cut(
        np.concatenate([masks[name].ravel() for name in hidden]),
        np.concatenate([values[name].ravel() for name in hidden]),
        rates[hidden[0]],
    )
    ends = np.cumsum([masks[name].size for name in hidden])[:-1]
    parts = zip(hidden, np.split(flat, ends))
    smaller = {name: part.reshape(masks[name].shape) for name, part in parts}
    return {**smaller, last: _cut(masks[last], values[last], rates[last])}


def _cut(mask, values, rate):
    left = int(mask.sum())
    count = min(round(rate * left), left - 1)
    # What is gone comes first, before even a weight left that is zero.
    order = np.argsort(np.where(mask, np.abs(values), -1.0), axis=None, kind="stable")
    smaller = np.array(mask)
    smaller.ravel()[order[: mask.size - left + count]] = False
    return smaller


def layer_rates(names, rate, output_rate, scope) -> dict:
    """The share of its weights left that each layer loses in a round."""
    if isinstance(rate, dict):
        if scope == "global":
            raise ValueError("`rate` must be one number with scope='global', got a dict.")
        if sorted(rate) != sorted(names) or output_rate is not None:
            raise ValueError(
                f"`rate` must name every layer to prune, {names}, and `output_rate` be left out, "
                f"got {rate} and {output_rate}."
            )
        return {name: check_share(f"rate[{name!r}]", rate[name]) for name in names}
    check_share("rate", rate)
    output_rate = rate / 2 if output_rate is None else check_share("output_rate", output_rate, -1)
    if output_rate < 0:
        raise ValueError(f"`output_rate` must be in [0, 1), got {output_rate}.")
    return {name: float(rate) for name in names[:-1]} | {names[-1]: float(output_rate)}


def _line(row, monitor) -> str:
    accuracy = row.trained.at_best.get("val_accuracy")
    robust = row.trained.at_best.get("val_robust_accuracy")
    parts = [f"round {row.number}: {100 * row.remaining:.1f}% left, best at {row.iteration}"]
    parts.append(f"{monitor} {row.trained.at_best[monitor]:.4f}")
    parts += [] if accuracy is None else [f"accuracy {accuracy:.4f}"]
    parts += [] if robust is None else [f"robust {robust:.4f}"]
    return ", ".join(parts)
