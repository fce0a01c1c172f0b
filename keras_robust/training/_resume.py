"""The state of training on disk after each epoch, and back."""

import json
import math
import os
import pathlib
import shutil
import warnings
import weakref
import zipfile

import numpy as np
import tensorflow as tf

from keras_robust._files import beside, check_writable
from keras_robust._keras import (
    NAME,
    drawn_late,
    iterators_per_epoch,
    keras,
    optimizer_variables,
    steps_taken,
    unsaved_randomness,
)
from keras_robust.distribute import is_chief, workers
from keras_robust.training._carried import Replicas
from keras_robust.training._choices import Choice
from keras_robust.training._data import shuffles_unseeded
from keras_robust.training._interrupt import CtrlC
from keras_robust.training._remembering import Remembering

# Datasets whose iterators have been drawn here: a seeded shuffle cannot be set back.
_DRAWN = weakref.WeakSet()


class Resume(keras.callbacks.Callback):
    """Keeps weights, optimizer and logs of the last whole epoch in `folder/state.npz`.

    After Ctrl-C inside an epoch, which waits for the step under way, the file holds the state of
    that very step. An epoch cut short in another way (kill -9, a power cut, Ctrl-C in the
    validation or among several workers) is repeated from its start. The file is written beside
    and renamed: whenever the process dies, the folder holds one whole state.

    Args:
        folder: created when missing; refused before training when it cannot be written.
        trainer: the compiled trainer.
        dataset: the `tf.data.Dataset` that `fit` is called with.
        callbacks: those of `fit`; the variables of those that remember are kept too.
    """

    def __init__(self, folder, trainer, dataset, callbacks=()):
        super().__init__()
        self._supports_tf_logs = True  # No batch waits for its logs.
        if not isinstance(folder, (str, os.PathLike)):
            raise TypeError(
                f"`resume` must be the path of a folder, got {folder!r}. Write resume='runs/1'."
            )
        if not isinstance(dataset, tf.data.Dataset):
            raise ValueError(
                f"`resume` needs `x` to be a tf.data.Dataset, got {type(dataset).__name__}: the "
                "order in which Keras shuffles arrays cannot be repeated. Use for instance "
                "tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=0).batch(128)."
            )
        self.trainer, self.dataset = trainer, dataset
        self.callbacks = [c for c in callbacks if isinstance(c, Remembering)]
        # As `fit` found it: a callback may change what is trained with.
        self.objective = repr(trainer.objective)
        self.path = pathlib.Path(folder) / "state.npz"
        # The number and the logs of each epoch done.
        self.epochs: list[tuple[int, dict]] = []
        # Batches done of the epoch that was interrupted, and its metrics until then.
        self.batches, self.metrics = 0, []
        # What the run took of what was "auto"; None for one that has just begun.
        self.choice = None
        # The optimizer's steps before the epoch under way; None between epochs.
        self.steps_before = None
        # The weights after an epoch that was gone on with.
        self._at_end = []
        # Batches since the epoch began, or was gone on with.
        self._seen = 0
        self._ctrl_c = CtrlC()
        self._replicas = None
        if shuffles_unseeded(dataset):
            warnings.warn(
                "`x` shuffles without a seed: after an interruption this run goes on, but in other "
                "orders and to other weights. Write for instance shuffle(len(x), seed=0).",
                stacklevel=4,
            )
        check_writable(self.path, "resume")
        if is_chief():
            self._make_room()
        for layer in unsaved_randomness(trainer.model):
            warnings.warn(
                f"Under tf_keras the random numbers of layer {layer!r} cannot be resumed: after an "
                "interruption this run goes on, but not to the very same weights. Keras 3 can.",
                stacklevel=4,
            )

    def _make_room(self):
        """Takes away what a killed process left, and looks whether two states fit beside it."""
        for left in self.path.parent.glob(f".{self.path.name}.*"):
            shutil.rmtree(left, ignore_errors=True)
        copies = 1 if self.path.exists() else 2  # Each is written beside the one before.
        trainer = self.trainer
        replicas = trainer.distribute_strategy.num_replicas_in_sync
        needed = sum(_bytes(v) for v in self._variables().values())
        needed += replicas * sum(_bytes(v) for v in trainer.carried_variables())
        needed *= copies
        free = shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise ValueError(
                f"`resume`: cannot write {str(self.path)!r}: the disk has {free:,} bytes left, and "
                f"the state of training takes {needed:,}, while a new one replaces the old."
            )

    @property
    def history(self) -> dict[str, list]:
        """The logs of every epoch, as in Keras's `History.history`."""
        names = dict.fromkeys(name for _, logs in self.epochs for name in logs)
        return {n: [logs[n] for _, logs in self.epochs if n in logs] for n in names}

    @property
    def numbers(self) -> list[int]:
        """The numbers of the epochs done, as in Keras's `History.epoch`."""
        return [number for number, _ in self.epochs]

    def restore(self) -> int:
        """Loads the state, if there is one; returns the number of the epoch to go on with."""
        # The first worker comes here when it has written what the run before this one left.
        self._check_together((0, 0))
        found = self._read()
        # Before anything is assigned, which may be done by all workers together.
        self._check_together((found[1]["next"], found[1]["batches"]) if found else (0, 0))
        return self._take(*found) if found else 0

    def _check_together(self, place):
        """Raises unless all workers go on at the same epoch and batch; all must call it."""
        strategy = self.trainer.distribute_strategy
        if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return

        def gather():
            own = tf.constant([place], tf.int64)
            return tf.distribute.get_replica_context().all_gather(own, axis=0)

        places = tf.function(lambda: strategy.run(gather), autograph=False)()
        places = strategy.experimental_local_results(places)[0].numpy()
        if (places != places[0]).any():
            raise ValueError(
                "`resume` must be a folder that all workers share, got one from which they would "
                f"go on at other (epoch, batch): {np.unique(places, axis=0).tolist()}."
            )

    def _read(self):
        """The arrays kept and what was said of them; None where nothing was kept."""
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as file:
                state = {name: file[name] for name in file.files}
            meta = json.loads(str(state.pop("meta")))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{self.path} is not a training state: {error}. Delete it to start anew."
            ) from None
        if meta["run"] != self._run():
            raise ValueError(
                f"{self.path} belongs to another run: it was {meta['run']}, this is "
                f"{self._run()}. Give `resume` another folder, or delete that file."
            )
        self._check_same(state, self._variables())
        return state, meta

    def _take(self, state, meta) -> int:
        """Puts what was read in its place; the number of the epoch to go on with."""
        variables = self._variables()
        for place, variable in variables.items():
            variable.assign(state[place])
        carried = [state[name] for name in state if name.startswith("objective_")]
        self._carried().assign(carried)
        self.epochs = [(number, logs) for number, logs in meta["epochs"]]
        self.batches, self.choice = meta["batches"], Choice(*meta["choice"])
        self.metrics = [state[f"metric_{i}"] for i in range(meta["metrics"])]
        if self.dataset in _DRAWN and (self.epochs or self.batches):
            warnings.warn(
                "`x` has been trained on with `resume` in this process before. If it shuffles, its "
                "next orders are others than those of a run without interruption: to train the "
                "very same weights make the dataset anew before `fit`.",
                stacklevel=5,
            )
        # A seeded shuffle draws a new order for each iterator: skip those already used.
        for _ in range(iterators_per_epoch(self.dataset) * len(self.epochs)):
            next(iter(self.dataset))
        return meta["next"]

    def _check_same(self, state, variables):
        """Raises unless `state` holds just these variables."""
        wanted = {place: tuple(variable.shape) for place, variable in variables.items()}
        kept = {
            place: value.shape
            for place, value in state.items()
            if not place.startswith(("objective_", "metric_"))
        }
        if kept != wanted:
            changed = sorted({*kept.items()} ^ {*wanted.items()})[0][0]
            was, now = (shapes.get(changed, "not there") for shapes in (kept, wanted))
            raise ValueError(
                f"{self.path} belongs to another run: {changed!r} is {was} in it and {now} now. "
                "The optimizer's settings or the callbacks have changed. Give `resume` another "
                "folder, or delete that file."
            )

    def run(self, fit, *, epochs: int, initial_epoch: int, **settings):
        """Calls `fit`, without the batches that an interrupted epoch has seen already.

        Args:
            fit: takes the dataset and what else `keras.Model.fit` takes.
            epochs, initial_epoch: as for `fit`; the second is what `restore` returned.
            **settings: passed on.

        Returns:
            What `fit` returns.
        """
        _DRAWN.add(self.dataset)
        try:
            with self._ctrl_c.held_back(self._in_epoch):
                if self.batches and initial_epoch < epochs:
                    rest = drawn_late(self.dataset.skip(self.batches))
                    end = initial_epoch + 1
                    history = fit(rest, epochs=end, initial_epoch=initial_epoch, **settings)
                    if end == epochs or self.trainer.stop_training:
                        return history
                    # Keras has ended a run, for which some optimizers put an average into the
                    # model, and callbacks may do the like; this one goes on.
                    for variable, value in zip(self._trained(), self._at_end, strict=True):
                        variable.assign(value)
                    initial_epoch = end
                whole = drawn_late(self.dataset)
                return fit(whole, epochs=epochs, initial_epoch=initial_epoch, **settings)
        except KeyboardInterrupt:
            self._keep_interrupted()
            raise

    def on_train_batch_begin(self, batch, logs=None):
        # Not at the end of a batch, which may be the epoch's last: that one's end is kept whole.
        self._ctrl_c.act()

    def on_train_batch_end(self, batch, logs=None):
        self._seen = batch + 1

    def on_epoch_begin(self, epoch, logs=None):
        self._seen = 0
        self.epoch, self.steps_before = epoch, int(steps_taken(self.trainer)) - self._steps()
        for variable, value in zip(self._metric_variables(), self.metrics):
            variable.assign(value)
        self.metrics = []

    def on_test_begin(self, logs=None):
        self.steps_before = None  # The metrics of the epoch are about to be reset.

    def on_epoch_end(self, epoch, logs=None):
        logs = {name: float(value) for name, value in (logs or {}).items()}
        self.epochs.append((epoch, logs))
        if self.batches:  # The first of two calls of `fit`.
            self._at_end = [tf.convert_to_tensor(variable) for variable in self._trained()]
        self.batches, self.steps_before = 0, None
        self._write(next=epoch + 1)
        self._ctrl_c.act()

    def _steps(self) -> int:
        """Steps of the optimizer in the batches that the epoch has had."""
        return self.batches * self.trainer.objective.replays

    def _in_epoch(self) -> bool:
        """Whether the step under way is worth waiting for."""
        return self.steps_before is not None and not workers()

    def _keep_interrupted(self):
        evidence = self.trainer.evidence
        if not self._in_epoch() or (evidence is not None and evidence.collect() is not None):
            return  # Nor is a state worth keeping whose loss is no number.
        taken = int(steps_taken(self.trainer)) - self.steps_before
        # The optimizer does not count steps whose gradients overflowed in half precision, and the
        # one under way may be done without having been seen here, if it was not waited for.
        seen = self.batches + self._seen
        self.batches = max(taken // self.trainer.objective.replays, seen)
        if self.batches > seen and self.callbacks:
            return  # Nor have they seen it.
        if self.batches and not self._epoch_is_over():
            metrics = [variable.numpy() for variable in self._metric_variables()]
            self._write(next=self.epoch, metrics=metrics)

    def _epoch_is_over(self) -> bool:
        """Whether no batch is left, with which another `fit` could go on."""
        count = int(self.dataset.cardinality())
        if count < 0:
            return next(iter(self.dataset.skip(self.batches)), None) is None
        return self.batches >= count

    def _trained(self):
        return self.trainer.model.trainable_variables

    def _metric_variables(self):
        return [variable for metric in self.trainer.metrics for variable in metric.variables]

    def _write(self, next, metrics=()):
        variables = self._variables().items()
        # Not np.asarray, which a variable mirrored over several devices does not take.
        arrays = {place: tf.convert_to_tensor(value).numpy() for place, value in variables}
        arrays |= {f"objective_{i}": value for i, value in enumerate(self._carried().values())}
        arrays |= {f"metric_{i}": value for i, value in enumerate(metrics)}
        meta = json.dumps(
            {
                "run": self._run(),
                "epochs": self.epochs,
                "next": next,
                "batches": self.batches,
                "metrics": len(metrics),
                "choice": self.trainer.choice,
            }
        )
        if not is_chief():
            return
        with beside(self.path) as path:
            np.savez(path, meta=meta, **arrays)

    def _run(self) -> dict:
        """What must be equal for the states to be of one run."""
        trainer = self.trainer
        shapes = [list(variable.shape) for variable in trainer.model.variables]
        replicas = trainer.distribute_strategy.num_replicas_in_sync
        # Only what each replica carries on depends on how many there are.
        split = {"replicas": replicas} if replicas > 1 and trainer.carried_variables() else {}
        return split | {
            "keras": NAME.split()[0],
            "attack": repr(trainer.attack),
            "objective": self.objective,
            "eps_ramp": repr(trainer.eps_ramp),
            "seed": trainer.seed,
            "attack_dtype": trainer.attack_dtype,
            "accumulate": trainer.accumulate,
            "optimizer": type(trainer.optimizer).__name__,
            "shapes": shapes,
        }

    def _carried(self) -> Replicas:
        """What each replica carries from step to step, those of other workers too."""
        if self._replicas is None:
            trainer = self.trainer
            self._replicas = Replicas(trainer.distribute_strategy, trainer.carried_variables())
        return self._replicas

    def _variables(self) -> dict:
        trainer = self.trainer
        named = {f"model_{i}": v for i, v in enumerate(trainer.model.variables)}
        optimizer = optimizer_variables(trainer.optimizer)
        named |= {f"optimizer_{i}": v for i, v in enumerate(optimizer)}
        for number, callback in enumerate(self.callbacks):
            own = callback.variables_for(trainer)
            named |= {f"callback_{number}_{i}": v for i, v in enumerate(own)}
        return named


def _bytes(variable) -> int:
    return tf.as_dtype(variable.dtype).size * math.prod(variable.shape)
