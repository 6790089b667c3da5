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


def rules_for(model: Any) -> tuple[tuple, ...]:
    """The rules that turn torchvision's and timm's names of this network into ours. Raises ConfigError for a network that neither has."""
    name = type(model).__name__
    if name == "ResNet":
        return PRE_ACTIVATION_RESNET if model.block.__name__.startswith("PreAct") else RESNET
    raise ConfigError(f"weights: no rules for the model {name}; give your own table of (pattern, path) to load_weights")
