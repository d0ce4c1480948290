"""The whole public face of the package: documented, alike everywhere, quick to import."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import jitter_jax

ROOT = Path(jitter_jax.__file__).parent
MODULES = sorted(info.name for info in pkgutil.walk_packages([str(ROOT)], "jitter_jax."))
PUBLIC_MODULES = [
    name for name in MODULES if not any(part.startswith("_") for part in name.split("."))
]
PACKAGES = ["jitter_jax", *(n for n in MODULES if (ROOT.parent / n.replace(".", "/")).is_dir())]

# A key among the positional arguments, and why.
POSITIONAL_KEYS = {
    "jitter_jax.sampling.seed_from_key": "its only argument, turned into a seed",
    # Functions of a fixed form that callers hand around, all arguments positional.
    "jitter_jax.data.batch.Batch.lift": "second of two, handed to `function` in its place",
    "jitter_jax.unroll.reconstructor.Network.init": "the form of Linen's init",
    "jitter_jax.train.step.init_state": "a part of the state, like the parameters before it",
    "jitter_jax.smoothing.monte_carlo": "the argument of `draw`, which stands before it",
    "jitter_jax.keys.subkey": "turned into another key",
    # A draw is the whole purpose of these: the key comes first, as in jax.random.
    "jitter_jax.attacks.threat.Ball.sample": "as in jax.random",
    "jitter_jax.noise.normal_like": "as in jax.random",
    "jitter_jax.noise.measured_noise": "as in jax.random",
    "jitter_jax.smoothing.Smoothing.perturb": "as in jax.random",
    "jitter_jax.unroll.iterate.check_jitter": "checked, not drawn from",
}


def public_members():
    """Yields (full name, object) of every public function, class and method defined here."""
    for module_name in PUBLIC_MODULES:
        module = importlib.import_module(module_name)
        for name, member in vars(module).items():
            if name.startswith("_") or getattr(member, "__module__", None) != module_name:
                continue
            if inspect.isfunction(member):
                yield f"{module_name}.{name}", member
            elif inspect.isclass(member):
                yield f"{module_name}.{name}", member
                for method_name, method in vars(member).items():
                    # A function that is the default of a field is not a method.
                    own = getattr(method, "__qualname__", "").startswith(f"{name}.")
                    if inspect.isfunction(method) and own and not method_name.startswith("_"):
                        yield f"{module_name}.{name}.{method_name}", method


MEMBERS = dict(public_members())
FUNCTIONS = {name: member for name, member in MEMBERS.items() if inspect.isfunction(member)}


def parameters(function):
    return inspect.signature(function).parameters


def test_the_walk_finds_the_package():
    assert len(MEMBERS) > 100
    for name in ("attacks.pgd.pgd", "unroll.gradient.gradient_descent", "operators.dense.dense"):
        assert f"jitter_jax.{name}" in FUNCTIONS


@pytest.mark.parametrize("name", ["jitter_jax", *MODULES])
def test_modules_have_docstrings(name):
    # Parsed, not imported: private modules count too.
    path = ROOT.parent / name.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    assert ast.get_docstring(ast.parse(file.read_text()))


def test_everything_public_has_its_own_docstring():
    missing = [name for name, member in MEMBERS.items() if not has_own_docstring(member)]
    assert not missing


def has_own_docstring(member):
    # A dataclass or NamedTuple without one is given its signature as a docstring.
    generated = inspect.isclass(member) and (member.__doc__ or "").startswith(member.__name__ + "(")
    return bool(member.__doc__) and not generated and len(member.__doc__.split()) >= 2


def test_randomness_is_called_key():
    bad = [
        (name, parameter)
        for name, function in FUNCTIONS.items()
        for parameter in parameters(function)
        if parameter in ("rng", "prng", "prng_key", "rng_key", "random_state")
        # The data room draws with NumPy's generators, which are called rng.
        and not (name.startswith("jitter_jax.data.") and parameter == "rng")
    ]
    assert not bad


def test_nothing_but_keys_and_dictionary_names_are_called_key():
    # `key` of a function that reads arrays from files is the name of an array.
    named = {name for name, f in FUNCTIONS.items() if "key" in parameters(f)}
    assert {n for n in named if n.startswith("jitter_jax.data.files.")} <= {
        "jitter_jax.data.files.as_complex64",
        "jitter_jax.data.files.as_float32",
    }


def test_keys_are_keyword_only_but_for_those_with_a_reason():
    positional = {
        name
        for name, function in FUNCTIONS.items()
        if "key" in parameters(function)
        and parameters(function)["key"].kind is not inspect.Parameter.KEYWORD_ONLY
        and not name.startswith("jitter_jax.data.files.")
    }
    assert positional == set(POSITIONAL_KEYS)


@pytest.mark.parametrize(
    "room", ["operators", "unroll", "attacks", "schemes", "evaluate", "networks", "metrics"]
)
def test_a_key_has_no_default_unless_noise_is_optional(room):
    for name, function in FUNCTIONS.items():
        if name.startswith(f"jitter_jax.{room}") and "key" in parameters(function):
            default = parameters(function)["key"].default
            assert default in (inspect.Parameter.empty, None), name


OPTIONS = {
    "operators": {"key", "dtype", "num_iterations"},
    "unroll": {"key", "jitter", "remat", "return_trajectory"},
    "attacks": {"num_steps", "step_size", "first", "restarts", "keep_best", "on_sphere"},
    "evaluate": {"key", "num_draws", "num_iterations", "keep", "most", "budget_bytes"},
    "metrics": {"peak", "data_range", "border"},
}


@pytest.mark.parametrize("room", OPTIONS)
def test_options_are_keyword_only(room):
    found = set()
    for name, function in FUNCTIONS.items():
        if not name.startswith(f"jitter_jax.{room}") or name in POSITIONAL_KEYS:
            continue
        for option in OPTIONS[room] & set(parameters(function)):
            found.add(option)
            assert parameters(function)[option].kind is inspect.Parameter.KEYWORD_ONLY, (
                name,
                option,
            )
    assert found == OPTIONS[room]


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_explicit_lists_of_what_they_offer(package):
    tree = ast.parse((ROOT.parent / package.replace(".", "/") / "__init__.py").read_text())
    for node in tree.body[1:]:  # after the docstring
        assert isinstance(node, ast.ImportFrom) and node.level == 0, ast.unparse(node)
        for alias in node.names:
            assert alias.asname == alias.name, ast.unparse(node)


# Only some users draw, read checkpoints, feed batches, show progress or measure SSIM.
OPTIONAL = ("matplotlib", "orbax", "grain", "tqdm", "dm_pix", "scipy.signal", "torch", "h5py")


def loaded_by(statement):
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import jitter_jax", ()),
        (
            "import jitter_jax.operators, jitter_jax.unroll, jitter_jax.attacks, "
            "jitter_jax.schemes, jitter_jax.networks, jitter_jax.data",
            (),
        ),
        ("import jitter_jax.metrics, jitter_jax.evaluate.table", ("dm_pix",)),
        ("import jitter_jax.train", ()),
    ],
)
def test_import_leaves_optional_libraries_alone(statement, allowed):
    modules = loaded_by(statement)
    assert "jitter_jax" in modules
    assert [name for name in OPTIONAL if name in modules and name not in allowed] == []
