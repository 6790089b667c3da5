"""What a run costs each of many devices, on paper: bytes, operations, and the time for the sum of
the gradients. Nothing here was measured on that many devices.

As jaxcnn trains on several devices: the batch is divided among them, each holds the whole training
state, and after the backward pass the gradients are summed over all (Goyal et al., Accurate, large
minibatch SGD: training ImageNet in 1 hour, 2017, section 4). Along "fsdp" of a mesh each holds a
part of the state (jaxcnn.core.meshes).
"""

from typing import Any

LINK = 50.0  # GB/s, of which `check` says that it is assumed


def device_share(
    found: dict[str, Any],
    count: int,
    *,
    batch_size: int,
    link: float,
    state_bytes: int | None = None,
) -> dict[str, Any]:
    """The share of one of `count` devices in a step, among which the batch divides
    (jaxcnn.runs.check.check_divides).

    found: `pre_flight`'s facts, with "step_flops" and, where it was measured on one device,
        "step_bytes" and "step_seconds".
    link: what a device sends to its neighbour in GB/s (1e9 bytes).
    state_bytes: what each device holds of the state; None: all of it.

    {"devices"; "divided": whether each holds a part of the state; "batch": examples of one device;
    "state_bytes", "batch_bytes" of one;
    "step_bytes": with the temporaries, which are taken to grow with the examples; "step_flops";
    "sent_bytes": what each sends to sum the gradients; "sum_seconds": how long that takes;
    "step_seconds": were each as fast as the device that was measured, and nothing summed while it
    computes; "efficiency": of `count` times the one's speed}. None where it is not known.

    The sum is the ring's, which sends 2 (n - 1) / n of the bytes and is optimal for large sums
    (Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, 2009,
    section 3); latency, which rules for small networks, is left out. Summed are the gradients of
    all parameters, in the parameters' dtype: that those of frozen layers are not is left out, too.
    It is as much where g of n devices hold the state together: gathering the parameters in such a
    group and summing each gradient to where it lies sends (g - 1) / g of the bytes each, and
    between the n / g groups a g-th is summed.
    Statistics of BatchNorm are summed in the passes; they are few bytes.
    """
    held = found["state_bytes"] if state_bytes is None else state_bytes
    shared = held + found["batch_bytes"] / count
    whole, flops = found.get("step_bytes"), found["step_flops"]
    arguments = found["state_bytes"] + found["batch_bytes"]
    gradients = found.get("param_bytes")
    sent = None if gradients is None else 2 * (count - 1) / count * gradients
    sums = None if sent is None else sent / (link * 1e9)
    alone = found.get("step_seconds")
    step = None if alone is None or sums is None else alone / count + sums
    return {
        "devices": count,
        "divided": held < found["state_bytes"],
        "batch": batch_size // count,
        "state_bytes": held,
        "batch_bytes": found["batch_bytes"] // count,
        "step_bytes": None if whole is None else round(shared + (whole - arguments) / count),
        "step_flops": None if flops is None else flops // count,
        "sent_bytes": None if sent is None else round(sent),
        "sum_seconds": sums,
        "step_seconds": step,
        "efficiency": None if step is None or alone is None else alone / count / step,
    }
