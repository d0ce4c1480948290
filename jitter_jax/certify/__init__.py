"""Certificates: what no attack within a budget can do, from order statistics of noisy draws."""

from jitter_jax.certify.budget import Budget as Budget
from jitter_jax.certify.budget import InfeasibleError as InfeasibleError
from jitter_jax.certify.budget import confidence_each as confidence_each
from jitter_jax.certify.centre import CentreCertificate as CentreCertificate
from jitter_jax.certify.centre import certified_centre as certified_centre
from jitter_jax.certify.discrepancy import LossCertificate as LossCertificate
from jitter_jax.certify.discrepancy import certified_discrepancy as certified_discrepancy
from jitter_jax.certify.discrepancy import certified_error as certified_error
from jitter_jax.certify.draws import Reconstruction as Reconstruction
from jitter_jax.certify.draws import draw as draw
from jitter_jax.certify.draws import freeze as freeze
from jitter_jax.certify.draws import median_rank as median_rank
from jitter_jax.certify.draws import statistics as statistics
from jitter_jax.certify.order_statistics import largest_ratio as largest_ratio
from jitter_jax.certify.order_statistics import lower_rank as lower_rank
from jitter_jax.certify.order_statistics import published_rank as published_rank
from jitter_jax.certify.order_statistics import rank_confidence as rank_confidence
from jitter_jax.certify.order_statistics import samples_needed as samples_needed
from jitter_jax.certify.order_statistics import upper_rank as upper_rank
from jitter_jax.certify.pixelwise import PixelCertificate as PixelCertificate
from jitter_jax.certify.pixelwise import certified_pixels as certified_pixels
