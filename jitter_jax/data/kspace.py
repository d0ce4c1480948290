"""Images and their k-space on the host, in NumPy."""

import numpy as np

from jitter_jax.data._checks import checked_count

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


def crop_or_pad(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return an image cut or padded with zeros so that the origins `n // 2` coincide.

    Args:
        array: `(height, width, ...)`.
        shape: height and width of the result, 1 or more.

    Raises:
        ValueError: `shape` is below one.
    """
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"shape={shape} is not accepted: (height, width) of 1 or more is expected")
    for axis, (wanted, size) in enumerate(zip(shape, array.shape, strict=False)):
        before = wanted // 2 - size // 2
        kept = slice(max(-before, 0), max(-before, 0) + min(wanted, size))
        padding = [(0, 0)] * array.ndim
        padding[axis] = (max(before, 0), max(wanted - size - max(before, 0), 0))
        array = np.pad(array[(slice(None),) * axis + (kept,)], padding)
    return array


def fourier_resize(images: np.ndarray, size: int) -> np.ndarray:
    """Return square images of fewer pixels that show the same field of view.

    An image that is not square is first put into the middle of a square of zeros of side n, the
    longer of its sides. The middle `size x size` of its centred k-space is then transformed back
    and multiplied by `size / n`, so that magnitudes stay what they were: it is what a scan with a
    smaller matrix gives, and an edge rings as it does there.

    Args:
        images: `(..., height, width)` complex64.
        size: side of the result, at most n.

    Returns:
        `(..., size, size)` complex64.

    Raises:
        ValueError: `size` is larger than n, or below one.
    """
    height, width = images.shape[-2:]
    side = max(height, width)
    if checked_count("size", size) > side:
        raise ValueError(
            f"size={size} is not accepted: at most the longer side of {(height, width)} is expected"
        )
    axes = (-2, -1)
    square = crop_or_pad(np.moveaxis(images, axes, _AXES), (side, side))
    if size < side:
        middle = crop_or_pad(centred_fft2(square), (size, size))
        square = centred_ifft2(middle) * np.float32(size / side)
    return np.ascontiguousarray(np.moveaxis(square, _AXES, axes), np.complex64)


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
