"""Images and their k-space on the host, in NumPy."""

import numpy as np

_AXES = (0, 1)


def centred_fft2(array: np.ndarray, *, axes: tuple[int, int] = _AXES) -> np.ndarray:
    """Return the unitary Fourier transform over two axes, centred on both sides.

    The host's twin of `jitter_jax.operators.centred_fft2`: zero frequency at `n // 2`.

    Args:
        array: any shape, complex or real; complex64 stays complex64.
        axes: the two axes.
    """
    shifted = np.fft.ifftshift(array, axes)
    return np.fft.fftshift(np.fft.fft2(shifted, axes=axes, norm="ortho"), axes)


def centred_ifft2(array: np.ndarray, *, axes: tuple[int, int] = _AXES) -> np.ndarray:
    """Return the inverse of `centred_fft2`.

    Args:
        array: any shape, complex or real; complex64 stays complex64.
        axes: the two axes.
    """
    shifted = np.fft.ifftshift(array, axes)
    return np.fft.fftshift(np.fft.ifft2(shifted, axes=axes, norm="ortho"), axes)


def centre_crop(
    array: np.ndarray, shape: tuple[int, int], *, axes: tuple[int, int] = _AXES
) -> np.ndarray:
    """Return the middle of an image, from `(n - m) // 2` on along each axis, as fastMRI cuts it.

    Of an even n and an odd m this leaves the pixel `n // 2` one place after `m // 2`, which is
    nothing to an image but would shift k-space.

    Args:
        array: any shape.
        shape: m along `axes`, `1 .. n` each.
        axes: the two axes.

    Returns:
        A view of `array`.

    Raises:
        ValueError: `shape` is larger than the array, or below one.
    """
    sizes = tuple(array.shape[axis] for axis in axes)
    check_crop("shape", tuple(shape), "an array", sizes)
    window = [slice(None)] * array.ndim
    for axis, wanted, size in zip(axes, shape, sizes, strict=True):
        start = (size - wanted) // 2
        window[axis] = slice(start, start + wanted)
    return array[tuple(window)]


def root_sum_of_squares(images: np.ndarray, *, axis: int) -> np.ndarray:
    """Return `sqrt(sum_c |x_c|^2)`, the magnitude that all coils see together.

    Args:
        images: coil images x, complex or real.
        axis: the coils' axis.

    Returns:
        Real numbers, `images` without `axis`.
    """
    return np.sqrt(np.sum(images.real**2 + images.imag**2, axis=axis))


def check_crop(name: str, crop: tuple[int, ...], what: str, sizes: tuple[int, ...]) -> None:
    """Raise a ValueError unless a crop is positive and no larger than what it is cut from."""
    fits = len(crop) == len(sizes) and all(0 < m <= n for m, n in zip(crop, sizes, strict=True))
    if not fits:
        raise ValueError(
            f"{name}={crop} is not accepted: {what} has {sizes}, and 1 up to that along each axis "
            "is expected"
        )
