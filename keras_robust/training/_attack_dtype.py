"""Which models and objectives may compute their attacks in fewer bits."""


def check_attack_dtype(attack_dtype, model, objective) -> None:
    """Raises `ValueError` where passes of the attack cannot compute in `attack_dtype`."""
    if attack_dtype in (None, "auto"):
        return
    if attack_dtype not in ("bfloat16", "float16"):
        raise ValueError(
            f"`attack_dtype` must be 'bfloat16', 'float16', 'auto' or None, got {attack_dtype!r}."
        )
    if objective.takes_differences:
        raise ValueError(
            f"`attack_dtype` must be None for {objective!r}, whose small finite differences drown "
            f"in the rounding of {attack_dtype}, got {attack_dtype!r}."
        )
    if wrapped := _wrapped(model):
        raise ValueError(
            "`attack_dtype` must be None for a model whose layers compute their weights, as "
            f"binary and TF-MOT's do, got {attack_dtype!r} and such layers {wrapped}."
        )


def takes_half(model, objective) -> bool:
    """Whether passes of the attack can compute in fewer bits."""
    return not (objective.takes_differences or _wrapped(model))


def _wrapped(model) -> list[str]:
    """Names of the layers that compute their weights."""
    return [
        layer.name
        for layer in model._flatten_layers()
        if type(layer).__module__.startswith("tensorflow_model_opt")
        or hasattr(layer, "resolve_once")
    ]
