"""Examples to train and test on, and the batches made of them."""

from jitter_jax.data.files import FileSource as FileSource
from jitter_jax.data.files import as_float32 as as_float32
from jitter_jax.data.files import load_arrays as load_arrays
from jitter_jax.data.pipeline import Example as Example
from jitter_jax.data.pipeline import Source as Source
from jitter_jax.data.pipeline import TrainingIterator as TrainingIterator
from jitter_jax.data.pipeline import evaluation_batches as evaluation_batches
from jitter_jax.data.pipeline import training_iterator as training_iterator
from jitter_jax.data.points import BIASED_TRUTH as BIASED_TRUTH
from jitter_jax.data.points import PointSource as PointSource
from jitter_jax.data.seismic import DEFAULT_STRUCTURE as DEFAULT_STRUCTURE
from jitter_jax.data.seismic import FLAT as FLAT
from jitter_jax.data.seismic import GeneratedSections as GeneratedSections
from jitter_jax.data.seismic import LayeredSource as LayeredSource
from jitter_jax.data.seismic import PatchSource as PatchSource
from jitter_jax.data.seismic import Structure as Structure
from jitter_jax.data.seismic import WellReflectivity as WellReflectivity
from jitter_jax.data.seismic import WellSections as WellSections
from jitter_jax.data.seismic import add_layer as add_layer
from jitter_jax.data.seismic import add_layer_repo as add_layer_repo
from jitter_jax.data.seismic import post_stack_section as post_stack_section
from jitter_jax.data.seismic import reflectivity_section as reflectivity_section
from jitter_jax.data.seismic import sigmoid_reflectivity as sigmoid_reflectivity
from jitter_jax.data.seismic import velocity_reflectivity as velocity_reflectivity
from jitter_jax.data.seismic import well_reflectivity as well_reflectivity
