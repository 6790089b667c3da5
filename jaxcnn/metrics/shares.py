"""How sure a share is, and whether two models differ in what they get right, or in their losses.
NumPy, on the host.
"""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

CONFIDENCE = 0.95


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share of `trials` >= 1 independent ones (E. B. Wilson, "Probable
    inference, the law of succession, and statistical inference", 1927); it stays within [0, 1] and
    is of use near its ends, which the mean ± 2 standard errors is not.
    """
    # written out: importing scipy.stats takes longer than a short training
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, part = successes / trials, z * z / trials
    middle = share + part / 2
    half = math.sqrt(part * (share * (1 - share) + part / 4))
    low = 0.0 if successes == 0 else (middle - half) / (1 + part)
    high = 1.0 if successes == trials else (middle + half) / (1 + part)
    return low, high


def share_interval(share: float, trials: int) -> tuple[float, float] | None:
    """`wilson` of a share of `trials`; None where it is no share of so many: share * trials is no
    whole number in [0, trials].
    """
    successes = round(share * trials) if trials > 0 and 0 <= share <= 1 else -1
    if successes < 0 or abs(successes - share * trials) > 1e-6 * trials:
        return None
    return wilson(successes, trials)


def mcnemar(first: Bool[np.ndarray, " N"], second: Bool[np.ndarray, " N"]) -> dict[str, Any]:
    """McNemar's exact test of two models on the same N examples, where each is right or not:
    "both", "first_only", "second_only" and "neither" (numbers of examples), and "p", the
    probability of a split of the examples on which they disagree at least as uneven as this one, if
    either were as likely to be the right one (two-sided; 1 where they never disagree).

    Q. McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages" (1947); exact by the binomial distribution.
    """
    from scipy.stats import binomtest

    counts = {
        "both": int(np.sum(first & second)),
        "first_only": int(np.sum(first & ~second)),
        "second_only": int(np.sum(~first & second)),
        "neither": int(np.sum(~first & ~second)),
    }
    apart = counts["first_only"] + counts["second_only"]
    p = float(binomtest(counts["first_only"], apart).pvalue) if apart else 1.0
    return {**counts, "p": p}


def paired_difference(
    first: Float[np.ndarray, " N"], second: Float[np.ndarray, " N"]
) -> dict[str, Any]:
    """How far `second` lies above `first` on the same N examples: "mean" of the differences, its
    "interval95" (low, high) by Student's t, None for fewer than two, "examples" that count, and how
    many are "left_out" since one of the two is not finite.

    Student, "The probable error of a mean" (1908). The interval speaks of other examples of the
    same kind, not of other trainings.
    """
    from scipy.special import stdtrit

    found = second.astype(np.float64) - first.astype(np.float64)
    found = found[np.isfinite(first) & np.isfinite(second)]
    count, mean, interval = len(found), None, None
    if count:
        mean = float(found.mean())
    if mean is not None and count > 1:
        quantile = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2))
        half = quantile * float(found.std(ddof=1)) / math.sqrt(count)
        interval = (mean - half, mean + half)
    left_out = len(first) - count
    return {"mean": mean, "interval95": interval, "examples": count, "left_out": left_out}
