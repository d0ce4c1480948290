"""The fields of an experiment, with their choices and defaults.

`configs/*.py` start from `default_config` and set what differs. The config is locked: a field that
is not here is refused.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict


def default_config() -> ConfigDict:
    """Return a config with every field: deconvolution of small generated seismic sections."""
    config = ConfigDict(
        {
            "seed": 0,  # of weights, order of the examples and jitter
            "data": _data(),
            "operator": {
                "name": "convolution",  # identity, convolution, cartesian_mri, cartesian_mri_repo
                "wavelet_points": 51,  # of the Ricker wavelet
                "wavelet_width": 4.0,  # samples from its centre to a zero crossing
            },
            "network": {
                "name": "seismic_cnn",  # seismic_cnn, dncnn, unet, mlp
                "residual": True,  # dncnn, unet: add the input
                "width": 16,  # 32 in the public code
                "depth": 5,  # dncnn, mlp; of unet the halvings
                "num_groups": 4,  # seismic_cnn, dncnn
                # relu, leaky_relu, leaky_relu_0.2 (fastMRI's U-Net), elu; twice differentiable:
                # gelu, silu, softplus, tanh.
                "activation": "relu",
            },
            "unroll": {
                "method": "gradient",  # gradient, proximal
                "num_iterations": 10,
                "start": "measurement",  # measurement (x_0 = y), adjoint (x_0 = A^H y)
                "sees_measurement": True,  # f(y, x) instead of f(x)
                "remat": "keep_costly",  # keep_costly (convolutions), full, none
                "step_size": {
                    "name": "sigmoid",  # fixed, exponential, sigmoid
                    "init": -1.0,  # of the learned parameter
                    "scale": 0.1,  # sigmoid
                    "value": 0.02,  # fixed
                },
            },
            "scheme": _scheme(),
            "optimizer": {
                "name": "adam",  # adam, adamw, sgd
                "learning_rate": 1e-3,
                "schedule": "cosine",  # constant, cosine, linear, exponential
                "warmup_steps": 0,
                "hold_steps": 0,  # at the peak, before the decay
                "final_scale": 0.0,  # last rate as a fraction of the peak
                "clip_norm": 1.0,  # 0 never clips
                "weight_decay": 0.0,  # adamw, sgd
                "b1": 0.9,  # adam, adamw
                "b2": 0.999,  # adam, adamw
                "eps": 1e-8,  # adam, adamw
                "momentum": 0.0,  # sgd
            },
            "train": {
                "batch_size": 4,
                "num_steps": 400,
                "average_decay": 0.0,  # of averaged weights; 0 keeps none
                "log_every": 20,
                "validate_every": 100,
                "checkpoint_every": 200,
                "keep": 2,  # checkpoints
            },
            "metrics": {
                "names": ("psnr", "ssim"),  # psnr, ssim, mse, nmse, risk
                "peak": 1.0,  # full scale of the PSNR
                "data_range": 1.0,  # of the SSIM
                "full_scale": "fixed",  # fixed (the two above), signal, volume (largest magnitude)
                "part": "all",  # all, magnitude, first_channel
                "per": "signal",  # signal, volume
                "ssim_window": "gaussian",  # gaussian (11x11), uniform (7x7, as fastMRI)
            },
            "evaluate": {
                "threat": _threat(),
                "attack": _attack(num_steps=20, first="fgsm"),
                "num_draws": 8,  # random perturbations of a signal in the average case
                "on_sphere": False,  # draw them from the surface of the ball
                "memory_gb": 4.0,  # for the signals that are attacked at once
            },
        }
    )
    return config.lock()


def mri_config() -> ConfigDict:
    """Return a config of single-coil MRI: small networks on generated head phantoms."""
    config = default_config()
    config.operator.name = "cartesian_mri"
    config.data.kind = "phantoms"
    config.data.num_train = 200
    config.data.normalisation = "zero_filled"  # also known where there is no truth
    config.data.fresh_noise = True
    config.data.out_of_distribution = ("lesion", "contrast", "mask", "acceleration", "noise")
    config.network.name = "dncnn"
    config.unroll.num_iterations = 5
    config.unroll.start = "adjoint"
    config.unroll.sees_measurement = False
    config.unroll.step_size.name = "exponential"
    config.scheme.jitter.sigma = 0.03
    config.scheme.input_jitter.sigma = 0.02
    config.metrics.part = "magnitude"
    config.metrics.full_scale = "signal"
    return config


def as_published(config: ConfigDict) -> ConfigDict:
    """Set optimiser and attacks of a config to those of the SGD-jittering paper, and return it."""
    config.optimizer.learning_rate = 1e-4
    config.optimizer.schedule = "constant"
    config.optimizer.clip_norm = 0.0
    for threat in (config.scheme.adversarial.threat, config.evaluate.threat):
        threat.epsilon = 1.0
        threat.unit = "absolute"
    for attack in (config.scheme.adversarial.attack, config.evaluate.attack):
        attack.num_steps = 20
        attack.step_size = 0.1
        attack.first = "given"  # zero; the best point is kept, where the public code keeps the last
    return config


def _data() -> dict[str, Any]:
    return {
        # Sections: generated, wells, file. Points. Images: phantoms, slices, fastmri, nifti.
        "kind": "generated",
        "seed": 0,  # of what is generated and of the measurement noise
        "num_train": 400,
        "num_validation": 16,
        "num_test": 32,
        # Of sections: small_layer, large_layer, sigmoid, velocity_model. Of points: small_bias,
        # large_bias. Of images: lesion, contrast, block, mask, acceleration, noise; of slices also
        # axial, coronal, sagittal, anatomy.
        "out_of_distribution": ("small_layer", "large_layer"),
        "noise_std": 0.01,  # of the measurement, before normalisation
        "fresh_noise": False,  # draw it anew in every step
        # What to divide by: measurement (max |y|), zero_filled (max |A^H y|), fastmri (its standard
        # deviation), none.
        "normalisation": "measurement",
        "folder": "",  # of the files that a kind reads
        "on_bad_file": "error",  # error, skip; fastmri
        "read_all": False,  # read fastmri's files to the end first: a bad slice shows then
        "sections": {
            "shape": (64, 32),  # (time, traces)
            "mean_spacing": 12.0,  # of layers, samples
            "min_spacing": 3.0,
            "smallest": 0.05,  # reflection coefficient beside the largest
            "dip": 0.12,  # samples a trace
            "fold": 10.0,  # samples
            "thickening": 0.15,
            "faults": (0, 3),  # fewest and most
            "throw": (5.0, 20.0),  # samples
            "fault_lean": 0.4,  # traces a sample
            "amplitude_change": 0.3,  # along a layer
            "added_layer": "paper",  # paper (a whole row), repo (ten traces, overwritten)
        },
        "wells": {
            "train": ("F02_1", "F03_2"),
            "test": ("F03_4",),
            "interval_s": 0.004,
        },
        "file": {  # a user's own .npz or .npy
            "train": "",
            "test": "",
            "signal_key": "signal",
            "measurement_key": "measurement",
            "npy_holds": "signal",  # signal, measurement
        },
        "images": {
            "shape": (64, 64),  # (height, width): generated, resampled or cropped
            "unit": "slice",  # largest magnitude of the slice, of the volume; file (as stored)
            "phase": 3.0,  # phantoms: largest, radians
            "files": "brain_complex_s*.npz",  # slices
            "train_subjects": (1, 2, 3, 4, 5),  # slices
            "validation_subjects": (),  # slices; empty holds num_validation training slices out
            "test_subjects": (6,),  # slices
            "view": "axial",  # slices; empty takes all
            "anatomy_file": "knee_complex.npz",  # slices
            "train": "singlecoil_train",  # fastmri: a folder in `folder`; nifti: a file
            "validation": "",  # fastmri; empty holds num_validation training volumes out
            "test": "singlecoil_val",  # fastmri: a folder; nifti: a file
            "acquisition": "",  # fastmri; empty takes all
            "middle": 0,  # fastmri, nifti: slices in the middle of each volume; 0 takes all
            "axis": 2,  # nifti: the one that counts slices
        },
        "sampling": {  # of k-space
            # random, equispaced, magic, gaussian, variable_density; poisson_disc, radial
            "mask": "gaussian",
            "acceleration": 4.0,
            "axis": 1,  # lines are columns (1) or rows (0)
            "center_fraction": -1.0,  # of lines; below 0 is the mask's own default
            "num_calibration": -1,  # lines, or side of a square; below 0 is the default
            "adjust_spacing": True,  # equispaced, magic: make up for the calibration
            "power": 2.0,  # variable_density
            "slope": 2.0,  # poisson_disc
            "angles": "golden",  # radial: golden, uniform
            "seed": 10,
            "draw": "fixed",  # fixed (one mask for all), example, file (by its name)
        },
        "shifts": {  # of the test sets named so
            "mask": "equispaced",
            "acceleration": 8.0,
            "noise_std": 0.05,
        },
    }


def _scheme() -> dict[str, Any]:
    return {
        "name": "sgd_jitter",  # mse, adversarial, input_jitter, sgd_jitter, spgd_jitter
        "jitter": {
            "kind": "relative",  # absolute, relative, unit_norm, repo, matched
            "sigma": 1.0,  # 0.1 in the paper, which changes next to nothing here
            "schedule": (),  # one level an iteration instead of sigma; not for matched
        },
        "input_jitter": {
            "level": "fixed",  # fixed, krainovic (from the data and epsilon)
            "sigma": 0.05,  # fixed
            "epsilon": 0.5,  # krainovic: l2 radius in the unit of the normalised measurement
            "signal_dimension": 0,  # krainovic: of the signals' subspace; 0 is all of the space
        },
        "adversarial": {"threat": _threat(), "attack": _attack(num_steps=3, first="random")},
    }


def _threat() -> dict[str, Any]:
    return {
        "epsilon": 0.05,
        "space": "measurement",  # measurement, signal
        "norm": "l2",  # l2, linf
        "unit": "relative",  # absolute, relative, per_pixel
    }


def _attack(num_steps: int, first: str) -> dict[str, Any]:
    return {
        "name": "pgd",  # pgd, fgsm
        "num_steps": num_steps,
        "step_size": 0.0,  # fraction of the radius; 0 is 2.5 / num_steps
        "first": first,  # where pgd starts: fgsm, random, given (zero)
        "restarts": 1,
        "keep_best": True,  # False returns the last point, as the public code does
    }


def check_fields(config: ConfigDict) -> None:
    """Refuse a config that lacks fields, or has others.

    Raises:
        ValueError: naming every such field.
    """
    wanted, found = _names(default_config().to_dict()), _names(config.to_dict())
    lines = [f"unknown field {name}" for name in sorted(found - wanted)]
    lines += [f"missing field {name}" for name in sorted(wanted - found)]
    if lines:
        raise ValueError(
            "the config does not have the fields of an experiment: " + "; ".join(lines)
        )


def _names(tree: Mapping[str, Any], prefix: str = "") -> set[str]:
    names: set[str] = set()
    for key, value in tree.items():
        if isinstance(value, Mapping):
            names |= _names(value, f"{prefix}{key}.")
        else:
            names.add(prefix + key)
    return names
