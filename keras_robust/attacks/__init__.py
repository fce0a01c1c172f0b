"""Attacks: `x_adv = attack(model, x, y, seed=0)`, exact in their ball and bounds."""

from keras_robust.attacks._apgd import APGD
from keras_robust.attacks._attack import Ascent, Attack
from keras_robust.attacks._autoattack import AutoAttack
from keras_robust.attacks._black_box import BlackBox
from keras_robust.attacks._carlini_wagner import CarliniWagner
from keras_robust.attacks._deepfool import DeepFool
from keras_robust.attacks._elastic_net import ElasticNet
from keras_robust.attacks._fab import FAB
from keras_robust.attacks._fgsm import FGSM
from keras_robust.attacks._hop_skip_jump import HopSkipJump
from keras_robust.attacks._lbfgs import LBFGS, rms
from keras_robust.attacks._matched import ConfidenceAscent, match_temperature
from keras_robust.attacks._noise import Noise
from keras_robust.attacks._pgd import PGD
from keras_robust.attacks._spatial import Spatial
from keras_robust.attacks._square import Square
from keras_robust.attacks._straight_through import StraightThrough
from keras_robust.attacks._threat import Ball
from keras_robust.attacks._transfer import Transfer
from keras_robust.attacks._universal import UniversalPerturbation
from keras_robust.attacks._variants import BIM, MIFGSM, RFGSM

__all__ = [
    "APGD",
    "Ascent",
    "Attack",
    "AutoAttack",
    "BIM",
    "Ball",
    "BlackBox",
    "CarliniWagner",
    "ConfidenceAscent",
    "DeepFool",
    "ElasticNet",
    "FAB",
    "FGSM",
    "HopSkipJump",
    "LBFGS",
    "MIFGSM",
    "Noise",
    "PGD",
    "RFGSM",
    "Spatial",
    "Square",
    "UniversalPerturbation",
    "StraightThrough",
    "Transfer",
    "match_temperature",
    "rms",
]
