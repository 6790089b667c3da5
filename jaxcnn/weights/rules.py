"""Where the names of torchvision and timm go in our models: one rule table (see
`jaxcnn.weights.load.Rule`) for each family; those of Keras are in jaxcnn.weights.keras_rules.

The two PyTorch packages name some families differently; where the names cannot be confused, one
table holds both.
"""

from typing import Any

from jaxcnn.errors import ConfigError

# torchvision.models.resnet, timm.models.resnet (with its SE layers)
RESNET = (
    (r"conv1\.", "stem/conv/"),
    (r"bn1\.", "stem/norm/"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.", r"stage\1_block\2/conv\3/conv/"),
    (r"layer(\d)\.(\d+)\.bn(\d)\.", r"stage\1_block\2/conv\3/norm/"),
    (r"layer(\d)\.(\d+)\.downsample\.0\.", r"stage\1_block\2/shortcut/conv/"),
    (r"layer(\d)\.(\d+)\.downsample\.1\.", r"stage\1_block\2/shortcut/norm/"),
    (r"layer(\d)\.(\d+)\.se\.fc1\.", r"stage\1_block\2/squeeze_excite/reduce/"),
    (r"layer(\d)\.(\d+)\.se\.fc2\.", r"stage\1_block\2/squeeze_excite/expand/"),
    (r"fc\.", "head/"),
)

# timm.models.resnetv2 with BatchNorm; its stages count from 0
PRE_ACTIVATION_RESNET = (
    (r"stem\.conv\.", "stem/conv/"),
    *(
        rule
        for stage in range(4)
        for rule in (
            (
                rf"stages\.{stage}\.blocks\.(\d+)\.conv(\d)\.",
                rf"stage{stage + 1}_block\1/conv\2/conv/",
            ),
            (rf"stages\.{stage}\.blocks\.(\d+)\.norm(\d)\.", rf"stage{stage + 1}_block\1/norm\2/"),
            (
                rf"stages\.{stage}\.blocks\.(\d+)\.downsample\.conv\.",
                rf"stage{stage + 1}_block\1/shortcut/conv/",
            ),
        )
    ),
    (r"norm\.", "norm/"),
    (r"head\.fc\.", "head/"),
)

# torchvision.models.alexnet
ALEXNET = (
    *(
        (rf"features\.{index}\.", f"conv{number}/")
        for number, index in enumerate((0, 3, 6, 8, 10), 1)
    ),
    (r"classifier\.1\.", "dense1/", (256, 6, 6)),
    (r"classifier\.4\.", "dense2/"),
    (r"classifier\.6\.", "head/"),
)

# torchvision.models.googlenet; its fourth branch pools and projects
GOOGLENET = (
    *(
        (rf"conv(\d)\.{theirs}\.", rf"conv\1/{ours}/")
        for theirs, ours in (("conv", "conv"), ("bn", "norm"))
    ),
    *(
        (rf"inception(\w\w)\.{branch}\.{theirs}\.", rf"inception_\1/{name}/{ours}/")
        for branch, name in (
            (r"branch1", "conv1x1"),
            (r"branch2\.0", "reduce3x3"),
            (r"branch2\.1", "conv3x3"),
            (r"branch3\.0", "reduce5x5"),
            (r"branch3\.1", "conv5x5"),
            (r"branch4\.1", "project"),
        )
        for theirs, ours in (("conv", "conv"), ("bn", "norm"))
    ),
    (r"aux(\d)\.conv\.conv\.", r"auxiliary\1/conv/conv/"),
    (r"aux(\d)\.conv\.bn\.", r"auxiliary\1/conv/norm/"),
    (r"aux(\d)\.fc1\.", r"auxiliary\1/dense/", (128, 4, 4)),
    (r"aux(\d)\.fc2\.", r"auxiliary\1/head/"),
    (r"fc\.", "head/"),
)

# torchvision.models.inception, timm.models.inception_v3
INCEPTION_V3 = (
    (r"Conv2d_(\w+)\.conv\.", r"conv_\1/conv/"),
    (r"Conv2d_(\w+)\.bn\.", r"conv_\1/norm/"),
    (r"Mixed_(\w+)\.(\w+)\.conv\.", r"mixed_\1/\2/conv/"),
    (r"Mixed_(\w+)\.(\w+)\.bn\.", r"mixed_\1/\2/norm/"),
    (r"AuxLogits\.conv(\d)\.conv\.", r"auxiliary/conv\1/conv/"),
    (r"AuxLogits\.conv(\d)\.bn\.", r"auxiliary/conv\1/norm/"),
    (r"AuxLogits\.fc\.", "auxiliary/head/"),
    (r"fc\.", "head/"),
)

# torchvision.models.densenet, timm.models.densenet; their layers count from 1
DENSENET = (
    (r"features\.conv0\.", "stem/conv/"),
    (r"features\.norm0\.", "stem/norm/"),
    *(
        (
            rf"features\.denseblock(\d)\.denselayer{number}\.(conv|norm)(\d)\.",
            rf"stage\1_layer{number - 1}/\2\3/",
        )
        for number in range(1, 65)
    ),
    (r"features\.transition(\d)\.(conv|norm)\.", r"transition\1/\2/"),
    (r"features\.norm5\.", "norm/"),
    (r"classifier\.", "head/"),
)

# torchvision.models.mobilenetv2: the first block has no expansion
MOBILENET_V2 = (
    (r"features\.0\.0\.", "stem/conv/"),
    (r"features\.0\.1\.", "stem/norm/"),
    (r"features\.18\.0\.", "last/conv/"),
    (r"features\.18\.1\.", "last/norm/"),
    (r"features\.1\.conv\.0\.0\.", "block1/depthwise/conv/"),
    (r"features\.1\.conv\.0\.1\.", "block1/depthwise/norm/"),
    (r"features\.1\.conv\.1\.", "block1/project/conv/"),
    (r"features\.1\.conv\.2\.", "block1/project/norm/"),
    (r"features\.(\d+)\.conv\.0\.0\.", r"block\1/expand/conv/"),
    (r"features\.(\d+)\.conv\.0\.1\.", r"block\1/expand/norm/"),
    (r"features\.(\d+)\.conv\.1\.0\.", r"block\1/depthwise/conv/"),
    (r"features\.(\d+)\.conv\.1\.1\.", r"block\1/depthwise/norm/"),
    (r"features\.(\d+)\.conv\.2\.", r"block\1/project/conv/"),
    (r"features\.(\d+)\.conv\.3\.", r"block\1/project/norm/"),
    (r"classifier\.1\.", "head/"),
)


def inverted_residual_rules(
    theirs: str, ours: str, *, expands: bool, attends: bool
) -> tuple[tuple[str, str], ...]:
    """torchvision's MobileNetV3 and EfficientNet count the layers of a block, so where one goes
    depends on which layers the block has.
    """
    parts = (
        (["expand"] if expands else [])
        + ["depthwise"]
        + (["squeeze_excite"] if attends else [])
        + ["project"]
    )
    rules = []
    for index, part in enumerate(parts):
        names = (
            (("fc1", "reduce"), ("fc2", "expand"))
            if part == "squeeze_excite"
            else (("0", "conv"), ("1", "norm"))
        )
        rules += [
            (rf"{theirs}\.block\.{index}\.{their_name}\.", rf"{ours}/{part}/{our_name}/")
            for their_name, our_name in names
        ]
    return tuple(rules)


def mobilenet_v3_rules(model: Any) -> tuple[tuple, ...]:
    """torchvision.models.mobilenetv3."""
    last = len(model.blocks) + 1
    rules = [(r"features\.0\.0\.", "stem/conv/"), (r"features\.0\.1\.", "stem/norm/")]
    rules += [(rf"features\.{last}\.0\.", "last/conv/"), (rf"features\.{last}\.1\.", "last/norm/")]
    width = 16  # of the stem
    for index, (_, expanded, features, attends, _, _) in enumerate(model.blocks, 1):
        rules += inverted_residual_rules(
            rf"features\.{index}", f"block{index}", expands=expanded != width, attends=attends
        )
        width = features
    return (*rules, (r"classifier\.0\.", "dense/"), (r"classifier\.3\.", "head/"))


# torchvision.models.efficientnet, then timm's names; the blocks of the first stage have no
# expansion
EFFICIENTNET = (
    (r"features\.0\.0\.", "stem/conv/"),
    (r"features\.0\.1\.", "stem/norm/"),
    (r"features\.8\.0\.", "last/conv/"),
    (r"features\.8\.1\.", "last/norm/"),
    *inverted_residual_rules(r"features\.1\.(\d+)", r"stage1_block\1", expands=False, attends=True),
    *inverted_residual_rules(
        r"features\.(\d)\.(\d+)", r"stage\1_block\2", expands=True, attends=True
    ),
    (r"classifier\.1\.", "head/"),
    (r"conv_stem\.", "stem/conv/"),
    (r"bn1\.", "stem/norm/"),
    (r"conv_head\.", "last/conv/"),
    (r"bn2\.", "last/norm/"),
    *(
        (rf"blocks\.{stage}\.(\d+)\.{theirs}\.", rf"stage{stage + 1}_block\1/{ours}/")
        for stage in range(7)
        for theirs, ours in (
            (r"se\.conv_reduce", "squeeze_excite/reduce"),
            (r"se\.conv_expand", "squeeze_excite/expand"),
            ("conv_dw", "depthwise/conv"),
            ("conv_pw", "expand/conv" if stage else "project/conv"),
            ("conv_pwl", "project/conv"),
            ("bn1", "expand/norm" if stage else "depthwise/norm"),
            ("bn2", "depthwise/norm" if stage else "project/norm"),
            ("bn3", "project/norm"),
        )
    ),
    (r"classifier\.", "head/"),
)

# torchvision.models.convnext: every second entry of its sequence is a stage; then
# timm.models.convnext, whose stages count from 0
CONVNEXT = (
    (r"features\.0\.0\.", "stem/"),
    (r"features\.0\.1\.", "stem_norm/"),
    (r"classifier\.0\.", "norm/"),
    (r"classifier\.2\.", "head/"),
    (r"stem\.0\.", "stem/"),
    (r"stem\.1\.", "stem_norm/"),
    (r"head\.norm\.", "norm/"),
    (r"head\.fc\.", "head/"),
    *(
        (pattern, f"stage{stage}_{ours}")
        for stage in range(1, 5)
        for pattern, ours in (
            (rf"features\.{2 * stage - 2}\.0\.", "norm/"),
            (rf"features\.{2 * stage - 2}\.1\.", "downsample/"),
            (rf"features\.{2 * stage - 1}\.(\d+)\.block\.0\.", r"block\1/depthwise/"),
            (rf"features\.{2 * stage - 1}\.(\d+)\.block\.2\.", r"block\1/norm/"),
            (rf"features\.{2 * stage - 1}\.(\d+)\.block\.3\.", r"block\1/expand/"),
            (rf"features\.{2 * stage - 1}\.(\d+)\.block\.5\.", r"block\1/project/"),
            (rf"features\.{2 * stage - 1}\.(\d+)\.layer_scale", r"block\1/layer_scale"),
            (rf"stages\.{stage - 1}\.downsample\.0\.", "norm/"),
            (rf"stages\.{stage - 1}\.downsample\.1\.", "downsample/"),
            (rf"stages\.{stage - 1}\.blocks\.(\d+)\.conv_dw\.", r"block\1/depthwise/"),
            (rf"stages\.{stage - 1}\.blocks\.(\d+)\.norm\.", r"block\1/norm/"),
            (rf"stages\.{stage - 1}\.blocks\.(\d+)\.mlp\.fc1\.", r"block\1/expand/"),
            (rf"stages\.{stage - 1}\.blocks\.(\d+)\.mlp\.fc2\.", r"block\1/project/"),
            (rf"stages\.{stage - 1}\.blocks\.(\d+)\.gamma", r"block\1/layer_scale"),
        )
    ),
)


def vgg_rules(model: Any) -> tuple[tuple, ...]:
    """torchvision.models.vgg counts all its layers in one sequence; timm's hidden dense layers are
    convolutions.
    """
    rules, index = [], 0
    for stage, size in enumerate(model.stage_sizes, 1):
        for number in range(1, size + 1):
            rules.append((rf"features\.{index}\.", f"conv{stage}_{number}/"))
            if model.batch_norm:
                rules.append((rf"features\.{index + 1}\.", f"norm{stage}_{number}/"))
            index += 3 if model.batch_norm else 2
        index += 1  # the pooling
    flattened = (model.widths[-1], *(model.pool_size or (1, 1)))
    rules += [
        (r"classifier\.0\.", "dense1/", flattened),
        (r"classifier\.3\.", "dense2/"),
        (r"classifier\.6\.", "head/"),
    ]
    rules += [
        (r"pre_logits\.fc1\.", "dense1/"),
        (r"pre_logits\.fc2\.", "dense2/"),
        (r"head\.fc\.", "head/"),
    ]
    return tuple(rules)


# torchvision.models.video.resnet: where its names go
R3D = (
    (r"stem\.0\.", "stem/conv/"),
    (r"stem\.1\.", "stem/norm/"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.0\.", r"stage\1_block\2/conv\3/conv/"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.1\.", r"stage\1_block\2/conv\3/norm/"),
    (r"layer(\d)\.(\d+)\.downsample\.0\.", r"stage\1_block\2/shortcut/conv/"),
    (r"layer(\d)\.(\d+)\.downsample\.1\.", r"stage\1_block\2/shortcut/norm/"),
    (r"fc\.", "head/"),
)
R2PLUS1D = (
    (r"stem\.0\.", "stem_spatial/conv/"),
    (r"stem\.1\.", "stem_spatial/norm/"),
    (r"stem\.3\.", "stem_temporal/conv/"),
    (r"stem\.4\.", "stem_temporal/norm/"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.0\.0\.", r"stage\1_block\2/conv\3_spatial/conv/"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.0\.1\.", r"stage\1_block\2/conv\3_spatial/norm/"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.0\.3\.", r"stage\1_block\2/conv\3_temporal/conv/"),
    (r"layer(\d)\.(\d+)\.conv(\d)\.1\.", r"stage\1_block\2/conv\3_temporal/norm/"),
    *R3D[4:],
)


def rules_for(model: Any) -> tuple[tuple, ...]:
    """The rules that turn torchvision's and timm's names of this network into ours. Raises
    ConfigError for a network that neither has.
    """
    name = type(model).__name__
    if name == "ResNet":
        return PRE_ACTIVATION_RESNET if model.block.__name__.startswith("PreAct") else RESNET
    if name == "VGG":
        return vgg_rules(model)
    if name == "MobileNetV3":
        return mobilenet_v3_rules(model)
    if name == "VideoResNet":
        return R2PLUS1D if model.factorized else R3D
    tables = {
        "AlexNet": ALEXNET,
        "ConvNeXt": CONVNEXT,
        "DenseNet": DENSENET,
        "EfficientNet": EFFICIENTNET,
        "GoogLeNet": GOOGLENET,
        "InceptionV3": INCEPTION_V3,
        "MobileNetV2": MOBILENET_V2,
    }
    if name in tables:
        return tables[name]
    raise ConfigError(
        f"weights: no rules for the model {name}; give your own table of (pattern, path) to "
        "load_weights"
    )
