"""Small files of fastMRI's form, made of smooth random images."""

import hashlib

import h5py
import numpy as np

# The unit of fastMRI's k-space: images peak at some 1e-4.
PEAK = 3e-4

HEADER = """<?xml version="1.0" encoding="utf-8"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xmlns:xs="http://www.w3.org/2001/XMLSchema"
    xsi:schemaLocation="http://www.ismrm.org/ISMRMRD ismrmrd.xsd">
  <studyInformation><studyTime>00:00:00</studyTime></studyInformation>
  <measurementInformation>
    <measurementID>made_up</measurementID>
    <patientPosition>FFS</patientPosition>
    <protocolName>{acquisition}</protocolName>
  </measurementInformation>
  <acquisitionSystemInformation>
    <systemVendor>nobody</systemVendor>
    <systemFieldStrength_T>2.89362</systemFieldStrength_T>
    <receiverChannels>{coils}</receiverChannels>
  </acquisitionSystemInformation>
  <experimentalConditions><H1resonanceFrequency_Hz>123251815</H1resonanceFrequency_Hz>
  </experimentalConditions>
  <encoding>
    <encodedSpace>
      <matrixSize><x>{rows}</x><y>{columns}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>280</x><y>162.82</y><z>4.5</z></fieldOfView_mm>
    </encodedSpace>
    <reconSpace>
      <matrixSize><x>{recon_rows}</x><y>{recon_columns}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>140</x><y>140</y><z>3</z></fieldOfView_mm>
    </reconSpace>
    <trajectory>cartesian</trajectory>
    <encodingLimits>
      <kspace_encoding_step_1>
        <minimum>0</minimum><maximum>{maximum}</maximum><center>{center}</center>
      </kspace_encoding_step_1>
      <kspace_encoding_step_2>
        <minimum>0</minimum><maximum>0</maximum><center>0</center>
      </kspace_encoding_step_2>
      <slice><minimum>0</minimum><maximum>{last_slice}</maximum><center>0</center></slice>
    </encodingLimits>
    <parallelImaging>
      <accelerationFactor>
        <kspace_encoding_step_1>1</kspace_encoding_step_1>
        <kspace_encoding_step_2>1</kspace_encoding_step_2>
      </accelerationFactor>
      <calibrationMode>other</calibrationMode>
    </parallelImaging>
  </encoding>
  <sequenceParameters><TR>2750</TR><TE>27</TE><flipAngle_deg>140</flipAngle_deg>
  </sequenceParameters>
</ismrmrdHeader>
"""


def write_fastmri_file(
    path,
    *,
    num_slices=3,
    shape=(32, 24),
    num_coils=None,
    recon_size=(16, 16),
    padding=(0, 0),
    seed=0,
    test_set=False,
    acquisition="CORPD_FBK",
    **storage,
):
    """Write a volume.

    Args:
        path: the new file.
        num_slices: slices.
        shape: `(rows, columns)` of k-space.
        num_coils: `None` for a single-coil file.
        recon_size: `(height, width)` of the reconstructions.
        padding: columns on the left and on the right that were not acquired and are zero.
        seed: of the images.
        test_set: undersample k-space, store the mask and no reconstruction.
        acquisition: the attribute.
        storage: options of `h5py`'s `create_dataset` for `kspace`, such as `compression`.

    Returns:
        `path`.
    """
    rng = np.random.default_rng(seed)
    images = smooth(rng, (num_slices, *shape), width=3)
    images *= PEAK / np.abs(images).max()
    coil_images = images
    if num_coils is not None:
        maps = smooth(rng, (num_coils, *shape), width=1)
        maps /= np.sqrt((np.abs(maps) ** 2).sum(0))
        coil_images = images[:, None] * maps
    kspace = to_kspace(coil_images)
    columns = np.arange(shape[1])
    acquired = (columns >= padding[0]) & (columns < shape[1] - padding[1])
    kspace *= acquired
    header = HEADER.format(
        acquisition=acquisition,
        coils=num_coils or 15,
        rows=shape[0],
        columns=shape[1],
        recon_rows=recon_size[0],
        recon_columns=recon_size[1],
        maximum=acquired.sum() - 1,
        center=shape[1] // 2 - padding[0],
        last_slice=num_slices - 1,
    )
    with h5py.File(path, "w") as file:
        file["ismrmrd_header"] = header
        file.attrs["acquisition"] = acquisition
        file.attrs["patient_id"] = hashlib.sha256(str(seed).encode()).hexdigest()
        if test_set:
            mask = rng.random(shape[1]) < 0.25
            mask[shape[1] // 2 - 2 : shape[1] // 2 + 2] = True
            kspace *= mask
            file["mask"] = mask
            file.attrs["acceleration"] = 4
            file.attrs["num_low_frequency"] = 4
        else:
            cropped = crop(np.abs(to_image(kspace.astype(np.complex64))), recon_size)
            if num_coils is None:
                target = cropped
                file["reconstruction_esc"] = target.astype(np.float32)
                # Of a single-coil file this is made of coils that are not in it.
                file["reconstruction_rss"] = crop(np.abs(images), recon_size).astype(np.float32)
            else:
                target = np.sqrt((cropped**2).sum(1))
                file["reconstruction_rss"] = target.astype(np.float32)
            file.attrs["max"] = target.max()
            file.attrs["norm"] = np.linalg.norm(target)
        file.create_dataset("kspace", data=kspace.astype(np.complex64), **storage)
    return path


def smooth(rng, shape, *, width):
    """Complex Gaussian images whose k-space falls off as a Gaussian of `width` columns."""
    noise = rng.normal(size=(2, *shape))
    grids = np.meshgrid(*(np.arange(n) - n // 2 for n in shape[-2:]), indexing="ij")
    envelope = np.exp(-(grids[0] ** 2 + grids[1] ** 2) / (2 * width**2))
    return to_image((noise[0] + 1j * noise[1]) * envelope)


def to_kspace(images):
    """The centred orthonormal transform of the last two axes, in so many words."""
    shifted = np.fft.ifftshift(images, axes=(-2, -1))
    return np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=(-2, -1))


def to_image(kspace):
    """The inverse of `to_kspace`, in float64 whatever came."""
    shifted = np.fft.ifftshift(kspace.astype(np.complex128), axes=(-2, -1))
    return np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho"), axes=(-2, -1))


def crop(images, size):
    """The middle of the last two axes, rounded down as fastMRI does."""
    top, left = ((n - m) // 2 for n, m in zip(images.shape[-2:], size, strict=True))
    return images[..., top : top + size[0], left : left + size[1]]
