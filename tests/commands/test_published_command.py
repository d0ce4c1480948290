"""Published networks on their pictures as `bin/published` takes them: files made small."""

import csv
import json

import jax.numpy as jnp
import numpy as np
import pytest
from published_files import dncnn, ista_net

from jitter_jax.commands import published
from jitter_jax.commands.published import attack_published, evaluate_published
from jitter_jax.metrics import psnr
from jitter_jax.operators import identity
from jitter_jax.unroll import load_published

Image = pytest.importorskip("PIL.Image", reason="pictures are read with pillow")
SIZES = {"a.png": (33, 20), "b.png": (24, 33)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Weights and data of four of the cases."""
    weights, data = tmp_path_factory.mktemp("weights"), tmp_path_factory.mktemp("data")
    small = lambda arrays, by: {name: by * np.asarray(array) for name, array in arrays.items()}
    np.savez(weights / "dncnn_sigma15.npz", **small(dncnn()[-1], 0.3))
    np.savez(weights / "ista_net_plus_mri10.npz", **small(ista_net("plus")[-1], 0.3))
    # Of this one the estimates stay in 0 to 1: what an attack adds is not cut off.
    np.savez(weights / "ista_net_pp_ord100.npz", **small(ista_net("pp")[-1], 0.05))
    rng = np.random.default_rng(0)
    np.savez(weights / "mri_masks.npz", mask_10=(rng.random((8, 8)) < 0.5).astype(np.uint8))
    for folder in ("set11", "set12"):
        (data / "images" / folder).mkdir(parents=True)
        for name, shape in SIZES.items():
            grey = rng.integers(256, size=shape, dtype=np.uint8)
            Image.fromarray(grey).save(data / "images" / folder / name)
    (data / "mri").mkdir()
    stack = rng.integers(256, size=(2, 8, 8), dtype=np.uint8)
    np.savez(data / "mri" / "brain_magnitude.npz", images=stack)
    return weights, data


def test_every_case_at_hand_is_evaluated(folders, tmp_path, monkeypatch, capsys):
    weights, data = folders
    rows = evaluate_published(weights, data, tmp_path, progress=False)
    found = {(row["network"], row["setting"], row["test"]): row for row in rows}
    ratios = [f"{ratio}0%" for ratio in range(1, 6)]
    assert list(found) == [
        *(("ISTA-Net++ Ord", ratio, "Set11") for ratio in ratios),
        ("ISTA-Net+ MRI", "10% of mri_masks", "brain"),
        ("DnCNN", "noise 0.0588", "Set12"),
    ]
    said = capsys.readouterr().out
    assert f"ISTA-Net on Set11 is left out: no {weights / 'ista_net_cs10.npz'}" in said
    assert f"DnCNN on BSD68 is left out: no {data / 'images/bsd68'}" in said

    # The mean over pictures that differ in size, of noise that is the same for each of them.
    method = load_published(weights / "dncnn_sigma15.npz")
    values = []
    for name in SIZES:
        x = np.asarray(Image.open(data / "images/set12" / name), np.float32)[..., None] / 255
        y = x + np.float32(15 / 255 * np.random.default_rng(0).standard_normal(x.shape))
        params = method.init(None, identity(), y)
        estimate = jnp.clip(method.apply(params, identity(), jnp.asarray(y)), 0, 1)
        values.append(float(psnr(jnp.round(255 * estimate) / 255, x)))
    row = found["DnCNN", "noise 0.0588", "Set12"]
    assert row["psnr"] == pytest.approx(np.mean(values), abs=1e-3)
    assert (row["num_pictures"], row["authors_code"], row["published"]) == (2, 32.86, None)

    assert json.loads((tmp_path / "published.json").read_text()) == rows
    with (tmp_path / "published.csv").open() as file:
        assert [line["network"] for line in csv.DictReader(file)] == [r["network"] for r in rows]
    # What is known is not computed again.
    monkeypatch.setattr(published, "_quality_row", lambda *given: pytest.fail("computed again"))
    assert evaluate_published(weights, data, tmp_path, progress=False) == rows


def test_both_attacks(folders, tmp_path, monkeypatch):
    weights, data = folders
    rows = attack_published(
        weights, data, tmp_path, epsilons=(0.5, 1.0), num_examples=1, progress=False
    )
    clean, near, far = rows
    assert [row["epsilon"] for row in rows] == [0, 0.5, 1]
    assert [row["published"] for row in rows] == [27.78, 26.21, 24.72]
    assert clean["pgd"] == clean["published_attack"]
    for name in ("pgd", "published_attack"):
        assert clean[name] > near[name] > far[name]
    assert (tmp_path / "published_attack.png").stat().st_size > 1000
    with (tmp_path / "published_attack.csv").open() as file:
        assert [float(line["pgd"]) for line in csv.DictReader(file)] == [r["pgd"] for r in rows]
    monkeypatch.setattr(published, "_attack_row", lambda *given: pytest.fail("computed again"))
    again = attack_published(
        weights, data, tmp_path, epsilons=(1.0,), num_examples=1, progress=False
    )
    assert again == [clean, far]


def test_refused(folders, tmp_path):
    weights, data = folders
    with pytest.raises(ValueError, match=r"only=\['other'\] is not accepted: of \['dncnn_sigma15'"):
        evaluate_published(weights, data, tmp_path, only=["dncnn_sigma15", "other"])
    with pytest.raises(ValueError, match="none of the published files is there"):
        evaluate_published(data, data, tmp_path, progress=False)
    with pytest.raises(ValueError, match="epsilon"):
        attack_published(weights, data, tmp_path, epsilons=(-1.0,))
