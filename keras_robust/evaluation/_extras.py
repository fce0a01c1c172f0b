"""What an evaluation does beyond attacks when asked to: honesty checks and corruptions."""


def check_extras(diagnose, corruptions, attack, x) -> list[str]:
    """The corruptions to run; raises before the work what `diagnose` or they cannot do.

    Args:
        diagnose, corruptions: as `evaluate` got them.
        attack: the one that is diagnosed.
        x: the images.
    """
    if not isinstance(diagnose, bool):
        raise TypeError(f"`diagnose` must be True or False, got diagnose={diagnose!r}.")
    if diagnose:
        from keras_robust.evaluation._diagnosis import check_threat_model

        check_threat_model(attack)
    if corruptions is None or corruptions is False:
        return []
    from keras_robust.evaluation._corruptions import check_corruptions

    names = None if corruptions is True else corruptions
    return check_corruptions(x, names, getattr(attack, "bounds", (0.0, 1.0)))


def diagnosis_of(trial, name, attack) -> dict:
    """`{"diagnosis": [...]}` of one artifact, from the journal where it is finished."""
    from keras_robust.evaluation._diagnosis import diagnose

    artifact = trial.artifacts[name]
    found = trial.journal.once(
        ("diagnosis", repr(attack), name),
        lambda: diagnose(
            artifact, trial.x, trial.y, attack, trial.seed, trial.say, batch_size=trial.batch_size
        ),
    )
    return {"diagnosis": found}


def corruptions_of(trial, names, attack) -> dict[str, dict]:
    """Artifact -> `{"corruptions": {"errors", "mean_error"}}`; nothing without names.

    Args:
        trial: artifacts and images; each corruption is a part of the journal.
        names: of the corruptions.
        attack: whose bounds are those of the images.
    """
    from keras_robust.evaluation._corruptions import corruption_errors

    errors = {artifact: {} for artifact in trial.artifacts}
    settings = trial.seed, trial.batch_size, trial.say
    bounds = getattr(attack, "bounds", (0.0, 1.0))
    for name in names:
        found = trial.journal.once(
            ("corruptions", name, repr(bounds)),
            lambda name=name: corruption_errors(
                trial.artifacts, trial.x, trial.y, [name], *settings, bounds=bounds
            ),
        )
        for artifact, part in found.items():
            errors[artifact].update(part["errors"])
    return {
        artifact: {"corruptions": {"errors": found, "mean_error": _mean(found)}}
        for artifact, found in errors.items()
        if found
    }


def _mean(errors) -> float:
    values = [error for severities in errors.values() for error in severities]
    return sum(values) / len(values)
