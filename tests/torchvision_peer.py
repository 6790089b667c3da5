"""torchvision for tests that compare with it."""

import sys
import warnings

import pytest


def import_torchvision():
    """torchvision, or skip; one built for CUDA lacks two operators beside a CPU build of torch, and
    loads once they are declared.
    """
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return pytest.importorskip(
                "torchvision", reason="needs torchvision: pip install --no-deps torchvision"
            )
        except RuntimeError:
            for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[module]
            library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(
                    f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )
            import torchvision

            torchvision.declared_operators = library  # pyright: ignore (they last as long as this reference)
            return torchvision
