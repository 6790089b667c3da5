"""Five points of a real digit on a real photograph, 64x64: the ends of its ink upwards, down, left and right, and its centroid.

    python launch.py train experiments/scenes_keypoints.py

Expected: not measured yet (n = 1).
"""

from functools import partial

import optax

from jaxcnn import optimizers, schedules
from jaxcnn.data.scenes import Scenes
from jaxcnn.data.skeletons import EXTREMES
from jaxcnn.data.tfds import Tfds
from jaxcnn.experiment import Experiment
from jaxcnn.models.keypoints import SmallKeypointNet
from jaxcnn.tasks.keypoints import Keypoints

experiment = Experiment(
    model=SmallKeypointNet(num_points=5),
    task=Keypoints(num_points=5, method="dsnt", sigma=1.0, edges=EXTREMES.edges),
    data=Scenes(items=Tfds("mnist", train="train", eval="test"), entries=("image", "points", "points_mask"), max_items=1),
    optimizer=partial(optax.adamw, learning_rate=1e-2, weight_decay=0.02, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.1),
    batch_size=32,
    steps=1_000,
    log_every=100,
)
