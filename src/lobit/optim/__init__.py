"""What training low-bit weights asks of optimizers: latent weights, parameter groups, shift-based AdaMax, Bop, several optimizers as one."""

from lobit.extras import require

require("lobit.optim", "torch")

from lobit.optim.adamax import ShiftAdaMax
from lobit.optim.bop import Bop, with_bop
from lobit.optim.combined import CombinedOptimizer
from lobit.optim.groups import groups_by, is_latent, is_one_bit, is_step, is_width, parameter_groups
from lobit.optim.latent import clip_latent_weights, init_latent_weights, latent_layers, step_factor

__all__ = [
    "Bop",
    "CombinedOptimizer",
    "ShiftAdaMax",
    "clip_latent_weights",
    "groups_by",
    "init_latent_weights",
    "is_latent",
    "is_one_bit",
    "is_step",
    "is_width",
    "latent_layers",
    "parameter_groups",
    "step_factor",
    "with_bop",
]
