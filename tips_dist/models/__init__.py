"""Networks: lifter, discriminator, student; packed over seeds from the start."""

from tips_dist.models.blocks import initialise, parameters_per_seed
from tips_dist.models.discriminator import Discriminator
from tips_dist.models.lifter import Lifter, lifter_parameters, matched_width
from tips_dist.models.weights import load_weights, save_weights, seed_tensors, weights_record, write_tensors

__all__ = [
    "Discriminator",
    "Lifter",
    "initialise",
    "lifter_parameters",
    "load_weights",
    "matched_width",
    "parameters_per_seed",
    "save_weights",
    "seed_tensors",
    "weights_record",
    "write_tensors",
]
