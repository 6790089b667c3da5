"""Results of `bench` for a reader: text, a table, CSV, JSON."""

import csv
import io
import json
from typing import Any


def as_json(found: list[dict]) -> str:
    """The result as one object; several as a list."""
    return json.dumps(found[0] if len(found) == 1 else found)


def flat(result: dict, *, prefix: str = "") -> dict[str, Any]:
    """The numbers and words of a nested result by dotted names."""
    row = {}
    for name, value in result.items():
        if isinstance(value, dict):
            row |= flat(value, prefix=f"{prefix}{name}.")
        else:
            row[prefix + name] = " ".join(map(str, value)) if isinstance(value, list) else value
    return row


def as_csv(found: list[dict]) -> str:
    """A line for each result, a column for each number of any of them; the environment is left to
    --json.
    """
    rows = [
        flat({name: value for name, value in result.items() if name != "environment"})
        for result in found
    ]
    out = io.StringIO()
    writer = csv.DictWriter(
        out, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n"
    )
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().rstrip("\n")


def as_markdown(found: list[dict]) -> str:
    """A table with a line for each result; for each peer and each of its tunings a column of
    training and one of inference.
    """
    pairs = [
        (name, tuning)
        for result in found
        for name, peer in result.get("peers", {}).items()
        for tuning in peer["tunings"]
    ]
    columns = [(*pair, kind) for pair in dict.fromkeys(pairs) for kind in ("train", "inference")]
    header = [
        "model",
        "dtype",
        "batch",
        "train ms (quartiles)",
        "images/s",
        "inference ms (quartiles)",
        "images/s",
        "compile s",
        "share of peak",
        "memory",
    ]
    timed = [r for r in found if "train" in r or "error" in r]
    others = [f"{r['name']}, {r['dtype']}: {plain(r)}" for r in found if r not in timed]
    lines = [[*header, *(f"{kind} / {name}'s ({tuning})" for name, tuning, kind in columns)]]
    lines.append(["---"] * len(lines[0]))
    for r in timed:
        line = [r["name"], r["dtype"], str(r["batch_size"])]
        if "error" in r:
            lines.append([*line, r["error"].partition(":")[0], *["–"] * (len(lines[0]) - 4)])
            continue
        t, i = r["train"], r["inference"]
        for of_kind in (t, i):
            line += [spread(of_kind) + doubts(of_kind), f"{of_kind['images_per_second']:,.0f}"]
        line += [
            f"{r['compile_seconds']:.2f}",
            f"{t['share_of_peak']:.0%}",
            size(r["memory"]["compiled_bytes"]["train"]),
        ]
        lines.append([*line, *(_beside(r["peers"].get(name), *rest) for name, *rest in columns)])
    table = [f"| {' | '.join(line)} |" for line in lines] if timed else []
    return "\n".join(table + [""] * bool(table and others) + [f"- {line}" for line in others])


def plain(r: dict) -> str:
    """A result that is no table's: an epoch, or replicas."""
    if "epoch" in r:
        t = r["epoch"]
        return f"an epoch of {t['steps']} steps in {spread(t)} ms{doubts(t)}"
    c = r["replicas"]
    each = ", ".join(f"{way} {ms:.4g}" for way, ms in c["ms_per_step"].items())
    disturbed = "; disturbed" if c["disturbed"] else ""
    return (
        f"{c['count']} replicas, ms for a step of all: {each}; {c['times_as_fast']:.2f} times as "
        f"fast as one after another{disturbed}"
    )


def _beside(peer: dict | None, tuning: str, kind: str) -> str:
    """The ratio, the peer's best variant with its quartiles, and what is to be doubted."""
    if peer is None:
        return "–"
    of_kind = peer if kind == "train" else peer[kind]
    c = of_kind["tunings"].get(tuning)
    if c is None:
        return "–"
    variant = c["variant"].removesuffix(f" ({tuning})")
    doubt = doubts(of_kind["variants"][c["variant"]]) + unordered(c)
    return f"{c['ratio']:.2f} of {variant}'s {spread(c)}{doubt}"


FORMS = {"json": as_json, "csv": as_csv, "markdown": as_markdown}


def spread(t: dict) -> str:
    """Median and quartiles in milliseconds."""
    low, high = t["ms_quartiles"]
    return f"{t['ms_per_step']:.4g} ({low:.4g}–{high:.4g})"


def doubts(t: dict) -> str:
    """What is to be said of a timing that was disturbed; "" of one that was not."""
    if not t["disturbed_blocks"]:
        return ""
    others, stolen = t["others_share"], t["stolen_share"]
    return (
        f"; disturbed: {t['disturbed_blocks']} of {t['rounds']} blocks (others {others:.0%}, "
        f"stolen {stolen:.0%})"
    )


def unordered(c: dict) -> str:
    """What is to be said of a comparison that does not establish who is faster."""
    return "; order not established" if c["order"] == "not established" else ""


def size(count: int | None) -> str:
    """Bytes as MiB."""
    return "unknown" if count is None else f"{count / 2**20:,.1f} MiB"


def as_text(r: dict) -> str:
    """One result for a reader at a terminal."""
    where = r["environment"]
    title = (
        f"{r['name']}: {r['model']}, {r['dtype']}, {r['batch_size']} images a step, "
        f"{'noise' if r['synthetic'] else 'real data'}"
    )
    lines = [
        title,
        f"on {where['device']}, NPROC={where['NPROC']}, convolution={where['convolution']}, "
        f"XLA_FLAGS={where['XLA_FLAGS']!r}",
    ]
    if r["dropped"]:
        lines.append(f"left out, since peers do without: {', '.join(r['dropped'])}")
    if "error" in r:
        return "\n".join([*lines, f"  {r['error']}"])
    lines.append(f"  {r['params']:,} parameters, {r['macs']:,} multiply-accumulates an image")
    lines += [*_kind_lines(r, "train"), *_kind_lines(r, "inference")]
    peak, memory = r["peak"], r["memory"]
    lines += [
        f"  {'peak':10} {peak['flops_per_second'] / 1e9:.4g} GFLOP/s (matrix product), "
        f"{peak['bytes_per_second'] / 1e9:.4g} GB/s (copy)"
        f"{'; measured while others used the processors' if peak['disturbed'] else ''}",
        f"  {'memory':10} device {size(memory['device_peak_bytes'])}, process "
        f"{size(memory['process_peak_bytes'])} at most",
        f"  {'feeding':10} {r['data_stall_share']:.1%} of a loop's time, at most",
    ]
    for name, peer in r["peers"].items():
        lines += _peer_lines(name, peer)
    if r["diverged"]:
        lines.append("  the loss became infinite or NaN (on noise it may); times are not affected")
    return "\n".join(lines)


def _peer_lines(name: str, peer: dict) -> list[str]:
    """What there is to say of a peer."""
    lines = [f"  {name:10} {peer['version']}, {peer['definition']}"]
    for kind, of_kind in (("train", peer), ("inference", peer["inference"])):
        for tuning, c in of_kind["tunings"].items():
            lines.append(
                f"  {'':10} {kind}: our time / the best of its ({tuning}) = {c['ratio']:.2f}"
                f"{unordered(c)}"
            )
        variants = (f"{v} {spread(t)}{doubts(t)}" for v, t in of_kind["variants"].items())
        lines.append(f"  {'':10} ms a step: {', '.join(variants)}")
    for variant, why in peer["left_out"].items():
        lines.append(f"  {'':10} not measured: {variant}: {why}")
    return lines


def _kind_lines(r: dict, kind: str) -> list[str]:
    """What there is to say of training or of inference."""
    t, c = r[kind], r["compile"][kind]
    roof = ""
    if t["bound"] is not None:
        roof = (
            f", {t['arithmetic_intensity']:.3g} FLOP/byte: {t['bound']}-bound, "
            f"{t['share_of_roof']:.0%} of the roof"
        )
    took = ", ".join(f"{part} {c[part]:.2f} s" for part in ("trace", "lower", "compile"))
    return [
        f"  {kind:10} {t['images_per_second']:>12,.1f} images/s  {spread(t)} ms a step, "
        f"{t['rounds']} blocks of {t['steps']}{doubts(t)}",
        f"  {'':10} {t['flops_per_second'] / 1e9:.4g} GFLOP/s, {t['share_of_peak']:.1%} of "
        f"the matrix product's{roof}",
        f"  {'':10} {took} (persistent cache: {c['cache']}), "
        f"{size(r['memory']['compiled_bytes'][kind])}",
    ]
