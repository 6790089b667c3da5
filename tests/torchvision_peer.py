"""torchvision for tests that compare with it."""

import importlib.util
from typing import Any

import pytest

from jaxcnn.bench import torch_networks


def import_torchvision() -> Any:
    """torchvision, or skip; see `torch_networks.import_torchvision`."""
    pytest.importorskip("torch")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs torchvision: pip install --no-deps torchvision")
    return torch_networks.import_torchvision()
