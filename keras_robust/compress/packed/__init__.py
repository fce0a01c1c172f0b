"""A model in one small file: entropy-coded weights, architecture and checksum."""

from keras_robust.compress.packed._file import pack, unpack
from keras_robust.compress.packed._report import SizeReport, size_report

__all__ = ["SizeReport", "pack", "size_report", "unpack"]
