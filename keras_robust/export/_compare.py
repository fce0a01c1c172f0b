"""Whether what was written computes what its source does."""

import dataclasses
import pathlib

import numpy as np

# The largest relative error allowed, measured as `Comparison` says. Float files differ by the
# order of summation only; the others by the rounding of weights (2^-11 for float16, 2^-8 for
# int8) and, for int8, of every activation, which adds up over the layers.
TOLERANCES = {
    "float": 1e-3,
    "float16": 2e-2,
    "dynamic": 0.15,
    "int8": 0.25,
    "int16x8": 0.15,
    "savedmodel": 1e-3,
}
ROUNDED = ("dynamic", "int8", "int16x8")
LEAST_AGREEMENT = 0.9


class ExportMismatch(RuntimeError):
    """The written artifact does not compute what its source computes; nothing was kept."""


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written, and how close it is to its source.

    Attributes:
        path: the file, or the folder of the version.
        mode: "float", "dynamic", "float16", "int8" or "savedmodel".
        bytes, gzip_bytes: size as it lies on disk, and gzipped.
        agreement: share of the compared images on which both predict the same class.
        max_abs_error: the largest difference of logits, in the logits' units.
        relative_error: the error that was held against `tolerance`, a share of the logits' size.
        tolerance: the largest `relative_error` that would have passed.
        images: how many images were compared.
        compared_on: where they came from: "check", "representative" or "random".
        float_ops: an int8 file's operations that still compute in float, as "KIND: output".
    """

    path: pathlib.Path
    mode: str
    bytes: int
    gzip_bytes: int
    agreement: float
    max_abs_error: float
    relative_error: float
    tolerance: float
    images: int
    compared_on: str
    float_ops: tuple[str, ...] = ()

    def to_dict(self) -> dict:
        """The same, ready for JSON."""
        return {**dataclasses.asdict(self), "path": str(self.path)}

    def __str__(self):
        return (
            f"{self.path.name}: {self.mode}, {self.bytes / 1000:,.1f} KB, gzipped "
            f"{self.gzip_bytes / 1000:,.1f} KB; same class as its source on "
            f"{self.agreement:.1%} of {self.images} images, error {self.relative_error:.2g} of "
            f"the logits' size (at most {self.tolerance:g})"
        )


def compare(source: np.ndarray, written: np.ndarray, mode: str, tolerance: float | None) -> dict:
    """The numbers of `Exported`; raises `ExportMismatch` when they are too far apart.

    The error is the largest difference over the largest logit for "float", "float16" and
    "savedmodel"; the root mean square of both for "dynamic" and "int8", where one image
    outside the calibrated range may be far off by design. There, images whose two best
    logits are further apart than the allowed error must also agree on the class, but for a
    tenth of them; nearer ones are ties that rounding may turn.

    Args:
        source, written: logits, `(n, classes)`.
        mode: a key of `TOLERANCES`.
        tolerance: relative; None takes that of the mode.
    """
    tolerance = TOLERANCES[mode] if tolerance is None else tolerance
    if source.shape != written.shape:
        raise ExportMismatch(
            f"The {mode} artifact returns shape {written.shape}, its source {source.shape}."
        )
    if not np.all(np.isfinite(source)):
        raise ExportMismatch("`model` itself returns NaN or infinite logits on these images.")
    # Float64, so that the squares cannot overflow.
    source, written = source.astype(np.float64), written.astype(np.float64)
    difference = np.abs(source - written)
    largest = float(difference.max()) if np.all(np.isfinite(written)) else float("inf")
    size = np.sqrt(np.mean(source**2)) if mode in ROUNDED else np.abs(source).max()
    error = np.sqrt(np.mean(difference**2)) if mode in ROUNDED else largest
    # Logits that are all zero, as those of a layer that starts at zero, have no size.
    relative = 0.0 if error <= 1e-6 else float(error / max(size, 1e-6))
    same = source.argmax(-1) == written.argmax(-1)
    best = np.sort(source, axis=-1)[:, -2:]
    decided = best[:, 1] - best[:, 0] > tolerance * size
    agreement = float(same.mean())
    firm = float(same[decided].mean()) if decided.any() else 1.0
    if not (np.isfinite(largest) and relative <= tolerance and firm >= LEAST_AGREEMENT):
        raise ExportMismatch(
            f"The {mode} artifact differs from its source on {len(source)} images: largest "
            f"difference of logits {largest:.3g}, relative error {relative:.3g} (at most "
            f"{tolerance:g} allowed), same class on {agreement:.1%} of all images and on "
            f"{firm:.1%} of the {int(decided.sum())} with a clear margin (at least "
            f"{LEAST_AGREEMENT:.0%} needed). Nothing was written. A model must give the same "
            "outputs on every call; for int8, `representative` must look like the images; "
            "`tolerance` sets another limit."
        )
    return {
        "agreement": agreement,
        "max_abs_error": largest,
        "relative_error": relative,
        "tolerance": float(tolerance),
        "images": len(source),
    }


def check_tolerance(tolerance) -> None:
    """Raises `ValueError` unless `tolerance` is None or a positive number."""
    if tolerance is not None and not (isinstance(tolerance, int | float) and tolerance > 0):
        raise ValueError(
            f"`tolerance` must be a positive share of the logits' size, got {tolerance!r}."
        )


def check_class_names(class_names, classes: int | None = None) -> list[str] | None:
    """The names as a list of `classes` single lines of text, or None."""
    if class_names is None:
        return None
    names = [class_names] if isinstance(class_names, str) else list(class_names)
    bad = [n for n in names if not isinstance(n, str) or not n.strip() or "\n" in n]
    if bad:
        raise ValueError(f"`class_names` must be non-empty lines of text, got {bad[0]!r}.")
    if classes is not None and len(names) != classes:
        raise ValueError(
            f"`class_names` has {len(names)} names, but the model returns {classes} logits. Give "
            "one name a class, in the order of the logits."
        )
    return names
