"""The 15 common corruptions of Hendrycks and Dietterich 2019."""

from keras_robust.data.corruptions._corrupt import CORRUPTIONS, SEVERITIES, corrupt, family_of

__all__ = ["CORRUPTIONS", "SEVERITIES", "corrupt", "family_of"]
