"""Weights that others published, as networks of this library."""

from jitter_jax.networks.published.dncnn import PlainDnCNN as PlainDnCNN
from jitter_jax.networks.published.dncnn import load_dncnn as load_dncnn
from jitter_jax.networks.published.dncnn import load_scico_dncnn as load_scico_dncnn
from jitter_jax.networks.published.ista_net import load_ista_net_plus as load_ista_net_plus
from jitter_jax.networks.published.ista_net import load_ista_net_pp as load_ista_net_pp
from jitter_jax.networks.published.modl import load_modl as load_modl
