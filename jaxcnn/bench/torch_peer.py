"""The network of `bench --peer torch`: PyTorch at its best. Imports nothing of jaxcnn but the
network's definition.
"""

# PyTorch is installed by those alone who compare with it.
# pyright: reportMissingImports=false

import copy
import time
from collections.abc import Callable
from typing import Any

from jaxcnn.bench.peers import is_out_of_memory
from jaxcnn.bench.torch_networks import torch_model

# {"train" or "inference": {variant: steps -> seconds}}
Timers = dict[str, dict[str, Callable[[int], float]]]


def open_network(
    *, network, shape, num_classes, batch_size, dtype, optimizer, loss, compile, device, threads
) -> tuple[dict, Timers]:
    """All variants that this PyTorch can run on this device; those that it cannot are told in
    "left_out", with the first line of its reason. bfloat16 is autocast, but where weights are
    frozen: those are converted.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    cuda = device == "gpu" and torch.cuda.is_available()
    place = torch.device("cuda" if cuda else "cpu")
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")  # as XLA's default precision on GPUs
    torch.manual_seed(0)
    image = torch.rand(batch_size, shape[-1], *shape[:-1])
    first = torch_model(network, shape, num_classes)
    label = labels_of(first, image, loss)
    image = image.to(place)
    timing = Timing(image, label if label is None else label.to(place), dtype)
    timers: Timers = {"train": {}, "inference": {}}
    left_out: dict[str, str] = {}

    def offer(kind: str, variant: str, make: Callable[[], Callable[[int], float]]) -> None:
        try:
            timer = make()
            timer(1)
            timers[kind][variant] = timer
        except Exception as error:
            if is_out_of_memory(error):
                raise
            lines = str(error).strip().splitlines() or ["no reason given"]
            left_out[f"{kind} {variant}"] = f"{type(error).__name__}: {lines[0]}"

    formats = {"eager": torch.contiguous_format}
    if image.ndim in (4, 5):
        last = torch.channels_last if image.ndim == 4 else torch.channels_last_3d
        formats["channels_last"] = last
    model, x = first.to(place), image
    for name, layout in formats.items():
        if name != "eager":
            model = copy.deepcopy(first).to(memory_format=layout)
        x = image.contiguous(memory_format=layout)
        plain = torch_optimizer(model, **optimizer)
        timers["train"][name] = timing.train(model, plain, x)
        timers["inference"][name] = timing.infer(model, x)

    def fused() -> Any:
        return torch_optimizer(model, fused=True, **optimizer)

    # what follows is built on the last, fastest format
    offer("train", "fused", lambda: timing.train(model, fused(), x))
    offer("inference", "folded", lambda: timing.frozen(folded(model), x))
    offer("inference", "frozen", lambda: timing.frozen(model, x, finish=scripted))
    if compile:
        modes = {"compile": {}, **({"compile_graphs": {"mode": "reduce-overhead"}} if cuda else {})}
        for name, mode in modes.items():
            called = torch.compile(model, **mode)
            offer("train", name, lambda called=called: timing.train(called, fused(), x))
            offer("inference", name, lambda called=called: timing.infer(called, x))
        freezing = {"freezing": True} | ({"triton.cudagraphs": True} if cuda else {})
        offer(
            "inference",
            "compile_frozen",
            lambda: timing.frozen(
                model, x, finish=lambda m, x: torch.compile(m, options=dict(freezing))
            ),
        )
    answer = {
        "params": sum(p.numel() for p in first.parameters()),
        "variants": {kind: list(of_kind) for kind, of_kind in timers.items()},
        "left_out": left_out,
        "version": torch.__version__,
        "device": str(place),
    }
    return answer, timers


def torch_optimizer(model: Any, *, name: str, learning_rate: float, **numbers: Any) -> Any:
    """SGD, Adam or AdamW with PyTorch's own defaults for all that concerns speed, unless
    `fused`.
    """
    import torch

    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return kinds[name](model.parameters(), lr=learning_rate, **numbers)


def folded(model: Any) -> Any:
    """A copy for inference with every BatchNorm folded into the convolution before it."""
    from torch.fx.experimental.optimization import fuse

    return fuse(model.eval())


def scripted(model: Any, x: Any) -> Any:
    """The traced graph, frozen, with PyTorch's own passes for inference."""
    import torch

    traced = torch.jit.trace(model, x, check_trace=False)
    return torch.jit.optimize_for_inference(torch.jit.freeze(traced))


def labels_of(model: Any, image: Any, loss: str) -> Any:
    """Labels for the cross entropy of the outputs [B, classes, …]; None for the mean square."""
    import torch

    if loss != "cross_entropy":
        return None
    with torch.no_grad():
        outputs = model.eval()(image[:1])
    return torch.randint(outputs.shape[1], (len(image), *outputs.shape[2:]))


class Timing:
    """Timers of training and of inference on one batch: functions of a number of steps that return
    seconds. `label` None: the loss is the mean square of the outputs.
    """

    def __init__(self, image: Any, label: Any, dtype: str):
        self.device, self.label, self.bfloat16 = image.device, label, dtype == "bfloat16"

    def autocast(self) -> Any:
        """The context in which a forward pass runs."""
        import torch

        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bfloat16)

    def train(self, model: Any, optimizer: Any, x: Any) -> Callable[[int], float]:
        """Forward, backward, update."""
        import torch
        from torch.utils import _pytree as trees

        def step():
            optimizer.zero_grad(set_to_none=True)
            with self.autocast():
                outputs = model(x)
                if self.label is not None:
                    loss = torch.nn.functional.cross_entropy(outputs.float(), self.label)
                else:
                    leaves = trees.tree_leaves(outputs)
                    loss = sum(leaf.float().square().mean() for leaf in leaves)
            loss.backward()  # pyright: ignore[reportAttributeAccessIssue]
            optimizer.step()

        def run(steps: int) -> float:
            model.train()
            seconds = self.block(step, steps)
            optimizer.zero_grad(set_to_none=True)  # variants share the memory
            return seconds

        return run

    def infer(self, model: Any, x: Any) -> Callable[[int], float]:
        """The forward pass in evaluation."""
        import torch

        def step():
            with torch.inference_mode(), self.autocast():
                model(x)

        def run(steps: int) -> float:
            model.eval()
            return self.block(step, steps)

        return run

    def frozen(
        self, model: Any, x: Any, *, finish: Callable[[Any, Any], Any] = lambda model, x: model
    ) -> Callable[[int], float]:
        """The forward pass of a copy whose weights are constants, in the dtype itself."""
        import torch

        dtype = torch.bfloat16 if self.bfloat16 else torch.float32
        x = x.to(dtype)
        with torch.no_grad():
            model = finish(copy.deepcopy(model).eval().to(dtype), x)

        def step():
            with torch.no_grad():
                model(x)

        return lambda steps: self.block(step, steps)

    def block(self, step: Callable[[], None], steps: int) -> float:
        """Seconds of so many steps; the device is idle before and after."""
        self.synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            step()
        self.synchronize()
        return time.perf_counter() - start

    def synchronize(self) -> None:
        """Wait until the device is idle."""
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize()
