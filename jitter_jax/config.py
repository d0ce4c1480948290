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
                # identity; of sections convolution; of MRI's images cartesian_mri,
                # cartesian_mri_repo, sense (coils); of pictures block_sampling (compressed
                # sensing), blur, super_resolution, inpainting
                "name": "convolution",
                "wavelet_points": 51,  # of the Ricker wavelet
                "wavelet_width": 4.0,  # samples from its centre to a zero crossing
                # block_sampling: orthonormal rows, gaussian, or an .npz file with the matrix as
                # `phi`, and perhaps as `Qinit` the initial estimate that ISTA-Net+ starts from
                "matrix": "orthonormal",
                "block": 33,  # block_sampling: side of a block
                "ratio": 0.1,  # block_sampling: measured rows; inpainting: kept pixels
                "train_ratios": (),  # block_sampling: one is drawn an example; empty is the ratio
                "kernel_size": 25,  # blur, super_resolution
                "kernel_std": 1.6,  # pixels
                "boundary": "zero",  # blur, super_resolution: zero, periodic
                "factor": 2,  # super_resolution
                "seed": 0,  # of the matrix, of the kept pixels
            },
            "network": {
                # seismic_cnn, dncnn, unet, didn, modl_cnn, dpdnn_unet, mlp
                "name": "seismic_cnn",
                # A file of published weights (see `unroll.load_published`), which bring their
                # network and unroll; of `network` and `unroll` only `precision` and `remat` are
                # then read.
                "weights": "",
                "residual": True,  # dncnn, unet, didn, modl_cnn: add the input
                "width": 16,  # 32 in the public code
                # dncnn, modl_cnn, mlp; of unet and dpdnn_unet the halvings, of didn and
                # ista_net_pp the blocks
                "depth": 5,
                "num_groups": 4,  # seismic_cnn, dncnn
                # Of seismic_cnn, dncnn, unet, mlp: relu, leaky_relu, leaky_relu_0.2 (fastMRI's
                # U-Net), elu; twice differentiable: gelu, silu, softplus, tanh.
                "activation": "relu",
                # Of the products: default (the device's own: float32 on CPU, TF32 on recent GPUs),
                # float32, tf32, bfloat16. All outside of networks is float32.
                "precision": "default",
            },
            "unroll": {
                # gradient, proximal, half_quadratic, half_quadratic_gradient (DPDNN),
                # ista_net_pp (with a network of its own)
                "method": "gradient",
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
                "regularisation": {  # half_quadratic: lambda
                    "name": "fixed",  # fixed, exponential, sigmoid
                    "init": 0.0,
                    "scale": 2.0,
                    "value": 1.0,
                },
                "splitting": {  # half_quadratic_gradient
                    "form": "denoising",  # of the update: denoising, gradient
                    "delta": 0.1,  # first value of each iteration's own
                    "eta": 0.9,
                },
                "solver": {  # half_quadratic: of the data step
                    "name": "conjugate_gradients",  # conjugate_gradients, to_tolerance, closed_form
                    "num_iterations": 10,  # the most, of to_tolerance
                    "tolerance": 1e-6,  # to_tolerance: residual beside the right side
                },
            },
            "smoothing": {
                # none; step (the learned step of every iteration: SMUG), weighted_step (Weighted
                # SMUG), end_to_end (RS-E2E)
                "where": "none",
                "sigma": 0.01,  # in the unit of the normalised signal
                "num_samples": 10,
                "chunk": 0,  # samples at once; 0 takes what memory_gb allows
                "memory_gb": 4.0,  # for the samples of a training batch
                "clamp": 0.0,  # of noisy parts, 1 in the public code; 0 is none
                "noise_on": "back_projection",  # end_to_end: back_projection, start, measurement
                "weight_width": 16,  # weighted_step: channels and layers of the encoder
                "weight_depth": 5,
            },
            "scheme": _scheme(),
            "pretrain": {  # a first stage by the scheme `denoising`
                "num_steps": 0,  # 0 leaves it out
                "workdir": "",  # of that stage, to share it; empty is `pretrain` in the run's own
            },
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
                "steps_at_once": 1,  # in one program: where steps are so short that Python counts
                "average_decay": 0.0,  # of averaged weights; 0 keeps none
                "log_every": 20,
                "validate_every": 100,
                "checkpoint_every": 200,
                "keep": 2,  # checkpoints
            },
            "devices": {  # they change the numbers by rounding alone
                "parallel": "jit",  # how the training step is compiled: jit, pmap
                # Over how many devices of all processes batches are spread; 0 takes the most that
                # divide the batch.
                "num": 0,
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
                "attacked": (),  # sets of data.out_of_distribution that are attacked as well
                "num_draws": 8,  # random perturbations of a signal in the average case
                "on_sphere": False,  # draw them from the surface of the ball
                "smoothing_draws": 1,  # of a smoothed reconstruction, averaged in attacks
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


def pictures_config() -> ConfigDict:
    """Return a config of denoising greyscale pictures: a small DPDNN on generated textures."""
    config = default_config()
    config.operator.name = "identity"
    config.data.kind = "textures"
    config.data.images.shape = (64, 64)
    config.data.noise_std = 15 / 255
    config.data.fresh_noise = True
    config.data.normalisation = "none"
    config.data.out_of_distribution = ("noise",)
    config.data.shifts.noise_std = 30 / 255
    config.data.augment.patch = (40, 40)
    config.data.augment.flips = True
    config.network.name = "dpdnn_unet"
    config.network.width = 16
    config.network.depth = 2
    config.unroll.method = "half_quadratic_gradient"
    config.unroll.num_iterations = 3
    config.unroll.start = "adjoint"
    config.unroll.sees_measurement = False
    config.scheme.name = "mse"
    config.train.batch_size = 8
    config.train.num_steps = 600
    # Of each pixel, since patches and pictures differ in size.
    for threat in (config.scheme.adversarial.threat, config.evaluate.threat):
        threat.space = "signal"
        threat.unit = "per_pixel"
        threat.epsilon = 0.02
    config.evaluate.attack.num_steps = 10
    return config


def compressed_sensing_config() -> ConfigDict:
    """Return a config of block compressed sensing: a small ISTA-Net++ on generated textures."""
    config = pictures_config()
    config.operator.name = "block_sampling"
    config.operator.train_ratios = (0.1, 0.2, 0.3, 0.4, 0.5)
    config.data.images.shape = (66, 66)
    config.data.noise_std = 0.0
    config.data.fresh_noise = False
    config.data.shifts.noise_std = 0.02
    config.data.augment.patch = (33, 33)
    config.unroll.method = "ista_net_pp"  # has networks of its own; network.name is not used
    config.unroll.num_iterations = 5
    config.network.width = 16
    config.train.batch_size = 16
    return config


def smug_config() -> ConfigDict:
    """Return a config of MoDL on multi-coil MRI: small networks on generated head phantoms."""
    config = mri_config()
    config.operator.name = "sense"
    config.data.coils.num = 4
    config.data.out_of_distribution = ("noise", "lesion", "mask", "acceleration", "maps")
    config.network.name = "didn"
    config.network.width = 16
    config.network.depth = 1
    config.unroll.method = "half_quadratic"
    config.unroll.solver.num_iterations = 6  # at lambda = 1 an error of 2e-5
    config.smoothing.num_samples = 5
    config.scheme.unrolled_stability.weight = 10.0
    config.scheme.name = "mse"
    config.pretrain.num_steps = 500
    config.optimizer.b1 = 0.5
    config.train.batch_size = 2
    config.train.num_steps = 1000
    for threat in (config.scheme.adversarial.threat, config.evaluate.threat):
        threat.norm = "linf"
        threat.epsilon = 0.003  # of the largest real or imaginary part of k-space
    config.evaluate.attack.num_steps = 10
    config.evaluate.num_draws = 4
    return config


def smug_as_published(config: ConfigDict) -> ConfigDict:
    """Set a config to fastMRI's multi-coil files with the SMUG paper's settings, and return it.

    90,000 steps are 60 epochs of its 3000 images. The maps are estimated slice by slice in the
    first epoch, which takes seconds for each, and kept in `data.coils.folder`: 13 MB a slice of 16
    coils.
    """
    config.data.kind = "fastmri"
    config.data.images.shape = (320, 320)
    config.data.images.middle = 16  # the ends of a volume hold little but noise
    config.data.images.max_train_slices = 3000
    config.data.num_validation = 2  # volumes: 32 images
    config.data.num_test = 4  # volumes: 64 images
    config.data.noise_std = 0.0  # the recorded k-space has its own
    config.data.fresh_noise = False
    config.data.coils.maps = "espirit"  # as BART computes them
    config.data.coils.folder = "runs/maps"
    config.network.width = 64
    config.network.depth = 3
    config.unroll.num_iterations = 8
    config.unroll.solver.num_iterations = 10
    config.smoothing.num_samples = 10
    config.scheme.unrolled_stability.weight = 1.0  # the public code; the paper tunes it
    config.optimizer.learning_rate = 1e-4
    config.optimizer.schedule = "linear"
    config.optimizer.hold_steps = 30_000  # 20 epochs, then linear to 0: the public code
    config.optimizer.clip_norm = 1.0
    config.pretrain.num_steps = 90_000
    config.train.batch_size = 2
    config.train.num_steps = 90_000
    config.train.validate_every = 1500
    config.train.checkpoint_every = 1500
    config.train.log_every = 50
    for threat in (config.scheme.adversarial.threat, config.evaluate.threat):
        threat.epsilon = 0.02
    for attack in (config.scheme.adversarial.attack, config.evaluate.attack):
        attack.num_steps = 10
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
        # Pictures: textures, pictures.
        "kind": "generated",
        "seed": 0,  # of what is generated and of the measurement noise
        "num_train": 400,
        "num_validation": 16,
        "num_test": 32,
        # Of sections: small_layer, large_layer, sigmoid, velocity_model. Of points: small_bias,
        # large_bias. Of images: lesion, contrast, block, mask, acceleration, noise; of slices also
        # axial, coronal, sagittal, anatomy; with coils also maps, recorded. Of pictures: noise, and
        # names of folders or files in `folder`.
        "out_of_distribution": ("small_layer", "large_layer"),
        "noise_std": 0.01,  # of the measurement, before normalisation
        "fresh_noise": False,  # draw it anew in every step
        # What to divide by: measurement (max |y|), zero_filled (max |A^H y|), fastmri (its standard
        # deviation), none.
        "normalisation": "measurement",
        "folder": "",  # of the files that a kind reads
        "on_bad_file": "error",  # error, skip; fastmri, pictures
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
            # Largest magnitude of the slice, of the volume; component: largest real or imaginary
            # part of the slice; file: as stored.
            "unit": "slice",
            "phase": 3.0,  # phantoms: largest, radians
            "files": "brain_complex_s*.npz",  # slices
            "train_subjects": (1, 2, 3, 4, 5),  # slices
            "validation_subjects": (),  # slices; empty holds num_validation training slices out
            "test_subjects": (6,),  # slices
            "view": "axial",  # slices; empty takes all
            "anatomy_file": "knee_complex.npz",  # slices
            # fastmri: a folder in `folder`; nifti: a file; pictures: a folder, a file, an archive
            "train": "singlecoil_train",
            # fastmri, pictures; empty holds num_validation training volumes or pictures out
            "validation": "",
            "test": "singlecoil_val",  # as `train`
            "acquisition": "",  # fastmri; empty takes all
            "middle": 0,  # fastmri, nifti: slices in the middle of each volume; 0 takes all
            "max_train_slices": 0,  # fastmri: trained on, from the first; 0 takes all
            "axis": 2,  # nifti: the one that counts slices
        },
        "augment": {  # of pictures, anew in every training step
            "patch": (),  # (height, width) that is cut out; empty trains on whole pictures
            "flips": False,  # mirror images and rotations
        },
        "sampling": {  # of k-space
            # random, equispaced, magic, gaussian, variable_density, vdrs_repo;
            # poisson_disc, radial
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
        "coils": {  # of images
            "num": 0,  # 0 measures by a single coil without a map
            # simulated; espirit: estimated from multi-coil fastmri, whose k-space is measured
            "maps": "simulated",
            "vary": "fixed",  # simulated: fixed (one set of maps for all), example
            "num_calibration": 24,  # espirit: side of the central square
            "folder": "",  # espirit: keeps the maps on disk; empty keeps 128 of them in memory
            "file": "",  # in `data.folder`, of the test set recorded
            "seed": 0,  # simulated
        },
        "shifts": {  # of the test sets named so
            "mask": "equispaced",
            "acceleration": 8.0,
            "noise_std": 0.05,
        },
    }


def _scheme() -> dict[str, Any]:
    return {
        # mse, adversarial, input_jitter, sgd_jitter, spgd_jitter, denoising, unrolled_stability,
        # smt_adv, smt_grad, jacobian
        "name": "sgd_jitter",
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
        # Noise and, of smt_adv, the threat and attack of `adversarial`.
        "smt_adv": {"sigma": 0.04, "num_samples": 4, "chunk": 0, "fresh_draws": False},
        "smt_grad": {
            "sigma": 0.04,  # of the last level; in the space of the threat of `adversarial`
            "num_samples": 2,  # at each level
            "num_levels": 6,
            "chunk": 0,  # samples at once; 0 takes all
            "step": "level",  # of the optimizer: level (one at each), accumulated (one in all)
        },
        "jacobian": {"weight": 1e-3, "num_iterations": 3, "space": "signal"},
        "denoising": {"sigma": 0.01, "num_samples": 1, "clamp": 0.0},  # of the learned step alone
        "unrolled_stability": {
            "weight": 1.0,  # of the reconstruction's error
            "target": "denoised_truth",  # denoised_truth, truth, denoised_iterate
            "frozen": "",  # folder of the run whose network makes the target; empty is its own
        },
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
