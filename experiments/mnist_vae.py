"""A variational autoencoder on MNIST whose pixels are drawn anew each time they are seen (D. P.
Kingma and M. Welling, "Auto-encoding variational Bayes", 2014; the network of Y. Burda, R. Grosse
and R. Salakhutdinov, "Importance weighted autoencoders", 2016, section 5.1, one stochastic layer).

    python launch.py train experiments/mnist_vae.py --sweep seed=0..2
    python experiments/mnist_vae.py RUN/replicas/0      # writes digits.png there

Expected: ELBO -97.34 ± 0.13 nats per image on all 10,000 test images (n = 3 seeds; pixels 74.5, KL
22.9) after 30 epochs; 5.5 min of CPU time for all three with --replicas-by vmap, 31 min beside much
other work; 2026-11-25, 2 cores of an Intel Xeon (AVX-512, AMX; family 6, model 167), shared with
other work. Burda et al. train far longer and report a log-likelihood, which lies above the ELBO, so
that their figures are not comparable.
"""

import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from PIL import Image
from scipy.special import entr

import jaxcnn
from jaxcnn.core import schedules
from jaxcnn.core.experiment import Experiment
from jaxcnn.core.override import get_at
from jaxcnn.data.files.tfds import Tfds
from jaxcnn.tasks.task import BaseTask


class Seen(NamedTuple):
    """What the network makes of images."""

    pixels: jax.Array  # [B, H, W, C] 0 or 1: what is to be explained, drawn from the grey images
    logits: jax.Array  # [B, H, W, C] of p(pixel = 1 | z), for one z drawn from q(z | pixels)
    mean: jax.Array  # [B, Z] of q(z | pixels)
    log_variance: jax.Array  # [B, Z] of q(z | pixels)


class VAE(nn.Module):
    """q(z | pixels) and p(pixels | z), two layers of tanh each. Images [B, H, W, C] in [0, 1], the
    probabilities of their pixels. Pixels and z are drawn by the rng "noise", in training and in
    evaluation.
    """

    shape: tuple[int, int, int] = (28, 28, 1)
    width: int = 200
    latent: int = 50

    def setup(self):
        def layers(outputs):
            hidden = [nn.Dense(self.width), nn.tanh, nn.Dense(self.width), nn.tanh]
            return nn.Sequential([*hidden, nn.Dense(outputs)])

        self.encoder, self.decoder = layers(2 * self.latent), layers(int(np.prod(self.shape)))

    def decode(self, z: jax.Array) -> jax.Array:
        """z [B, Z] -> logits of the pixels [B, H, W, C]."""
        return self.decoder(z).reshape(-1, *self.shape)

    def __call__(self, image: jax.Array, *, train: bool) -> Seen:
        pixels = jax.random.bernoulli(self.make_rng("noise"), image).astype(image.dtype)
        mean, log_variance = jnp.split(self.encoder(pixels.reshape(image.shape[0], -1)), 2, axis=-1)
        noise = jax.random.normal(self.make_rng("noise"), mean.shape, mean.dtype)
        logits = self.decode(mean + jnp.exp(log_variance / 2) * noise)
        return Seen(pixels, logits, mean, log_variance)


@dataclasses.dataclass(frozen=True)
class EvidenceBound(BaseTask):
    """The evidence lower bound (ELBO), E_q log p(pixels | z) - KL(q(z | pixels) || p(z)), in nats
    per image: `pixels` and `kl` are its terms (Kingma and Welling, equation 10 with one z).
    """

    inputs: tuple[str, ...] = ("image",)
    metric: str = "elbo"
    larger_is_better: bool = True

    blind_answer = "the mean of each pixel, always, without a z"

    def terms(self, outputs: Seen) -> dict[str, jax.Array]:
        """-log p(pixels | z) and the divergence, each [B] float32 in nats."""
        mean, log_variance, logits = outputs.mean, outputs.log_variance, outputs.logits
        kl = 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance).sum(-1)
        surprise = jax.nn.softplus(logits) - outputs.pixels * logits
        return {"pixels": surprise.sum((1, 2, 3)), "kl": kl}

    def loss(self, outputs, batch):
        """-ELBO, [B] float32."""
        terms = self.terms(outputs)
        return terms["pixels"] + terms["kl"]

    def running(self, outputs, batch):
        return {name: term.mean() for name, term in self.terms(outputs).items()}

    def statistics(self, outputs, batch):
        real = batch["mask"] > 0
        sums = {n: jnp.where(real, x, 0.0).sum() for n, x in self.terms(outputs).items()}
        white = jnp.where(real[:, None, None, None], outputs.pixels, 0.0).sum(0)
        return {**sums, "white": white, "count": real.sum(dtype=jnp.int32)}

    def summarize(self, sums, records):
        """elbo, and -elbo = loss = pixels + kl; means over the images. blind_elbo: of pixels that
        are each as often white as in these images.
        """
        count = int(sums["count"])
        pixels, kl = (float(sums[name]) / count for name in ("pixels", "kl"))
        share = sums["white"] / count
        blind = -(entr(share) + entr(1 - share)).sum()
        found = {"elbo": -pixels - kl, "loss": pixels + kl, "pixels": pixels, "kl": kl}
        return {**found, "blind_elbo": float(blind), "count": count}

    def predict(self, outputs):
        """The reconstruction, the pixels' probabilities, as "image" uint8 [B, H, W, C]."""
        return {"image": jnp.round(255 * jax.nn.sigmoid(outputs.logits)).astype(jnp.uint8)}

    def describe(self, row, *, names):
        return {"image": np.asarray(row["image"])}


experiment = Experiment(
    model=VAE(),
    task=EvidenceBound(),
    data=Tfds("mnist", train="train", eval="test"),
    optimizer=partial(optax.adam, learning_rate=3e-3),
    schedule=partial(schedules.cosine, warmup=0.02),
    batch_size=128,
    eval_batch_size=1000,
    epochs=30,
    eval_every=10,
    log_every=200,
)


def picture(run: jaxcnn.Run, columns: int = 20) -> np.ndarray:
    """Two rows of evaluation images, two of their reconstructions, and four of images that are
    drawn from the prior. uint8 [8 * H, columns * W]
    """
    images = run.experiment.data.open("eval").take(np.arange(2 * columns))["image"]
    restored = np.stack([row["image"] for row in run.predict(np.asarray(images))])
    z = jax.random.normal(jax.random.key(0), (4 * columns, get_at(run.experiment, "model.latent")))
    logits = run.experiment.model.apply({"params": run.state.params}, z, method="decode")
    drawn = np.asarray(jnp.round(255 * jax.nn.sigmoid(logits)), np.uint8)
    tiles = np.concatenate([images, restored, drawn])[..., 0]
    height, width = tiles.shape[1:]
    tiles = tiles.reshape(-1, columns, height, width).transpose(0, 2, 1, 3)
    return tiles.reshape(-1, columns * width)


if __name__ == "__main__":
    opened = jaxcnn.open(sys.argv[1])
    path = Path(opened.folder) / "digits.png"
    Image.fromarray(picture(opened)).save(path)
    print(path)
