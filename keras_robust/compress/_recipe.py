"""Stages run one after the other, each fine-tuned, checked and handed on."""

import dataclasses
import itertools
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tensorflow as tf

from keras_robust._checks import check_logit_model
from keras_robust._keras import LEGACY
from keras_robust.compress._binarize import Binarize, frozen_binary
from keras_robust.compress._cluster import Cluster
from keras_robust.compress._factorize import Factorize
from keras_robust.compress._flatten import flatten
from keras_robust.compress._graph import check_graph, replace
from keras_robust.compress._inputs import check_dataset, check_epochs, loss_for
from keras_robust.compress._kernels import kernels, rows
from keras_robust.compress._neurons import PruneNeurons
from keras_robust.compress._prune import Prune
from keras_robust.compress._quantize import Quantize
from keras_robust.compress._result import Result, Stage
from keras_robust.compress._scores import PruneByScores
from keras_robust.compress._seeds import seeded
from keras_robust.compress._separate import Separate
from keras_robust.compress._stage import Context
from keras_robust.compress._trainer import Trainers

# These make other layers of a model; the order among them is free.
_RESHAPING = (Separate, Factorize, PruneNeurons)
# These change the weights, and come after them in this order.
_PRUNING = (Prune, PruneByScores)
_ORDER = (*_PRUNING, Cluster, Binarize, Quantize)
_CALIBRATION_BATCHES = 8
# Ours to Keras's: 2 is a line an epoch there, and 1 a bar.
_FIT_VERBOSE = {0: 0, 1: 2, 2: 1}


@dataclass(frozen=True)
class Recipe:
    """Compresses a model in stages, each of which keeps what the ones before it made.

    First what changes the layers: `Separate`, `Factorize` and `PruneNeurons`, in any order. Then
    what changes the weights: `Prune` (or `PruneByScores`), `Cluster`, `Quantize`, as in Deep
    Compression (Han, Mao and Dally 2015, https://arxiv.org/abs/1510.00149); `Binarize` goes in
    the place of `Prune` and `Cluster`. Any of them may be left out. `Cluster` and `Quantize` are
    TF-MOT's and need tf_keras, the others run under either Keras.

    Args:
        stages: objects of these classes in this order, each class at most once.

    Raises:
        TypeError: something that is no stage.
        ValueError: no stage, one twice, or another order; it says what would be lost.

    >>> len(Recipe([Prune(0.9), Cluster(16), Quantize("int8")]).stages)
    3
    """

    stages: Sequence

    def __post_init__(self):
        known = (*_RESHAPING, *_ORDER)
        names = ", ".join(kind.__name__ for kind in known)
        if isinstance(self.stages, known):
            raise TypeError(f"`stages` must be a list, write Recipe([{self.stages!r}]).")
        stages = tuple(self.stages)
        if not stages:
            raise ValueError(f"`stages` is empty. Give at least one of {names}.")
        for stage in stages:
            if not isinstance(stage, known):
                hint = " Write Prune(0.9), not Prune." if stage in known else ""
                raise TypeError(f"`stages` takes objects of {names}, got {stage!r}.{hint}")
        for first, second in itertools.combinations(stages, 2):
            _check_order(type(first), type(second))
        if any(isinstance(s, Cluster) and s.per_channel for s in stages[:-1]):
            raise ValueError(
                "`stages` has Quantize after Cluster(per_channel=True), whose clusters TF-MOT's "
                "quantization does not keep: it knows one codebook a kernel. Leave one of the two "
                "out, or say per_channel=False."
            )
        object.__setattr__(self, "stages", stages)

    def run(
        self,
        model,
        train_ds: tf.data.Dataset,
        *,
        fine_tune: Callable | None = None,
        epochs: int | Sequence[int] = 2,
        validation_data: tf.data.Dataset | None = None,
        callbacks: Sequence = (),
        verbose: int = 1,
        seed: int = 0,
        optimizer=None,
        on_stage: Callable | None = None,
    ) -> Result:
        """Compresses a copy of `model`; `model` itself is left as it is.

        Args:
            model: a built Sequential or functional model that returns logits
                `(batch, classes)`; under tf_keras models inside it are flattened.
            train_ds: batches `(x, y)`: float `(batch, ...)` inputs, and integer labels
                `(batch,)` or label vectors `(batch, classes)`. It is read once an epoch.
            fine_tune: `m -> trainer`, a keras model that trains `m`, such as
                `lambda m: kr.AdversarialTraining(m, attack)`; None trains `m` itself. A
                trainer that is not compiled gets Adam (1e-4 to cluster, 3e-4 to quantize, else
                1e-3), cross-entropy from logits, and accuracy.
            epochs: epochs of fine-tuning, one number or one for each stage.
            validation_data: batches like `train_ds`'s, handed to `fit`.
            callbacks: Keras callbacks, handed to each stage's `fit`.
            verbose: 0 nothing, 1 a line a stage and one an epoch, 2 a progress bar.
            seed: of everything random here; with the same seed, and a data set that repeats
                itself, the result is the same.
            optimizer: what an uncompiled trainer is compiled with instead; copied for each
                stage.
            on_stage: called with each finished `Stage`, to save it before the next one runs.

        Returns:
            A `Result` with a model for each stage. A promise that was not kept (sparsity,
            number of clusters, zeros) is in the stage's `broken`, and warned of.

        Raises:
            TypeError, ValueError: an argument that does not fit, or a model of
                `freeze_binary`, whose weights would not stay binary; before any training.
        """
        each = check_epochs(epochs, len(self.stages))
        if verbose not in _FIT_VERBOSE:
            raise ValueError(f"`verbose` must be 0, 1 or 2, got {verbose!r}.")
        check_logit_model(model)
        make = Trainers(fine_tune, optimizer)
        with seeded(seed):
            flat = _own_copy(model)
            steps, first = check_dataset(train_ds, flat, "train_ds")
            if validation_data is not None:
                check_dataset(validation_data, flat, "validation_data")
            make = dataclasses.replace(make, loss=loss_for(first[1]))
            contexts = self._contexts(each, steps, train_ds, seed)
            self._check_stages(flat, contexts)
            for stage in self.stages:
                if getattr(stage, "until", None) is not None:
                    stage.until.check_logged(make, flat, validation_data)
            fit = {
                "validation_data": validation_data,
                "verbose": _FIT_VERBOSE[verbose],
                "shuffle": False,  # Keras 3 warns that it will not shuffle a dataset.
            }
            done = []
            for number, stage in enumerate(self.stages):
                say = _speaker(verbose, f"[{number + 1}/{len(self.stages)}] ")
                finished = _run_stage(
                    stage, contexts[number], flat, train_ds, make, fit, list(callbacks), say
                )
                done.append(finished)
                flat = finished.model
                if on_stage is not None:
                    on_stage(finished)
        return Result(original=model, stages=done)

    def _check_stages(self, model, contexts):
        """Raises before anything is trained; later stages see the layers that earlier ones make."""
        _check_binary(model, self.stages)
        for number, (stage, context) in enumerate(zip(self.stages, contexts, strict=True)):
            stage.check(model, context)
            if isinstance(stage, _RESHAPING) and number + 1 < len(self.stages):
                model = stage.wrap(model, context)

    def _contexts(self, epochs, steps, train_ds, seed) -> list[Context]:
        batches = train_ds.take(_CALIBRATION_BATCHES).map(lambda x, *_: x)
        contexts, sparse, clusters = [], False, None
        for stage, number in zip(self.stages, epochs, strict=True):
            contexts.append(Context(number, steps, batches, sparse, clusters, seed))
            sparse = sparse or isinstance(stage, _PRUNING)
            if isinstance(stage, Cluster):
                clusters = stage.most
            elif isinstance(stage, Binarize):
                clusters = 2
        return contexts


def _check_binary(model, stages) -> None:
    """Raises where kernels of two values would be trained apart."""
    if isinstance(stages[0], Binarize):
        return  # Trained as binary weights again.
    found = frozen_binary(model)
    kept = all(isinstance(s, Quantize) and "clusters" in (s.preserve or ()) for s in stages)
    if found and not kept:
        name, value = next(iter(found.items()))
        raise ValueError(
            f"`model` has binary weights in the layers {list(found)} (+{value:g} and -{value:g} in "
            f"{name!r}), as kr.compress.freeze_binary leaves them, and training would give them "
            "other values again. Let kr.compress.Binarize() be a stage of the recipe; or write "
            "the int8 file without one: kr.export.tflite(model, path, representative=x). "
            'Quantize(preserve=("clusters",)) on its own keeps two values a kernel.'
        )


def _run_stage(stage, context, model, train_ds, make, fit, callbacks, say) -> Stage:
    start = time.perf_counter()
    chosen = stage.check(model, context)
    say(f"{stage.verb}: {len(chosen)} layers, {context.epochs} x {context.steps} steps")
    before = kernels(model)
    wrapped = stage.wrap(model, context)
    trainer = make(wrapped, stage.learning_rate)
    history = trainer.fit(
        train_ds,
        epochs=context.epochs,
        callbacks=stage.callbacks(wrapped, context) + callbacks,
        **fit,
    )
    plain = stage.strip(wrapped, model)
    after = kernels(plain)
    broken = stage.broken(before, after, chosen, context)
    for sentence in broken:
        warnings.warn(f"{stage.name}: {sentence}", stacklevel=3)
    finished = Stage(
        name=stage.name,
        model=plain,
        history=dict(history.history),
        layers=rows(before, after),
        broken=broken,
        seconds=time.perf_counter() - start,
    )
    values = max(row["distinct_after"] for row in finished.layers)
    say(
        f"{stage.name}: sparsity {finished.sparsity:.3f}, at most {values:,} values a kernel, "
        f"{finished.seconds:.1f} s"
    )
    return finished


def _own_copy(model):
    """What the stages work on: flat for TF-MOT, which takes no models inside a model."""
    if LEGACY:
        return flatten(model)
    check_graph(model)
    return replace(model, lambda layer: None)


def _refusals() -> dict:
    """Why the second of two stages cannot follow the first."""
    mixed = "its kernels are computed from the old ones, and the {} would be lost"
    trained = "the training after it would make {} again"
    again = "it would choose zeros among the zeros of the first; give one of them the final share"
    why = {
        (Quantize, Cluster): "int8 is the last step; the centroids would be float again",
        (Prune, PruneByScores): again,
        (PruneByScores, Prune): again,
        (Cluster, PruneNeurons): trained.format("different values of the shared ones"),
        (Binarize, PruneNeurons): trained.format("real weights of the two values"),
        (Binarize, Cluster): "two values a kernel are a codebook of two already",
        (Cluster, Binarize): "its two values a kernel would take the place of the shared ones",
        (Quantize, Binarize): "int8 is the last step; the two values would be float again",
    }
    for kind in _PRUNING:
        why[Cluster, kind] = (
            "pruning would set clustered weights to zero and train the rest apart again"
        )
        why[Quantize, kind] = "int8 is the last step; the pruned weights would be float again"
        why[kind, PruneNeurons] = trained.format("weights of the zeros")
        why[Binarize, kind] = "zeros would be a third value, and take more bits than they save"
        why[kind, Binarize] = "binary weights have no zeros; leave out one of the two"
    for new in _RESHAPING:
        why[Quantize, new] = "int8 is the last step; it has no float layers left"
    for new in (Separate, Factorize):
        why[Cluster, new] = mixed.format("shared values")
        why[Binarize, new] = mixed.format("two values")
        why |= {(kind, new): mixed.format("zeros") for kind in _PRUNING}
    return why


def _check_order(first, second) -> None:
    if first is second:
        raise ValueError(
            f"`stages` has {first.__name__} twice. Give each stage once, with its final setting."
        )
    why = _refusals().get((first, second))
    if why is not None:
        raise ValueError(
            f"`stages` has {second.__name__} after {first.__name__}: {why}. The order is Separate, "
            "Factorize and PruneNeurons, then Prune or PruneByScores, then Cluster (or Binarize "
            "in the place of these), then Quantize."
        )


def _speaker(verbose, prefix):
    def say(text):
        if verbose:
            print(prefix + text, flush=True)

    return say
