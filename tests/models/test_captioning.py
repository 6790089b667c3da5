"""Captioning networks: decoding against teacher forcing and all sentences, decoders against PyTorch
and the paper's equations.
"""

import itertools
from functools import partial

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxcnn.core.experiment import Experiment
from jaxcnn.core.program import make_program
from jaxcnn.core.transforms import compile, predicting, scored
from jaxcnn.data.augment import draw_caption
from jaxcnn.data.memory import Arrays
from jaxcnn.errors import ConfigError
from jaxcnn.models.captioning import (
    AttentionLSTM,
    CaptionNet,
    DecoderBlock,
    GridEncoder,
    TransformerDecoder,
)
from jaxcnn.models.resnet import BasicBlock, ResNet
from jaxcnn.ops.decoding import END, PAD, START, UNKNOWN, to_words
from jaxcnn.runs.evaluation import evaluate
from jaxcnn.tasks.captioning import Captioning

V, WORDS = 7, 4
DECODERS = {
    "lstm": AttentionLSTM(V, width=8, attention_width=6),
    "transformer": TransformerDecoder(V, width=8, num_layers=2, num_heads=2, max_length=12),
}
every_decoder = pytest.mark.parametrize("name", DECODERS)


def network(name, **fields):
    return CaptionNet(GridEncoder(widths=(4, 6)), DECODERS[name], max_words=WORDS, **fields)


def init(model, *inputs):
    return jax.jit(lambda *inputs: model.init(jax.random.key(0), *inputs, train=False))(*inputs)


def random_weights(model, image, captions):
    """Variables whose matrices are random and large enough that images and words make a difference,
    but saturate nothing.
    """
    variables = init(model, image, captions)
    generator = np.random.default_rng(1)

    def draw(x):
        return (
            x
            if x.ndim < 2
            else jnp.asarray(
                generator.normal(size=x.shape) * 2 / np.sqrt(x.size / x.shape[-1]), jnp.float32
            )
        )

    return jax.tree.map(draw, variables["params"]), variables["batch_stats"]


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(0)
    return jnp.asarray(
        generator.normal(size=(5, 8, 8, 1)) + 2 * generator.normal(size=(5, 1, 1, 1)), jnp.float32
    )


def captions_of(sentences):
    """[N, 1, L] int32 from equally long rows of tokens, the start put before."""
    return jnp.asarray([[[START, *sentence]] for sentence in sentences], jnp.int32)


@every_decoder
@pytest.mark.parametrize("beam_size", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_the_decoded_caption_does_not_depend_on_the_given_ones(name, beam_size, images):
    model = network(name, beam_size=beam_size)
    none = jnp.zeros((5, 2, 6), jnp.int32)
    params, stats = random_weights(model, images, none)
    apply = jax.jit(
        lambda captions: model.apply(
            {"params": params, "batch_stats": stats}, images, captions, train=False
        )
    )
    known = jnp.asarray(np.random.default_rng(2).integers(0, V, (5, 2, 6)), jnp.int32)
    tokens = apply(none)["tokens"]
    assert (tokens.shape, tokens.dtype) == ((5, WORDS), jnp.int32)
    np.testing.assert_array_equal(apply(known)["tokens"], tokens)
    assert not np.allclose(apply(known)["logits"], apply(none)["logits"])
    variables = {"params": params, "batch_stats": stats}
    alone = jax.jit(lambda images: model.apply(variables, images, train=False))(images)
    assert set(alone) == {"tokens"}
    np.testing.assert_array_equal(alone["tokens"], tokens)
    assert len({tuple(row) for row in np.asarray(tokens)}) > 1, (
        "the images must differ in their captions for this to say anything"
    )


@every_decoder
def test_captions_are_needed_neither_to_initialize_nor_to_train_the_parameters(name, images):
    model = network(name)
    without = init(model, images)
    variables = init(model, images, jnp.zeros((5, 2, 6), jnp.int32))
    assert jax.tree.map(jnp.shape, without) == jax.tree.map(jnp.shape, variables)
    captions = jnp.zeros((5, 2, 6), jnp.int32)
    outputs, _ = jax.eval_shape(
        lambda v: model.apply(v, images, captions, train=True, mutable=["batch_stats"]), variables
    )
    assert {key: value.shape for key, value in outputs.items()} == {"logits": (5, 2, 5, V)}


@every_decoder
def test_greedy_decoding_equals_teacher_forcing_with_its_own_words(name, images):
    """Word by word without any cache: the whole beginning is read anew for each word."""
    model = network(name)
    params, stats = random_weights(model, images, jnp.zeros((5, 1, 2), jnp.int32))
    forced = jax.jit(
        lambda captions: model.apply(
            {"params": params, "batch_stats": stats}, images, captions, train=False
        )
    )
    sentence = np.full((5, 1, WORDS + 1), PAD, np.int32)
    sentence[..., 0] = START
    for position in range(WORDS):
        outputs = forced(jnp.asarray(sentence))
        best = END + np.asarray(outputs["logits"])[:, 0, position, END:].argmax(-1)
        sentence[:, 0, position + 1] = np.where(
            np.isin(sentence[:, 0, position], (END, PAD)), PAD, best
        )
    np.testing.assert_array_equal(outputs["tokens"], sentence[:, 0, 1:])


@every_decoder
def test_a_wide_beam_finds_the_likeliest_of_all_captions(name, images):
    words, length = range(UNKNOWN, V), 3
    sentences = [
        [*s, END] for count in range(length) for s in itertools.product(words, repeat=count)
    ]
    sentences += [list(s) for s in itertools.product(words, repeat=length)]
    padded = [s + [PAD] * (length - len(s)) for s in sentences]
    model = CaptionNet(
        GridEncoder(widths=(4, 6)),
        DECODERS[name],
        max_words=length,
        beam_size=len(sentences),
        length_penalty=0.7,
    )
    # [B, all sentences, 4]
    captions = jnp.repeat(captions_of(padded).swapaxes(0, 1), len(images), axis=0)
    params, stats = random_weights(model, images, captions)
    variables = {"params": params, "batch_stats": stats}
    outputs = jax.jit(lambda v: model.apply(v, images, captions, train=False))(variables)
    log_p = np.asarray(jax.nn.log_softmax(outputs["logits"]), np.float64)
    chosen = np.take_along_axis(log_p, np.asarray(captions)[:, :, 1:, None], axis=-1)[..., 0]
    real = np.asarray(padded) != PAD
    scores = (chosen * real).sum(-1) / ((5 + real.sum(-1)) / 6) ** 0.7
    np.testing.assert_array_equal(outputs["tokens"], np.asarray(padded)[scores.argmax(-1)])


@every_decoder
def test_a_word_does_not_see_the_words_after_it(name, images):
    model = network(name)
    captions = jnp.asarray(np.random.default_rng(3).integers(0, V, (5, 2, 8)), jnp.int32)
    params, stats = random_weights(model, images, captions)
    apply = jax.jit(
        lambda captions: model.apply(
            {"params": params, "batch_stats": stats}, images, captions, train=False
        )["logits"]
    )
    changed = apply(captions.at[:, 0, 4].set((captions[:, 0, 4] + 1) % V)) != apply(captions)
    assert not changed[:, 0, :4].any()
    assert changed[:, 0, 4:].any(-1).all()
    assert not changed[:, 1].any()  # nor those of another reference


@every_decoder
def test_every_parameter_learns_from_the_next_words(name, images):
    model, captions = (
        network(name),
        jnp.asarray(np.random.default_rng(3).integers(1, V, (5, 2, 6)), jnp.int32),
    )
    params, stats = random_weights(model, images, captions)

    def loss(params):
        outputs, _ = model.apply(
            {"params": params, "batch_stats": stats},
            images,
            captions,
            train=True,
            mutable=["batch_stats"],
        )
        return Captioning(V).loss(outputs, {"captions": captions}).sum()

    gradient = jax.device_get(jax.jit(jax.grad(loss))(params))
    gradient = flax.traverse_util.flatten_dict(gradient, sep="/")
    for path, value in gradient.items():
        assert np.isfinite(value).all(), path
        # Keys may shift all scores of a softmax alike, which changes nothing: their bias has no
        # gradient but for rounding.
        assert path.endswith("key/bias") or np.any(value != 0), path


def test_dropout_is_of_training_alone(images):
    decoder = AttentionLSTM(V, width=8, attention_width=6, dropout_rate=0.5)
    memory, words = jnp.ones((5, 4, 6)), jnp.ones((5, 3), jnp.int32)
    variables = decoder.init(jax.random.key(0), words, memory, train=False)
    outputs = [
        decoder.apply(variables, words, memory, train=True, rngs={"dropout": jax.random.key(k)})
        for k in (0, 0, 1)
    ]
    np.testing.assert_array_equal(outputs[0], outputs[1])
    assert jnp.any(outputs[0] != outputs[2])
    assert decoder.apply(variables, words, memory, train=False).shape == (5, 3, V)


def test_the_attention_lstm_follows_the_papers_equations():
    """Xu et al. (2015), equations 1 to 9, in NumPy, with one matrix product at a time."""
    generator = np.random.default_rng(0)
    decoder = DECODERS["lstm"]
    memory, words = (
        generator.normal(size=(2, 5, 6)).astype(np.float32),
        np.array([[START, 4, 5], [START, 3, 6]], np.int32),
    )
    variables = decoder.init(
        jax.random.key(0), jnp.asarray(words), jnp.asarray(memory), train=False
    )
    params = jax.tree.map(
        lambda x: generator.normal(size=x.shape).astype(np.float32), variables["params"]
    )
    ours = decoder.apply({"params": params}, jnp.asarray(words), jnp.asarray(memory), train=False)

    def dense(name, x):
        return x @ params[name]["kernel"] + params[name].get("bias", np.float32(0))

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for row, (a, sentence) in enumerate(zip(memory, words, strict=True)):
        cell, hidden = (np.tanh(dense(name, a.mean(0))) for name in ("first_cell", "first_hidden"))
        for position, word in enumerate(sentence):
            # f_att
            energy = np.array(
                [
                    dense("energy", np.tanh(dense("keys", place) + dense("query", hidden)))[0]
                    for place in a
                ]
            )
            weight = np.exp(energy) / np.exp(energy).sum()
            z = sigmoid(dense("gate", hidden)) * sum(
                w * place for w, place in zip(weight, a, strict=True)
            )
            vector = params["embedding"]["embedding"][word]
            x, gates = np.concatenate([vector, z]), {}
            for gate in "ifgo":
                gates[gate] = x @ params["cell"][f"i{gate}"]["kernel"] + dense_of(
                    params["cell"][f"h{gate}"], hidden
                )
            cell = sigmoid(gates["f"]) * cell + sigmoid(gates["i"]) * np.tanh(gates["g"])
            hidden = sigmoid(gates["o"]) * np.tanh(cell)
            logits = dense("output", vector + dense("from_hidden", hidden) + dense("from_seen", z))
            np.testing.assert_allclose(ours[row, position], logits, rtol=2e-4, atol=2e-4)


def dense_of(layer, x):
    return x @ layer["kernel"] + layer["bias"]


def test_a_decoder_block_equals_torch():
    torch = pytest.importorskip("torch")
    width, heads, generator = 8, 2, np.random.default_rng(0)
    x, memory = (generator.normal(size=(3, count, width)).astype(np.float32) for count in (5, 7))
    block = DecoderBlock(width, heads, 0.0)

    def call(block, x, memory):
        seen = block.across.project(memory)
        past = tuple(jnp.zeros((3, 5, heads, width // heads)) for _ in range(2))
        return block(x, past, seen, jnp.arange(5, dtype=jnp.int32), train=False)[0]

    variables = nn.init(call, block)(jax.random.key(0), jnp.asarray(x), jnp.asarray(memory))
    params = jax.tree.map(
        lambda leaf: generator.normal(size=leaf.shape).astype(np.float32) * 0.5, variables["params"]
    )
    ours = nn.apply(call, block)({"params": params}, jnp.asarray(x), jnp.asarray(memory))

    theirs = torch.nn.TransformerDecoderLayer(
        width,
        heads,
        4 * width,
        dropout=0.0,
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=True,
        activation=partial(torch.nn.functional.gelu, approximate="tanh"),
    ).eval()
    state = {}
    for name, attention in (("self_attn", params["within"]), ("multihead_attn", params["across"])):
        state[f"{name}.in_proj_weight"] = np.concatenate(
            [attention[k]["kernel"].reshape(width, width).T for k in ("query", "key", "value")]
        )
        state[f"{name}.in_proj_bias"] = np.concatenate(
            [attention[k]["bias"].reshape(width) for k in ("query", "key", "value")]
        )
        state[f"{name}.out_proj.weight"] = attention["output"]["kernel"].reshape(width, width).T
        state[f"{name}.out_proj.bias"] = attention["output"]["bias"]
    for name, layer in (("linear1", "hidden"), ("linear2", "back")):
        state[f"{name}.weight"], state[f"{name}.bias"] = (
            params[layer]["kernel"].T,
            params[layer]["bias"],
        )
    for name, layer in (
        ("norm1", "norm_within"),
        ("norm2", "norm_across"),
        ("norm3", "norm_hidden"),
    ):
        state[f"{name}.weight"], state[f"{name}.bias"] = (
            params[layer]["scale"],
            params[layer]["bias"],
        )
    theirs.load_state_dict(
        {name: torch.tensor(np.ascontiguousarray(value)) for name, value in state.items()}
    )
    mask = torch.triu(torch.ones(5, 5, dtype=torch.bool), diagonal=1)
    with torch.no_grad():
        expected = theirs(torch.tensor(x), torch.tensor(memory), tgt_mask=mask).numpy()
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_a_trunk_may_give_several_maps(images):
    trunk = ResNet((1, 1), BasicBlock, widths=(4, 8), stem="cifar", stem_width=4, pyramid=True)
    model = CaptionNet(trunk, DECODERS["lstm"], max_words=3)
    variables = model.init(jax.random.key(0), images, train=False)
    assert variables["params"]["position"].shape == (16, 8)


@pytest.mark.parametrize(
    "model, says",
    [
        (
            CaptionNet(GridEncoder((4,)), TransformerDecoder(V, width=9, num_heads=2)),
            "width=9 must be a multiple of num_heads=2",
        ),
        (
            CaptionNet(
                GridEncoder((4,)), TransformerDecoder(V, width=8, num_heads=2, max_length=5)
            ),
            "exceed max_length=5",
        ),
    ],
)
def test_bad_settings_are_refused(model, says, images):
    with pytest.raises(ConfigError, match=says):
        model.init(jax.random.key(0), images, train=False)


# Through the whole program: colours by name


def bars(rows, seed):
    """Two halves of an image, each dark, grey or bright (words 4, 5, 6), named from left to right
    or from right to left.
    """
    generator = np.random.default_rng(seed)
    halves = generator.integers(0, 3, (rows, 2))
    image = np.repeat(
        np.repeat(80 * halves[:, None] + generator.integers(0, 30, (rows, 8, 2)), 4, axis=2)[
            ..., None
        ],
        1,
        axis=3,
    )
    forward = np.stack([[START, 4 + a, 4 + b, END, PAD] for a, b in halves])
    backward = np.stack([[START, 3, 4 + b, 4 + a, END] for a, b in halves])
    return {
        "image": image.astype(np.uint8),
        "captions": np.stack([forward, backward], axis=1).astype(np.int32),
    }


@pytest.mark.parametrize(
    "name, compute_dtype",
    [("lstm", "float32"), ("transformer", "bfloat16")],
)
@pytest.mark.slow
def test_the_program_learns_and_predicts_without_captions(name, compute_dtype):
    decoder = (
        AttentionLSTM(V, 24, 16)
        if name == "lstm"
        else TransformerDecoder(V, 24, num_layers=1, num_heads=2, max_length=6)
    )
    data = Arrays(bars(256, seed=0), bars(64, seed=1))
    e = Experiment(
        model=CaptionNet(GridEncoder(widths=(8, 16)), decoder, max_words=5, beam_size=2),
        task=Captioning(V, metric="exact"),
        data=data,
        augment=(draw_caption,),
        optimizer=partial(optax.adam, learning_rate=1e-2),
        batch_size=32,
        steps=150,
        compute_dtype=compute_dtype,
    )
    held = bars(64, seed=1)
    with jax.numpy_dtype_promotion("standard"):  # which Flax's normalization relies on in bfloat16
        program, source = compile(scored(make_program(e, steps=150), e)), data.open("train")
        state = program.init(jax.random.key(0))
        for step in range(150):
            state, _ = program.train_step(state, source.take((np.arange(32) + 32 * step) % 256))
        summary = evaluate(program, state, data.open("eval"), e)
        seen = predicting(make_program(e, steps=150), e).output_step(
            state, {"image": held["image"], "captions": np.zeros_like(held["captions"])}
        )["tokens"]
    assert state.live
    assert summary["exact"] > 0.9
    exact = [
        to_words(said) in [to_words(c) for c in known]
        for said, known in zip(np.asarray(seen), held["captions"], strict=True)
    ]
    assert np.mean(exact) == summary["exact"]
