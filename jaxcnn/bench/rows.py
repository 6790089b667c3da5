"""What the suites of `bench` measure: one row for each network, accelerators' in order of worth."""

from typing import NamedTuple


class Row(NamedTuple):
    """A model or an experiment by name, with overrides; `kind` "steps" (training and inference), or
    "epoch" and "replicas" (jaxcnn.bench.suites).

    batch_size: several, ascending and separated by commas, are tried, and the one with most images
        a second is measured.
    toy: overrides in their place, with which a suite is tried.
    """

    family: str
    name: str
    overrides: tuple[str, ...] = ()
    batch_size: str = "8"
    dtype: str = "float32"
    toy: tuple[str, ...] = ()
    kind: str = "steps"


_CIFAR = ("model.stem=cifar", "model.num_classes=10", "data.shape=32,32,3")
_TINY_RESNET = ("model.stage_sizes=1,1", "model.widths=8,16", "data.shape=32,32,3")
_TINY_UNET = ("model.widths=4,8", "data.shape=16,16,1")
_TINY_VGG = (
    *("model.stage_sizes=1,1", "model.widths=4,8", "model.hidden=8", "model.pool_size=1,1"),
    "data.shape=32,32,3",
)
_TINY_DENSE = ("model.stage_sizes=1,1", "model.growth=4", "data.shape=32,32,3")
_TINY_CONVNEXT = ("model.stage_sizes=1,1", "model.widths=8,16", "data.shape=32,32,3")
_TINY_MOBILE = ("model.width=0.25", "data.shape=32,32,3")
_TINY_CLIP = ("model.widths=4,8,8,8", "model.blocks=1", "data.shape=4,32,32,3")

CPU = (
    Row("LeNet", "lenet5_modern", (), "256", toy=()),
    Row("Fashion CNN", "fashion_cnn", (), "64", toy=()),
    Row(
        *("AlexNet", "alexnet_torchvision", (), "16"),
        toy=("model.widths=4,8,8,8,8", "model.hidden=8", "data.shape=67,67,3"),
    ),
    Row("VGG", "vgg11", (), "8", toy=_TINY_VGG),
    Row("GoogLeNet", "googlenet_bn", (), "16", toy=("data.shape=64,64,3",)),
    Row(
        *("Inception", "inception_v3", ("model.auxiliary_head=False",), "8"),
        toy=("model.auxiliary_head=False", "data.shape=75,75,3"),
    ),
    Row("ResNet", "resnet18", _CIFAR, "64", toy=_TINY_RESNET),
    Row("ResNet", "resnet50", (), "8", toy=_TINY_RESNET),
    Row(
        "ResNeXt",
        "resnext50_32x4d",
        (),
        "8",
        toy=(*_TINY_RESNET, "model.groups=2", "model.base_width=64"),
    ),
    Row("SE", "seresnet50", (), "8", toy=_TINY_RESNET),
    Row("DenseNet", "densenet121", ("data.shape=128,128,3",), "8", toy=_TINY_DENSE),
    Row("MobileNet", "mobilenet_v2", ("data.shape=96,96,3",), "16", toy=_TINY_MOBILE),
    Row("MobileNet", "mobilenet_v3_large", ("data.shape=96,96,3",), "16", toy=_TINY_MOBILE),
    Row("EfficientNet", "efficientnet_b0", ("data.shape=128,128,3",), "8", toy=_TINY_MOBILE),
    Row("ConvNeXt", "convnext_tiny", (), "4", toy=_TINY_CONVNEXT),
    Row("U-Net", "unet", ("data.shape=128,128,1",), "2", toy=_TINY_UNET),
    Row("CenterNet", "scenes_detection", (), "32", toy=("model.features=8",)),
    Row("CRNN", "emnist_crnn", (), "32", toy=("model.hidden=8",)),
    Row("FCN", "fcn_1d", (), "64", toy=("data.shape=32,1",)),
    Row(
        *("C3D", "c3d", ("data.shape=16,56,56,3",), "2"),
        toy=("model.widths=(4,),(4,),(4,4)", "model.hidden=8", "data.shape=4,16,16,3"),
    ),
    Row("R3D", "r3d_18", ("data.shape=8,56,56,3",), "2", toy=_TINY_CLIP),
)


def _both(family: str, name: str, sizes: str, toy: tuple[str, ...], *overrides: str) -> list[Row]:
    return [Row(family, name, overrides, sizes, dtype, toy) for dtype in ("bfloat16", "float32")]


_LARGE = "64,128,256,512"
_RESNET_50, _RESNET_50_32 = _both("ResNet", "resnet50", _LARGE, _TINY_RESNET)
_REST = (
    _both("ResNet", "resnet18", _LARGE, _TINY_RESNET),
    _both("VGG", "vgg16", _LARGE, _TINY_VGG),
    _both("ConvNeXt", "convnext_tiny", _LARGE, _TINY_CONVNEXT),
    _both("EfficientNet", "efficientnet_b0", _LARGE, _TINY_MOBILE),
    _both("MobileNet", "mobilenet_v2", _LARGE, _TINY_MOBILE),
    _both("U-Net", "unet", "8,16,32,64", _TINY_UNET, "data.shape=256,256,3"),
    _both("CenterNet", "scenes_detection", "256,512,1024", ("model.features=8",)),
)
ACCELERATOR = (
    _RESNET_50,
    Row(
        *("LeNet", "lenet5_modern", ("data.num_train=60000",), "128"),
        toy=("data.num_train=64",),
        kind="epoch",
    ),
    Row("LeNet", "lenet5_modern", (), "64", toy=(), kind="replicas"),
    _RESNET_50_32,
    # all in bfloat16 before any in float32
    *(rows[0] for rows in _REST),
    *(rows[1] for rows in _REST),
)
SUITES = {"cpu": CPU, "accelerator": ACCELERATOR}
