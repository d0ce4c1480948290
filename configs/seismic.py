"""Seismic deconvolution of generated sections: the default, minutes on two CPU cores."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Return the config."""
    config = ConfigDict()
    config.seed = 0  # of weights, shuffling and jitter

    config.data = ConfigDict()
    config.data.kind = "generated"  # generated, wells, file, points
    config.data.seed = 0  # of sections and measurement noise
    config.data.shape = (64, 32)  # (time, traces)
    config.data.num_train = 400
    config.data.num_validation = 16
    config.data.num_test = 32
    config.data.out_of_distribution = ("small_layer", "large_layer")
    config.data.data_dir = ""  # folder of f3_wells.npz, sigmoid.npz, velocity_model.npz
    config.data.train_wells = ("F02_1", "F03_2")
    config.data.test_wells = ("F03_4",)
    config.data.interval_s = 0.004
    config.data.train_file = ""  # a user's own .npz or .npy
    config.data.test_file = ""
    config.data.noise_std = 0.01  # of the measurement, before normalisation
    config.data.fresh_noise = False  # draw the measurement noise anew in every step
    config.data.normalisation = "measurement"  # divide signal and measurement by max |y|

    config.operator = ConfigDict()
    config.operator.name = "convolution"
    config.operator.wavelet_points = 51  # Ricker wavelet
    config.operator.wavelet_width = 4.0  # samples from its centre to a zero crossing

    config.network = ConfigDict()
    config.network.name = "seismic_cnn"  # seismic_cnn, dncnn, mlp
    config.network.width = 16  # 32 in the public code
    config.network.depth = 5  # dncnn, mlp
    config.network.num_groups = 4  # seismic_cnn, dncnn
    config.network.out_channels = 1  # dncnn, mlp
    config.network.activation = "relu"  # smooth ones: gelu, silu, softplus, tanh

    config.unroll = ConfigDict()
    config.unroll.method = "gradient"  # gradient, proximal
    config.unroll.num_iterations = 10
    config.unroll.start = "measurement"  # measurement (x_0 = y), adjoint (x_0 = A^H y)
    config.unroll.sees_measurement = True  # f(y, x) instead of f(x)
    config.unroll.remat = "keep_costly"  # keep_costly (convolutions), full, none
    config.unroll.step_size = ConfigDict()
    config.unroll.step_size.name = "sigmoid"  # fixed, exponential, sigmoid
    config.unroll.step_size.init = -1.0
    config.unroll.step_size.scale = 0.1  # sigmoid
    config.unroll.step_size.value = 0.02  # fixed

    config.scheme = ConfigDict()
    config.scheme.name = "sgd_jitter"  # mse, adversarial, input_jitter, sgd_jitter, spgd_jitter
    config.scheme.jitter = ConfigDict()
    config.scheme.jitter.kind = "relative"  # absolute, relative, unit_norm, repo, matched
    config.scheme.jitter.sigma = 1.0  # 0.1 in the paper, which changes next to nothing here
    config.scheme.jitter.schedule = ()  # one level an iteration instead of sigma
    config.scheme.jitter.step_size = 0.1  # of the matched schedule
    config.scheme.input_jitter = ConfigDict()
    config.scheme.input_jitter.level = "fixed"  # fixed, krainovic
    config.scheme.input_jitter.sigma = 0.05
    config.scheme.input_jitter.krainovic = ConfigDict()
    config.scheme.input_jitter.krainovic.epsilon = 1.0
    config.scheme.input_jitter.krainovic.noise_std = 0.01
    config.scheme.input_jitter.krainovic.signal_energy = 10.0
    config.scheme.input_jitter.krainovic.measurement_size = 64 * 32
    config.scheme.input_jitter.krainovic.signal_dimension = 64 * 32
    config.scheme.adversarial = ConfigDict()
    config.scheme.adversarial.threat = threat()
    config.scheme.adversarial.attack = pgd(num_steps=3)

    config.optimizer = ConfigDict()
    config.optimizer.name = "adam"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_steps = 0
    config.optimizer.clip_norm = 1.0
    config.optimizer.weight_decay = 0.0

    config.train = ConfigDict()
    config.train.batch_size = 4
    config.train.num_steps = 400
    config.train.average_decay = 0.0  # of averaged weights; 0 keeps none
    config.train.log_every = 20
    config.train.validate_every = 100
    config.train.checkpoint_every = 200
    config.train.keep = 2

    config.metrics = ConfigDict()
    config.metrics.names = ("psnr", "ssim")
    config.metrics.peak = 1.0
    config.metrics.data_range = 1.0

    config.evaluate = ConfigDict()
    config.evaluate.threat = threat()
    config.evaluate.attack = pgd(num_steps=20)
    config.evaluate.num_draws = 8  # random perturbations of a signal in the average case
    config.evaluate.on_sphere = False  # draw them from the surface of the ball
    config.evaluate.memory_gb = 4.0  # for the signals that are attacked at once
    return config


def threat() -> ConfigDict:
    """Return the default threat: 5 % of the measurement's energy norm."""
    return ConfigDict({"epsilon": 0.05, "space": "measurement", "norm": "l2", "unit": "relative"})


def pgd(num_steps: int) -> ConfigDict:
    """Return projected gradient descent; a step_size of 0 stands for 2.5 / num_steps."""
    return ConfigDict(
        {
            "name": "pgd",
            "num_steps": num_steps,
            "step_size": 0.0,
            "random_start": True,
            "restarts": 1,
        }
    )
