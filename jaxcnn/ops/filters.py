"""Handcrafted filters: the kernels that images were analysed with before kernels were learned.

Every function returns a bank, float64 NumPy [kh, kw, K], to be *correlated* with an image, as the
layers of networks do: the weight at [i, j] meets the pixel i rows and j columns on. The first
filter of a pair answers to change along y (downwards), the second along x (to the right).
Derivatives are scaled to be derivatives: a ramp that rises by 1 a pixel gives 1, whichever operator
it is.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from jaxcnn.errors import ConfigError

_DIFFERENCE = np.array([-1.0, 0.0, 1.0]) / 2


def sobel() -> Float64[np.ndarray, "3 3 2"]:
    """Derivatives along y and x, smoothed by [1, 2, 1] / 4. [3, 3, 2].

    Sobel, Feldman, "A 3x3 Isotropic Gradient Operator for Image Processing", talk at the Stanford
    Artificial Intelligence Project, 1968; in print in Duda, Hart, "Pattern Classification and Scene
    Analysis", 1973, page 271.
    """
    return _gradient([1, 2, 1])


def prewitt() -> Float64[np.ndarray, "3 3 2"]:
    """Derivatives along y and x, smoothed by [1, 1, 1] / 3. [3, 3, 2]. Prewitt, "Object Enhancement
    and Extraction", 1970.
    """
    return _gradient([1, 1, 1])


def scharr() -> Float64[np.ndarray, "3 3 2"]:
    """Derivatives along y and x, smoothed by [3, 10, 3] / 16, whose direction errs least. [3, 3,
    2].

    Scharr, "Optimale Operatoren in der Digitalen Bildverarbeitung", dissertation, Heidelberg 2000.
    """
    return _gradient([3, 10, 3])


def _gradient(smoothing: list[int]) -> Float64[np.ndarray, "3 3 2"]:
    along_y = np.outer(_DIFFERENCE, np.array(smoothing) / sum(smoothing))
    return np.stack([along_y, along_y.T], axis=-1)


def course_edges() -> Float64[np.ndarray, "3 3 2"]:
    """The horizontal and the vertical edge detector of the course notes, as printed there, -6 times
    Prewitt's derivatives. [3, 3, 2].

    They are positive where bright lies above dark, and left of dark. Ng, "Convolutional Neural
    Networks", course of the Deep Learning Specialization, week 1, "Edge Detection Example": columns
    10 10 10 0 0 0 become 0 30 30 0.
    """
    vertical = np.array([[1.0, 0.0, -1.0]] * 3)
    return np.stack([vertical.T, vertical], axis=-1)


def laplacian(*, neighbours: int = 4) -> Float64[np.ndarray, "3 3 1"]:
    """Second derivative along y plus that along x, from the 4 or 8 nearest pixels: y^2 + x^2 gives
    4. [3, 3, 1].

    Gonzalez, Woods, "Digital Image Processing", chapter "Using the Second Derivative for Image
    Sharpening: the Laplacian"; the kernel of 8 neighbours, printed there as 1s around -8, is
    divided by 3 here, so that both estimate the same.
    """
    if neighbours not in (4, 8):
        raise ConfigError(
            f"laplacian: neighbours = {neighbours}; a pixel has 4 neighbours along the axes, or 8 "
            "with the diagonal ones"
        )
    kernel = np.array([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    if neighbours == 8:
        kernel = np.array([[1.0, 1.0, 1.0], [1.0, -8.0, 1.0], [1.0, 1.0, 1.0]]) / 3
    return kernel[..., None]


def gaussian(*, sigma: float = 1.0, truncate: float = 4.0) -> Float64[np.ndarray, "k k 1"]:
    """Samples of a Gaussian of standard deviation `sigma` pixels out to `truncate` of them, of sum
    1. [k, k, 1].
    """
    profile, _ = _profile("gaussian", sigma, truncate)
    return np.outer(profile, profile)[..., None]


def laplacian_of_gaussian(
    *, sigma: float = 1.0, truncate: float = 4.0
) -> Float64[np.ndarray, "k k 1"]:
    """The Laplacian of a Gaussian ("Mexican hat", negative in the middle), of sum 0: edges are its
    zero crossings. [k, k, 1].

    Marr, Hildreth, "Theory of Edge Detection", 1980. The samples' small sum is taken off evenly, so
    that an even surface gives exactly 0.
    """
    profile, x = _profile("laplacian_of_gaussian", sigma, truncate)
    curvature = (x**2 / sigma**4 - 1 / sigma**2) * profile
    kernel = np.outer(curvature, profile) + np.outer(profile, curvature)
    return (kernel - kernel.mean())[..., None]


def _profile(
    name: str, sigma: float, truncate: float
) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """(samples of a Gaussian of sum 1, their positions)."""
    if not (sigma > 0 and truncate > 0):
        raise ConfigError(
            f"{name}: sigma = {sigma} and truncate = {truncate}; both must be positive, in pixels "
            "and in standard deviations"
        )
    radius = max(1, int(truncate * sigma + 0.5))
    x = np.arange(-radius, radius + 1.0)
    samples = np.exp(-(x**2) / (2 * sigma**2))
    return samples / samples.sum(), x


def gabor(
    *,
    wavelength: float,
    orientation: float = 0.0,
    phase: float = 0.0,
    bandwidth: float = 1.0,
    aspect: float = 1.0,
    radius: int | None = None,
) -> Float64[np.ndarray, "k k 1"]:
    """A cosine wave under a Gaussian window. [k, k, 1] with k = 2 radius + 1.

    Daugman, "Uncertainty relation for resolution in space, spatial frequency, and orientation
    optimized by two-dimensional visual cortical filters", 1985; Jones, Palmer, 1987.

    Args:
        wavelength: pixels a period, at least 2.
        orientation: direction in which the wave runs, in radians from x towards y; 0 answers to
            vertical edges and bars.
        phase: radians; 0 is even (bars), pi / 2 odd (edges).
        bandwidth: octaves between the frequencies of half response; it sets the window's size.
        aspect: height of the window along the bars, as a multiple of its size across them.
        radius: pixels; by default three standard deviations of the longer side.
    """
    if not (wavelength >= 2 and bandwidth > 0 and aspect > 0):
        raise ConfigError(
            f"gabor: wavelength = {wavelength} must be at least 2 pixels; bandwidth = {bandwidth} "
            f"octaves and aspect = {aspect} positive"
        )
    # From the half responses of a Gaussian window: Petkov, Kruizinga, "Computational models of
    # visual neurons", 1997, section 2.
    across = (
        wavelength / math.pi * math.sqrt(math.log(2) / 2) * (2**bandwidth + 1) / (2**bandwidth - 1)
    )
    along = across * aspect
    radius = math.ceil(3 * max(across, along)) if radius is None else radius
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(float)
    u = x * math.cos(orientation) + y * math.sin(orientation)
    v = -x * math.sin(orientation) + y * math.cos(orientation)
    window = np.exp(-(u**2 / across**2 + v**2 / along**2) / 2) / (2 * math.pi * across * along)
    return (window * np.cos(2 * math.pi * u / wavelength + phase))[..., None]


def gabor_bank(
    *,
    orientations: int = 4,
    wavelengths: tuple[float, ...] = (4.0,),
    phases: tuple[float, ...] = (0.0, math.pi / 2),
    radius: int | None = None,
) -> Float64[np.ndarray, "k k K"]:
    """Gabor filters in every combination, phases running fastest, then orientations i pi / n: [k,
    k, wavelengths * orientations * phases].

    Each has sum 0, so that even surfaces give 0, and positive weights of sum 1, so that images in
    [0, 1] give answers in [-1, 1].
    """
    if orientations < 1 or not wavelengths or not phases:
        raise ConfigError(
            f"gabor_bank: {orientations} orientations, wavelengths {wavelengths}, phases "
            f"{phases}; there must be one of each"
        )
    if radius is None:
        radius = gabor(wavelength=max(wavelengths)).shape[0] // 2
    settings = [
        (w, math.pi * i / orientations, p)
        for w in wavelengths
        for i in range(orientations)
        for p in phases
    ]
    bank = [
        gabor(wavelength=w, orientation=angle, phase=p, radius=radius)[..., 0]
        for w, angle, p in settings
    ]
    bank = [kernel - kernel.mean() for kernel in bank]
    return np.stack([kernel / kernel[kernel > 0].sum() for kernel in bank], axis=-1)


def steered(
    *, orientations: int = 8, derivatives: Callable[[], Float64[np.ndarray, "kh kw 2"]] = sobel
) -> Float64[np.ndarray, "kh kw {orientations}"]:
    """Derivatives in the directions 2 pi i / n from x towards y, each a combination of the two
    given ones. [kh, kw, orientations].

    Rectified, they are a soft histogram of gradient directions. Freeman, Adelson, "The Design and
    Use of Steerable Filters", 1991.
    """
    if orientations < 1:
        raise ConfigError(f"steered: orientations = {orientations}; there must be at least one")
    angles = 2 * np.pi * np.arange(orientations) / orientations
    return derivatives() @ np.stack([np.sin(angles), np.cos(angles)])
