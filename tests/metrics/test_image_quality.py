"""Image quality against scikit-image and Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.errors import DataError
from jaxcnn.metrics import image_quality


def pair(shape, seed=0, noise=0.1):
    generator = np.random.default_rng(seed)
    truth = generator.random(shape)
    return (truth + noise * generator.normal(size=shape)).clip(0, 1), truth


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("noise", [0.01, 0.3])
def test_psnr_and_ssim_equal_scikit_image(channels, noise):
    metrics = pytest.importorskip("skimage.metrics")
    image, truth = pair((2, 20, 27, channels), noise=noise)
    psnr, ssim = jax.jit(lambda a, b: (image_quality.psnr(a, b), image_quality.ssim(a, b)))(
        jnp.asarray(image, jnp.float32), jnp.asarray(truth, jnp.float32)
    )
    for i in range(2):
        assert psnr[i] == pytest.approx(
            metrics.peak_signal_noise_ratio(truth[i], image[i], data_range=1.0), abs=1e-3
        )
        options = {
            "gaussian_weights": True,
            "sigma": 1.5,
            "use_sample_covariance": False,
            "data_range": 1.0,
            "channel_axis": -1,
        }
        assert ssim[i] == pytest.approx(
            metrics.structural_similarity(truth[i], image[i], **options), abs=1e-5
        )
    a, b = (jnp.asarray(x, jnp.float32) for x in (image, truth))
    np.testing.assert_allclose(image_quality.ssim(a[None], b[None])[0], ssim, atol=1e-6)
    np.testing.assert_allclose(image_quality.ssim(a[1], b[1]), ssim[1], atol=1e-6)


def test_equal_images_are_perfect():
    image = jnp.asarray(pair((2, 12, 12, 1))[0], jnp.float32)
    ssim = jax.jit(image_quality.ssim)
    np.testing.assert_allclose(ssim(image, image), 1, atol=1e-6)
    assert bool(jnp.all(jnp.isinf(image_quality.psnr(image, image))))
    flat = jnp.full((2, 12, 12, 1), 0.7)
    np.testing.assert_allclose(ssim(flat, flat), 1, atol=1e-6)


def test_luma_equals_scikit_image():
    color = pytest.importorskip("skimage.color")
    image = pair((2, 5, 6, 3))[0]
    np.testing.assert_allclose(
        image_quality.luma(jnp.asarray(image, jnp.float32))[..., 0],
        color.rgb2ycbcr(image)[..., 0] / 255,
        atol=1e-6,
    )


@pytest.mark.parametrize("size", [(10, 14), (40, 56), (9, 33)])
def test_bicubic_equals_pillow(size):
    Image = pytest.importorskip("PIL.Image")
    image = pair((20, 28, 2))[0].astype(np.float32)
    ours = image_quality.resize_bicubic(jnp.asarray(image)[None], size)
    assert ours.shape == (1, *size, 2)
    for channel in range(2):
        plane = Image.fromarray(np.ascontiguousarray(image[..., channel]))
        expected = np.asarray(plane.resize(size[::-1], Image.Resampling.BICUBIC))
        np.testing.assert_allclose(ours[0, ..., channel], expected, atol=1e-5)


def test_shave_and_too_small_images():
    image = jnp.arange(2 * 6 * 8 * 1, dtype=jnp.float32).reshape(2, 6, 8, 1)
    np.testing.assert_array_equal(image_quality.shave(image, 2), image[:, 2:4, 2:6])
    np.testing.assert_array_equal(image_quality.shave(image, 0), image)
    with pytest.raises(ValueError, match="6 x 8; the window needs at least 11 x 11"):
        image_quality.ssim(image, image)


@pytest.mark.parametrize("name", ["psnr", "ssim"])
def test_bytes_whose_differences_would_wrap_are_refused(name):
    """0 and 255 differed by 1."""
    measure, bright = getattr(image_quality, name), jnp.full((1, 16, 16, 3), 255, jnp.uint8)
    for pair in ((0 * bright, bright), (bright, bright / 255), (bright / 255, bright)):
        with pytest.raises(DataError, match=f"{name}: an image has dtype uint8; .* / 255"):
            measure(*pair)
    with pytest.raises(DataError, match="luma: an image has dtype uint8"):
        image_quality.luma(bright)
