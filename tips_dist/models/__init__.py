"""Networks: lifter, discriminator, student; packed over seeds from the start.

Every parameter carries a leading axis, so that many networks train as one program (``blocks``); a representation is
one more axis of the same ``lifter``. ``weights`` puts them on disk as safetensors with a record, nothing pickled;
``student`` lifts pixels with them, by a ``plan`` of plain matrix products.
"""

from tips_dist.models.base import BaseLifter, per_seed
from tips_dist.models.blocks import initialise, parameters_per_seed
from tips_dist.models.discriminator import Discriminator
from tips_dist.models.lifter import Lifter, lifter_parameters, matched_width
from tips_dist.models.weights import load_weights, save_weights, seed_tensors, weights_record, write_tensors

__all__ = [
    "BaseLifter",
    "Discriminator",
    "Lifter",
    "initialise",
    "lifter_parameters",
    "load_weights",
    "matched_width",
    "parameters_per_seed",
    "per_seed",
    "save_weights",
    "seed_tensors",
    "weights_record",
    "write_tensors",
]
