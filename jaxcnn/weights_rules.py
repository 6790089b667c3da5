"""Where the names of torchvision, timm and Keras go in our models: one rule table (see `jaxcnn.weights.Rule`) for each family.

The two PyTorch packages name some families differently; where the names cannot be confused, one table holds both.
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
            (rf"stages\.{stage}\.blocks\.(\d+)\.conv(\d)\.", rf"stage{stage + 1}_block\1/conv\2/conv/"),
            (rf"stages\.{stage}\.blocks\.(\d+)\.norm(\d)\.", rf"stage{stage + 1}_block\1/norm\2/"),
            (rf"stages\.{stage}\.blocks\.(\d+)\.downsample\.conv\.", rf"stage{stage + 1}_block\1/shortcut/conv/"),
        )
    ),
    (r"norm\.", "norm/"),
    (r"head\.fc\.", "head/"),
)

# torchvision.models.alexnet
ALEXNET = (
    *((rf"features\.{index}\.", f"conv{number}/") for number, index in enumerate((0, 3, 6, 8, 10), 1)),
    (r"classifier\.1\.", "dense1/", (256, 6, 6)),
    (r"classifier\.4\.", "dense2/"),
    (r"classifier\.6\.", "head/"),
)


def vgg_rules(model: Any) -> tuple[tuple, ...]:
    """torchvision.models.vgg counts convolutions, normalizations, ReLUs and poolings in one sequence; timm's dense layers are convolutions."""
    rules, index = [], 0
    for stage, size in enumerate(model.stage_sizes, 1):
        for number in range(1, size + 1):
            rules.append((rf"features\.{index}\.", f"conv{stage}_{number}/"))
            if model.batch_norm:
                rules.append((rf"features\.{index + 1}\.", f"norm{stage}_{number}/"))
            index += 3 if model.batch_norm else 2
        index += 1  # the pooling
    flattened = (model.widths[-1], *(model.pool_size or (1, 1)))
    rules += [(r"classifier\.0\.", "dense1/", flattened), (r"classifier\.3\.", "dense2/"), (r"classifier\.6\.", "head/")]
    rules += [(r"pre_logits\.fc1\.", "dense1/"), (r"pre_logits\.fc2\.", "dense2/"), (r"head\.fc\.", "head/")]
    return tuple(rules)


def rules_for(model: Any) -> tuple[tuple, ...]:
    """The rules that turn torchvision's and timm's names of this network into ours. Raises ConfigError for a network that neither has."""
    name = type(model).__name__
    if name == "ResNet":
        return PRE_ACTIVATION_RESNET if model.block.__name__.startswith("PreAct") else RESNET
    if name == "VGG":
        return vgg_rules(model)
    tables = {"AlexNet": ALEXNET}
    if name in tables:
        return tables[name]
    raise ConfigError(f"weights: no rules for the model {name}; give your own table of (pattern, path) to load_weights")
