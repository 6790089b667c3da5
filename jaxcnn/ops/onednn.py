"""oneDNN convolutions on CPU (in preparation): never available yet, so that `jaxcnn.ops.convolution` falls back to pure JAX."""

from jaxcnn.errors import DependencyError


def available(*, warn: bool = False) -> bool:
    """True where the native convolutions can be used."""
    del warn
    return False


def require() -> None:
    """Raise DependencyError where the native convolutions cannot be used."""
    raise DependencyError("The oneDNN convolutions are not part of this version; use the formulation 'fast'.")


def supports(geometry, dtype, channels, features) -> bool:
    """True where oneDNN computes this convolution."""
    del geometry, dtype, channels, features
    return False
