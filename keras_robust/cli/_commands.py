"""What each command does with its options, through the public functions."""

import dataclasses
import pathlib
import sys
import tempfile
import warnings

import tensorflow as tf

import keras_robust as kr
from keras_robust import bridge
from keras_robust._files import beside, check_writable
from keras_robust._keras import keras
from keras_robust.cli._demo import run_demo
from keras_robust.cli._progress import EpochLines, say


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command prints: `facts` with --json, else `text`."""

    facts: dict
    text: str


def demo(options) -> Result:
    """The main job on the embedded images."""
    report, page, seconds = run_demo(options.report, options.seed, options.quick, say)
    text = f"{report.table()}\n\n{seconds:.0f} seconds. The report: {page}"
    return Result(report.to_dict(), text)


def launch(options, arguments) -> int:
    """Runs the command as `--workers` processes, of which the first prints the result."""
    _check_train(options)
    if options.strategy not in ("auto", "multi_worker"):
        raise ValueError(
            f"--strategy {options.strategy} is for one process, and --workers {options.workers} "
            "starts several. Leave one of the two out."
        )
    if options.xla == "on" and not tf.config.list_physical_devices("GPU"):
        raise ValueError(
            f"--xla on cannot be had with --workers {options.workers} on CPUs: XLA does not "
            "compile what they exchange. Leave --xla out."
        )
    if options.resume is None:
        say("Without --resume the workers start from nothing when one of them dies.")
    command = [sys.executable, "-m", "keras_robust.cli", *arguments]
    return kr.distribute.launch(command, options.workers, say=say)


def train(options) -> Result:
    """Trains a new or given model and saves it."""
    _check_train(options)
    with kr.distribute.strategy(options.strategy).scope():
        return _train(options)


def _check_train(options):
    if options.out.suffix != ".keras":
        raise ValueError(f"--out must end in .keras, got {str(options.out)!r}.")
    check_writable(options.out, "--out")
    if options.resume:
        check_writable(options.resume / "state.npz", "--resume")
    if options.beta is not None and options.objective not in ("trades", "mart"):
        raise ValueError(
            f"--beta is of trades and mart, got --objective {options.objective}. Leave one out."
        )


def _train(options):
    data = _load(options)
    model = _model(options.model, data, options.seed)
    attack = _pgd(options)
    natural = options.objective == "natural"
    steps = len(data.train)
    trainer = kr.AdversarialTraining(
        model,
        kr.attacks.FGSM(eps=0.0) if natural else attack,
        objective=_objective(options),
        eps_ramp=kr.training.Ramp(steps=max(1, 2 * steps)),
        validation_attack=attack,
        attack_dtype=None if options.attack_dtype == "float32" else options.attack_dtype,
        seed=options.seed,
    )
    schedule = keras.optimizers.schedules.CosineDecay(options.learning_rate, options.epochs * steps)
    jit_compile = {"auto": "auto", "on": True, "off": False}[options.xla]
    trainer.compile(keras.optimizers.Adam(schedule), metrics=["accuracy"], jit_compile=jit_compile)
    chief = kr.distribute.is_chief()
    history = trainer.fit(
        kr.distribute.shard_by_example(data.train),
        validation_data=kr.distribute.shard_by_example(data.test),
        epochs=options.epochs,
        resume=options.resume,
        verbose=0,
        callbacks=[EpochLines(options.epochs, say)] if chief else [],
    )
    if chief:
        _save(model, options.out)
    else:  # Reading the variables may need every worker.
        with tempfile.TemporaryDirectory() as folder:
            _save(model, pathlib.Path(folder) / options.out.name)
    last = {name: values[-1] for name, values in history.history.items()}
    text = (
        f"{options.out}: clean accuracy {last['val_accuracy']:.1%}, {attack.name} at "
        f"{options.norm} eps {options.eps:g} {last['val_robust_accuracy']:.1%}"
    )
    return Result({"model": str(options.out), "history": history.history}, text)


def _objective(options):
    o = kr.objectives
    kinds = {"natural": o.Madry, "madry": o.Madry, "alp": o.ALP, "awp": o.AWP, "mixed": o.Mixed}
    kinds |= {"trades": o.TRADES, "mart": o.MART}
    kind = kinds[options.objective]
    return kind() if options.beta is None else kind(beta=options.beta)


def evaluate(options) -> Result:
    """Attacks models and files on the test images."""
    if options.report:
        check_writable(options.report / "report.html", "--report")
    artifacts, attacks = _artifacts(options.artifacts), _attacks(options)
    data = _load(options, training=False)
    for name, value in artifacts.items():
        if isinstance(value, pathlib.Path) and value.suffix in (".keras", ".h5"):
            artifacts[name] = _load_model(value, data)
    x, y = kr.data.arrays(data.test, options.images)
    report = kr.evaluate(
        artifacts,
        x,
        y,
        attacks=attacks,
        black_box=not options.no_black_box,
        diagnose=options.diagnose,
        corruptions=options.corruptions,
        journal=options.journal,
        seed=options.seed,
        class_names=data.class_names,
        progress=say,
    )
    text = report.table()
    if options.report:
        text += f"\n\nThe report: {report.save(options.report)}"
    return Result(report.to_dict(), text)


def compress(options) -> Result:
    """Runs a recipe and writes each stage's model and the .tflite file."""
    stages = [kr.compress.Factorize(budget=options.factorize)] if options.factorize else []
    stages += [kr.compress.PruneNeurons(options.neurons)] if options.neurons else []
    if options.binarize:
        stages += [kr.compress.Binarize()]
    else:
        stages += [kr.compress.Prune(options.prune)] if options.prune else []
        stages += [kr.compress.Cluster(options.cluster)] if options.cluster else []
    stages += [] if options.no_quantize else [kr.compress.Quantize("int8")]
    recipe = kr.compress.Recipe(stages)
    _check_own_data(options, "it is fine-tuned on them")
    check_writable(options.out / "model.tflite", "--out")
    data = _load(options)
    model = _model(options.model, data, options.seed)
    attack = _pgd(options)
    result = recipe.run(
        model,
        data.train,
        fine_tune=lambda m: kr.AdversarialTraining(m, attack, seed=options.seed),
        epochs=options.epochs,
        seed=options.seed,
        verbose=1 if not options.json else 0,
    )
    files = {}
    for stage in result.stages:
        # TF-MOT's layers do not come back from a .keras file.
        suffix = ".h5" if stage.name == "quantized" else ".keras"
        files[stage.name] = str(_save(stage.model, options.out / f"{stage.name}{suffix}"))
    x, _ = kr.data.arrays(data.test, 500)
    exported = kr.export.tflite(result.model, options.out / "model.tflite", check=x)
    files["tflite"] = str(exported.path)
    text = f"{result.summary()}\n\n{exported}\nWritten to {options.out}: {', '.join(files)}"
    return Result({**result.to_dict(), "files": files}, text)


def export(options) -> Result:
    """Writes one file or SavedModel, checked against the model."""
    calibrated = options.format in ("int8", "int16x8")
    if calibrated:
        _check_own_data(options, f"{options.format} is calibrated on them")
    foreign = _of_unknown_data(options)
    if foreign:
        say("Without --data: no class names are written, and the check is on embedded images.")
    data = _load(options, training=False)
    model = _model(options.model, data, options.seed)
    class_names = None if foreign else data.class_names
    x, _ = kr.data.arrays(data.test, 500)
    if options.format == "serving":
        exported = kr.export.serving(
            model, options.out, version=options.version, class_names=class_names, check=x
        )
    else:
        representative = kr.data.arrays(data.train, 500)[0] if calibrated else None
        exported = kr.export.tflite(
            model,
            options.out,
            mode=options.format,
            representative=representative,
            check=x,
            class_names=class_names,
        )
    return Result(exported.to_dict(), str(exported))


def _load(options, training=True):
    # Single images where nothing is trained: few images need not fill a batch.
    return kr.data.load(
        "embedded" if options.data is None else options.data,
        batch_size=options.batch_size if training else None,
        seed=options.seed,
        data_dir=options.data_dir,
        image_size=options.image_size,
        limit=options.limit,
    )


def _of_unknown_data(options) -> bool:
    """Whether nobody said which images the model is for, as nobody need of a new one."""
    new = options.model in kr.zoo.names()
    return options.data is None and not new and pathlib.Path(options.model).exists()


def _check_own_data(options, why):
    if _of_unknown_data(options):
        raise ValueError(
            f"--data must say which images --model {options.model!r} is for: {why}. For a model of "
            "the embedded images say --data embedded."
        )


def _model(name, data, seed):
    """A model from a file, or a new built-in one for the data."""
    if name in kr.zoo.names():
        return kr.zoo.build(name, input_shape=data.input_shape, classes=data.classes, seed=seed)
    path = pathlib.Path(name)
    if not path.exists():
        raise ValueError(
            f"--model {name!r} is neither a file nor a built-in model. Built-in: "
            f"{', '.join(kr.zoo.names())}."
        )
    return _load_model(path, data)


def _load_model(path, data):
    """The model in a file; raises `ValueError` where it does not take the images of `data`."""
    model = kr.compress.load(path) if path.suffix == ".h5" else bridge.load(path)
    try:
        wanted = tf.TensorShape(tuple(model.input_shape)[1:])
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return model  # Subclassed, whose shape is not known, or with several inputs.
    found = data.input_shape
    # A last axis of one is left out by Keras itself where the model has none.
    shapes = [found, found[:2]] if found[-1] == 1 else [found]
    if not any(wanted.is_compatible_with(shape) for shape in shapes):
        raise ValueError(
            f"{str(path)!r} takes images of shape {wanted}, but those of --data, the "
            f"embedded ones by default, have {found}. Give its own by --data, or their side by "
            "--image-size."
        )
    return model


def _artifacts(arguments) -> dict:
    """NAME=PATH, PATH or an address to what `kr.evaluate` takes; models are still paths."""
    artifacts = {}
    for argument in arguments:
        name, value = _named(argument)
        if name in artifacts:
            raise ValueError(f"Two artifacts are named {name!r}. Name them: first={value}.")
        artifacts[name] = value
    return artifacts


def _named(argument):
    before, scheme, rest = argument.partition("://")
    if scheme:
        # An address may hold "=" itself, behind its "://".
        name, _, protocol = before.rpartition("=")
        return name or rest.rsplit("/", 1)[-1], f"{protocol}://{rest}"
    whole = pathlib.Path(argument)
    if whole.exists():
        return whole.name, whole
    name, separator, path = argument.partition("=")
    path = pathlib.Path(path if separator else argument)
    if not path.exists():
        raise ValueError(f"There is no {path}. Give [NAME=]PATH of a model or file.")
    return name, path


def _pgd(options):
    return kr.attacks.PGD(
        eps=options.eps, norm=options.norm, steps=options.steps, step_size=options.step_size
    )


def _attacks(options) -> list:
    threat = {"eps": options.eps, "norm": options.norm}
    known = {
        "fgsm": kr.attacks.FGSM(**threat),
        "pgd": _pgd(options),
        "square": kr.attacks.Square(**threat),
        "autoattack": kr.attacks.AutoAttack(**threat),
    }
    names = [name.strip().lower() for name in options.attacks.split(",")]
    for name in names:
        if name not in known:
            raise ValueError(f"--attacks knows {', '.join(known)}, got {name!r}.")
    return [known[name] for name in dict.fromkeys(names)]


def _save(model, path):
    """Writes the model beside and renames it."""
    with beside(path) as temporary, warnings.catch_warnings():
        # That .h5 is an old format: fake-quantized models come back from no other file.
        warnings.filterwarnings("ignore", message="You are saving your model as an HDF5")
        model.save(temporary)
    return path
