import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import counted, normal

from jitter_jax.data.augment import random_flip, random_patch

DRAWS = 4000


def keys(count=DRAWS, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def chi_squared(numbers, cells):
    """Returns the statistic against equal odds; on average `cells - 1`."""
    counts = np.bincount(numbers, minlength=cells)
    assert len(counts) == cells
    expected = len(numbers) / cells
    return np.sum((counts - expected) ** 2) / expected


@pytest.mark.parametrize("shape", [(2, 3), (5, 1), (1, 4), (5, 4)])
def test_every_place_is_equally_likely(shape):
    image = jnp.arange(20).reshape(5, 4)
    patches = jax.vmap(lambda key: random_patch(image, shape, key=key))(keys())
    corners = np.asarray(patches[:, 0, 0])
    # Every patch is the one at its corner.
    offsets = np.add.outer(4 * np.arange(shape[0]), np.arange(shape[1]))
    np.testing.assert_array_equal(patches, corners[:, None, None] + offsets)
    rows, columns = 5 - shape[0] + 1, 4 - shape[1] + 1
    places = corners // 4 * columns + corners % 4
    # Four standard deviations, sqrt(2 (cells - 1)), above the mean.
    freedom = rows * columns - 1
    assert chi_squared(places, rows * columns) <= freedom + 4 * np.sqrt(2 * freedom)


def elements(image):
    """Returns the images that the dihedral group, or the part of it that fits, makes of one."""
    turned = [np.rot90(i, turns) for turns in range(4) for i in (image, image[::-1])]
    return [each for each in turned if each.shape == image.shape]


@pytest.mark.parametrize(("shape", "number"), [((3, 3), 8), ((3, 2), 4), ((2, 3, 2), 4)])
def test_every_mirror_image_is_equally_likely(shape, number):
    image = np.arange(np.prod(shape)).reshape(shape)
    flipped = jax.jit(jax.vmap(lambda key: random_flip(jnp.asarray(image), key=key)))(keys())
    known = {element.tobytes(): i for i, element in enumerate(elements(image))}
    # Elements of the group that agree on this image would be found twice.
    assert len(known) == number
    found = np.array([known[each.astype(image.dtype).tobytes()] for each in np.asarray(flipped)])
    assert chi_squared(found, number) <= number - 1 + 4 * np.sqrt(2 * (number - 1))


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("tail", [(), (1,), (3,), (2, 2)])
def test_channels_and_dtypes_are_kept(dtype, tail):
    image = normal(0, 6, 6, *tail, dtype=dtype)
    plain = jnp.arange(36).reshape(6, 6)
    pixels = image.reshape(36, *tail)
    for function in (random_flip, lambda x, *, key: random_patch(x, (4, 3), key=key)):
        moved = function(image, key=jax.random.key(3))
        assert moved.dtype == image.dtype
        # One key moves arrays of any channels alike.
        numbers = function(plain, key=jax.random.key(3))
        np.testing.assert_array_equal(moved, pixels[numbers])


def test_one_compiled_function_serves_a_batch():
    images = normal(1, 8, 7, 7, 1)

    def augment(key, image):
        cut, turn = jax.random.split(key)
        return random_flip(random_patch(image, (5, 5), key=cut), key=turn)

    augment, calls = counted(augment)
    compiled = jax.jit(jax.vmap(augment))
    first, second = compiled(keys(8), images), compiled(keys(8, 1), images)
    assert len(calls) == 1 and first.shape == (8, 5, 5, 1)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, compiled(keys(8), images))
    for key, image, expected in zip(keys(8)[:2], images, first, strict=False):
        np.testing.assert_array_equal(augment(key, image), expected)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((6, 4), r"shape=\(6, 4\) .*\(5, 4\)"),
        ((5, 5), r"shape=\(5, 5\) .*\(5, 4\)"),
        ((0, 4), "shape's entry=0"),
        ((2.0, 4), r"shape's entry=2\.0"),
        ((2,), r"shape=\(2,\) .*\(rows, columns\)"),
    ],
)
def test_patches_that_do_not_fit_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        random_patch(jnp.zeros((5, 4, 1)), shape, key=jax.random.key(0))


def test_a_vector_is_no_image():
    with pytest.raises(ValueError, match=r"image has shape \(5,\)"):
        random_patch(jnp.zeros(5), (1, 1), key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"image has shape \(5,\)"):
        random_flip(jnp.zeros(5), key=jax.random.key(0))
