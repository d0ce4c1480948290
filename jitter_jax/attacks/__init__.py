"""Attacks on reconstructions: threats, and the searches for the worst they allow."""

from jitter_jax.attacks.energy import kspace_energy as kspace_energy
from jitter_jax.attacks.fgsm import fgsm as fgsm
from jitter_jax.attacks.objective import Objective as Objective
from jitter_jax.attacks.objective import expectation as expectation
from jitter_jax.attacks.objective import perturbed as perturbed
from jitter_jax.attacks.objective import reconstruction_error as reconstruction_error
from jitter_jax.attacks.pgd import pgd as pgd
from jitter_jax.attacks.random import random as random
from jitter_jax.attacks.search import Attack as Attack
from jitter_jax.attacks.search import AttackInfo as AttackInfo
from jitter_jax.attacks.threat import Ball as Ball
from jitter_jax.attacks.threat import Threat as Threat
