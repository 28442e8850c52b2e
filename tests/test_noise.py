"""Noises: mean, variance and what else each promises, independent draws, and the same draw from the same seed."""

from __future__ import annotations

import numpy as np
import pytest

from minunet import Tensor, losses
from minunet import functional as F
from minunet.data import NOISES, BlindSpot
from minunet.data.noise import Bernoulli, Brown, Gaussian, Impulse, Mri, Poisson, Rendering, Text
from minunet.data.noise.mri import frequencies
from minunet.data.noise.rendering import light, tone_mapped


def ramp(channels: int = 2, height: int = 64, width: int = 80):
    """A smooth picture in [−0.5, 0.5], a different one in each channel."""
    y, x = np.mgrid[:height, :width]
    return np.stack([0.4 * np.sin(x / 9 + c) * np.cos(y / 13 - c) for c in range(channels)]).astype(np.float32)


def rng(seed: int = 0):
    return np.random.default_rng(seed)


def draws(noise, image, count: int, strength: float):
    """(count, C, H, W)"""
    generator = rng(1)
    return np.stack([noise(image, generator, strength) for _ in range(count)]).astype(np.float64)


def correlation(a, b):
    return float(np.corrcoef(np.ravel(a), np.ravel(b))[0, 1])


# what all share


@pytest.mark.parametrize("name", NOISES)
def test_the_same_seed_gives_the_same_draw(name):
    image, noise = ramp(), NOISES[name]()
    first, again, other = noise(image, rng(3)), noise(image, rng(3)), noise(image, rng(4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32
    assert first.shape == image.shape
    for one, two in zip(noise.pair(image, rng(3)), noise.pair(image, rng(3)), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", NOISES)
def test_the_image_stays_as_it_was(name):
    image, noise = ramp(), NOISES[name]()
    before = image.copy()
    noise.pair(image, rng(0))
    noise.pair(image, rng(0), clean=True)
    noise.trial(image, rng(0))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", ["gaussian", "brown", "poisson"])
def test_the_two_of_a_pair_are_independent(name):
    image = ramp(1, 128, 128)
    noise, generator = NOISES[name](), rng(2)
    residuals = [tuple(noisy - image for noisy in noise.pair(image, generator)) for _ in range(8)]
    for one, two in residuals:
        assert abs(correlation(one, two)) < 0.15  # neighbours share brown noise: few numbers are really drawn
    assert abs(np.mean([correlation(*pair) for pair in residuals])) < 0.03
    strengths = [one.std() / two.std() for one, two in residuals]
    assert np.std(np.log(strengths)) > 0.1  # each has a strength of its own


@pytest.mark.parametrize("name", ["bernoulli", "impulse", "text"])
def test_where_one_of_a_pair_is_hit_says_nothing_of_the_other(name):
    image, noise, generator = ramp(1, 128, 128) + 0.01, NOISES[name](), rng(5)
    hits = []
    for _ in range(6):
        one, two = noise.pair(image, generator)
        two = two[0] if name == "bernoulli" else two
        hits.append(correlation(one != image, two != image))
    assert abs(np.mean(hits)) < 0.1


@pytest.mark.parametrize("name", NOISES)
def test_a_clean_target_is_clean(name):
    image = ramp()
    _, target = NOISES[name]().pair(image, rng(0), clean=True)
    if name == "bernoulli":
        np.testing.assert_array_equal(target, np.stack([image, np.ones_like(image)]))
    elif name == "mri":
        np.testing.assert_array_equal(target[0], image)
    elif name == "rendering":
        np.testing.assert_allclose(tone_mapped(target) - 0.5, image, atol=1e-5)
    else:
        np.testing.assert_array_equal(target, image)


# each alone


def test_gaussian():
    image = ramp()
    noisy = draws(Gaussian(), image, 400, 50) - image
    assert abs(noisy.mean()) < 0.001
    assert noisy.std() == pytest.approx(50 / 255, rel=0.005)
    assert abs(correlation(noisy[:, 0], noisy[:, 1])) < 0.01  # channels
    assert abs(correlation(noisy[..., 1:], noisy[..., :-1])) < 0.01  # neighbours
    assert (draws(Gaussian(), image, 1, 50) > 0.5).any()  # not clipped
    drawn = [Gaussian()(0 * image, rng(i)).std() * 255 for i in range(200)]
    assert 0 < min(drawn) < 5
    assert 45 < max(drawn) < 52
    assert np.mean(drawn) == pytest.approx(25, abs=3)


def test_brown():
    image = ramp(1)
    noisy = draws(Brown(), image, 400, 25) - image
    assert abs(noisy.mean()) < 0.001
    assert noisy.std() == pytest.approx(25 / 255, rel=0.02)
    assert correlation(noisy[..., 1:], noisy[..., :-1]) > 0.6
    assert abs(correlation(noisy[..., 30:], noisy[..., :-30])) < 0.03


def test_poisson():
    image = ramp()
    noisy = draws(Poisson(), image, 2000, 10)
    np.testing.assert_allclose(noisy.mean(axis=0), image, atol=0.04)
    assert noisy.mean() == pytest.approx(image.mean(), abs=0.001)
    variance, expected = noisy.var(axis=0), (image + 0.5) / 10
    assert correlation(variance, expected) > 0.97
    assert variance.mean() == pytest.approx(expected.mean(), rel=0.01)
    assert (noisy > 0.5).any()
    assert Poisson()(np.full((1, 4, 4), -0.6, np.float32), rng(), 30).max() == np.float32(-0.5)  # darker than black


def test_a_photon_is_never_worth_many_times_white():
    """Adam would hardly move for hundreds of steps after such a window."""
    noise, image, generator = Poisson(), ramp(), rng()
    assert max(noisy.max() for _ in range(300) for noisy in noise.pair(image, generator)[:2]) < 10


def test_bernoulli():
    image = ramp() + 0.001
    noisy = draws(Bernoulli(), image, 200, 0.3)
    missing = noisy == 0
    assert missing.mean() == pytest.approx(0.3, abs=0.005)
    np.testing.assert_array_equal(missing[:, 0], missing[:, 1])
    np.testing.assert_array_equal(noisy[~missing], np.broadcast_to(image, noisy.shape)[~missing])
    _, (values, mask) = Bernoulli().pair(image, rng(0))
    np.testing.assert_array_equal(values, image * mask)
    assert set(np.unique(mask)) == {0, 1}


@pytest.mark.parametrize("strength", [0.0, 0.25, 0.5])
def test_text(strength):
    image = ramp(3, 128, 128)
    covered = [np.any(Text()(image, rng(i), strength) != image, axis=0).mean() for i in range(20)]
    assert min(covered) >= strength
    assert np.mean(covered) < strength + 0.03
    noisy = Text()(image, rng(0), 0.25)
    colours = np.unique(noisy[:, np.any(noisy != image, axis=0)], axis=1)
    assert 3 < colours.shape[1] < 100  # one a string
    assert abs(colours).max() <= 0.5


def test_text_is_for_pictures():
    with pytest.raises(ValueError, match="written over images"):
        Text()(np.zeros((1, 4, 4, 4), np.float32), rng(), 0.1)


def test_impulse():
    image = ramp()
    noisy = draws(Impulse(), image, 300, 0.7)
    hit = np.any(noisy != image, axis=1)
    assert hit.mean() == pytest.approx(0.7, abs=0.005)
    replaced = np.moveaxis(noisy, 1, 0)[:, hit]
    assert abs(replaced.mean()) < 0.005
    assert replaced.std() == pytest.approx(np.sqrt(1 / 12), rel=0.01)
    assert abs(correlation(*replaced)) < 0.01
    np.testing.assert_allclose(np.median(draws(Impulse(), image, 300, 0.3), axis=0), image, atol=0.1)


def test_rendering():
    image = np.zeros((2, 200, 300), np.float32)
    bright = light(image + 0.5)
    noise = Rendering()
    lit = noise._light(image, rng(0), 4.0) / bright
    assert lit.mean() == pytest.approx(1, abs=0.01)
    assert lit.var() == pytest.approx(1 / 2, rel=0.15)  # its own variance is large
    np.testing.assert_array_equal(lit[0], lit[1])
    tail = [(lit[0] > level).mean() for level in (4, 8)]
    assert tail[0] / tail[1] == pytest.approx(2**4, rel=0.5)  # w^(−a) beyond w
    noisy, target = noise.pair(image, rng(0))
    assert noisy.max() < 0.5
    assert target.max() > 10 * bright.max()  # a firefly, not clipped
    np.testing.assert_allclose(noise.restored(bright.astype(np.float32)), image, atol=1e-6)


def test_tone_mapping_and_back():
    picture = np.linspace(0, 0.98, 50)
    np.testing.assert_allclose(tone_mapped(light(picture)), picture, atol=1e-12)
    assert tone_mapped(np.array([-1.0]))[0] == 0


def test_mri_keeps_a_tenth_and_the_mean():
    image, noise = ramp(1, 48, 64), Mri()
    kept = [np.mean(noise.trial(image, rng(i))[1].gain == 0) for i in range(20)]
    assert 0.07 < np.mean(kept) < 0.14
    mean = draws(noise, image, 4000, Mri.tested).mean(axis=0)
    assert np.abs(mean - image).mean() < 0.01
    assert correlation(mean, image) > 0.99
    frequency = frequencies((48, 64))
    assert frequency[0, 0] == 0
    assert frequency[24, 0] == frequency[0, 32] == 1
    gains = np.mean([noise.trial(image, rng(i))[1].gain[0] for i in range(300)], axis=0)
    assert gains[0, 0] == 0  # the mean of the picture is always measured
    assert gains[24, 0] == pytest.approx(1 - 0.025, abs=0.03)
    assert gains[0, 16] == pytest.approx(1 - 0.025**0.5, abs=0.08)


def test_mri_is_real_and_puts_back_what_was_measured():
    image, noise = ramp(1, 33, 40), Mri()
    noisy, known = noise.trial(image, rng(0))
    measured = known.gain[0] == 0
    spectrum = np.fft.fftn(image[0])
    np.testing.assert_array_equal(measured, np.roll(np.flip(measured, (0, 1)), 1, (0, 1)))  # k with −k
    assert abs(np.fft.fftn(noisy[0])[~measured]).max() < 1e-3
    output = rng(1).normal(size=image.shape).astype(np.float32)
    restored = np.fft.fftn(noise.restored(output, known)[0])
    np.testing.assert_allclose(restored[measured], spectrum[measured], atol=2e-3)
    np.testing.assert_allclose(restored[~measured], np.fft.fftn(output[0])[~measured], atol=2e-3)
    np.testing.assert_allclose(noise.restored(image, known), image, atol=1e-5)
    np.testing.assert_array_equal(noise.restored(output), output)


def test_what_was_measured_has_no_gradient():
    image = ramp(1, 16, 16)
    _, (target, measured, gain) = Mri().pair(image, rng(0))
    output = Tensor(rng(1).normal(size=(1, 1, 16, 16)), requires_grad=True)
    put_back = F.fourier_filter(output, Tensor(gain[None].astype(np.float64))) + Tensor(measured[None].astype(np.float64))
    losses.squared_error(put_back, target[None]).backward()
    slope = np.fft.fftn(output.grad[0, 0])
    assert abs(slope[gain[0] == 0]).max() < 1e-9
    assert abs(slope[gain[0] == 1]).max() > 1e-3


# hidden pixels


def test_blind_spot_hides_one_pixel_a_cell():
    image = rng(0).normal(size=(2, 20, 33)).astype(np.float32)
    seen, (target, mask) = BlindSpot(cell=8).pair(image, rng(1))
    np.testing.assert_array_equal(target, image)
    np.testing.assert_array_equal(mask[0], mask[1])
    assert mask[0].sum() == 3 * 5
    cells = [mask[0, y : y + 8, x : x + 8].sum() for y in range(0, 20, 8) for x in range(0, 33, 8)]
    assert set(cells) == {1}
    hidden = mask[0] == 1
    np.testing.assert_array_equal(seen[:, ~hidden], image[:, ~hidden])
    assert (seen[:, hidden] != image[:, hidden]).all()  # never itself
    for y, x in np.argwhere(hidden):
        around = image[:, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3].reshape(2, -1)
        assert any(np.array_equal(seen[:, y, x], pixel) for pixel in around.T)


def test_blind_spot_takes_every_neighbour_alike():
    image = np.arange(25, dtype=np.float32).reshape(1, 5, 5)
    generator, counts = rng(0), np.zeros(25)
    for _ in range(20_000):
        seen, (_, mask) = BlindSpot(cell=5).pair(image, generator)
        if mask[0, 2, 2]:
            counts[int(seen[0, 2, 2])] += 1
    others = np.delete(counts, 12)
    assert counts[12] == 0
    assert others.min() > 0.4 * others.mean()
    assert others.max() < 1.8 * others.mean()
