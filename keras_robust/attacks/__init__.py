"""Attacks: `x_adv = attack(model, x, y, seed=0)`, exact in their ball and bounds."""

from keras_robust.attacks._attack import Ascent, Attack
from keras_robust.attacks._fgsm import FGSM
from keras_robust.attacks._pgd import PGD
from keras_robust.attacks._threat import Ball

__all__ = ["FGSM", "PGD", "Ascent", "Attack", "Ball"]
