"""Five points of a real digit on a real photograph, 64x64: the ends of its ink upwards, down, left
and right, and its centroid.

    python launch.py train experiments/scenes_keypoints.py

Expected on unseen digits on unseen photographs, after 1,000 steps of 32: PCK@0.1 95.93 ± 0.08 %,
NME 0.031 (n = 3 seeds, 1,000 scenes). The reference length is the longer side of the box around the
points, 16 to 32 pixels, so that a point may be 1.6 to 3.2 pixels off.
Blind (benchmarks/blind_baselines.py): each point at its mean place 1.4 %, all in the middle of the
bright pixels 20.2 %. About 76 s a seed on one core of an Intel Xeon (AVX-512, family 6 model 167)
with jaxcnn[onednn], 2026-11-22. The learning rate was chosen by two runs on the same scenes.
Heatmaps (task.method=heatmap task.sigma=1.5) had 64.7 % after 500 steps at half the rate (n = 1).
"""

from functools import partial

import optax

from jaxcnn.core import optimizers, schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.data.made.scenes import Scenes
from jaxcnn.data.skeletons import EXTREMES
from jaxcnn.models.keypoints import SmallKeypointNet
from jaxcnn.tasks.keypoints import Keypoints

experiment = Experiment(
    model=SmallKeypointNet(num_points=5),
    task=Keypoints(num_points=5, method="dsnt", sigma=1.0, edges=EXTREMES.edges),
    data=Scenes(
        items=Tfds("mnist", train="train", eval="test"),
        entries=("image", "points", "points_mask"),
        max_items=1,
    ),
    optimizer=partial(optax.adamw, learning_rate=1e-2, weight_decay=0.02, mask=optimizers.kernels),
    schedule=partial(schedules.cosine, warmup=0.1),
    batch_size=32,
    steps=1_000,
    log_every=100,
)
