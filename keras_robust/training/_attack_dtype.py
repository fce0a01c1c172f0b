"""Which models and objectives may compute their attacks in fewer bits."""


def check_attack_dtype(attack_dtype, model, objective) -> None:
    """Raises `ValueError` where passes of the attack cannot compute in `attack_dtype`."""
    if attack_dtype is None:
        return
    if attack_dtype not in ("bfloat16", "float16"):
        raise ValueError(
            f"`attack_dtype` must be 'bfloat16', 'float16' or None, got {attack_dtype!r}."
        )
    inner = getattr(objective, "inner", objective)
    if objective.takes_differences or inner.takes_differences:
        raise ValueError(
            f"`attack_dtype` must be None for {objective!r}, whose small finite differences drown "
            f"in the rounding of {attack_dtype}, got {attack_dtype!r}."
        )
    wrapped = [layer.name for layer in model._flatten_layers() if _is_wrapped(layer)]
    if wrapped:
        raise ValueError(
            "`attack_dtype` must be None for a model whose layers compute their weights, as "
            f"binary and TF-MOT's do, got {attack_dtype!r} and such layers {wrapped}."
        )


def _is_wrapped(layer) -> bool:
    return type(layer).__module__.startswith("tensorflow_model_opt") or hasattr(
        layer, "resolve_once"
    )
