"""Writes v1/golden.jsonl: what the formula gives, by Python's own median and in FP64, not by the model."""

import json
import math
import struct
from pathlib import Path
from statistics import fmean, median

NAN = math.nan


def fp32(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


def shortest(value: float) -> float | str:
    """The shortest decimal number that is this FP32; a text if it is not finite, as strict JSON has no such number."""
    if not math.isfinite(value):
        return {"nan": "NaN", "inf": "Infinity"}[str(value)]
    value = fp32(value)
    return next(n for n in (float(f"{value:.{digits}g}") for digits in range(1, 10)) if fp32(n) == value)


def judge(series: list[float]) -> tuple[float, float, bool]:
    *before, last = map(fp32, series)
    known = [value for value in before if not math.isnan(value)]
    expected = median(known)
    deviations = [abs(value - expected) for value in known]
    spread = 1.4826 * median(deviations) or 1.253314 * fmean(deviations)
    distance = abs(last - expected)
    score = distance / spread if spread else 0.0 if distance == 0 else distance * math.inf
    return score, expected, score > 3.5


# Requests a second to a small site, one value a minute.
USUAL = [41.2, 39.8, 43.1, 40.5, 38.9, 42.4, 41.7, 40.1, 39.3, 42.0, 40.8]
FLAT = [5.0] * 11
ROWS = {
    "as usual": [USUAL + [42.9]],
    "a spike": [USUAL + [58.0]],
    "a dip": [USUAL + [0.0]],
    "an old spike hides no new one": [[*USUAL[:4], 400.0, *USUAL[5:], 58.0]],
    "missing values": [[NAN, 41.2, 39.8, NAN, 43.1, 40.5, 38.9, 42.4, 41.7, NAN, 40.1, 58.0]],
    "the last value is missing": [USUAL + [NAN]],
    "never another value": [FLAT + [5.0], FLAT + [5.5]],
    "rarely another value": [[5.0, 5.0, 5.0, 9.0, 5.0, 5.0, 5.0, 5.0, 7.0, 5.0, 5.0, 9.0]],
    "four series": [USUAL + [42.9], USUAL + [58.0], USUAL + [NAN], FLAT + [5.0]],
}

lines = []
for name, batch in ROWS.items():
    scores, expected, spikes = zip(*map(judge, batch), strict=True)
    outputs = {"score": [*map(shortest, scores)], "expected": [*map(shortest, expected)], "is_spike": list(spikes)}
    inputs = {"series": [[*map(shortest, series)] for series in batch]}
    lines.append(json.dumps({"name": name, "inputs": inputs, "outputs": outputs}, allow_nan=False) + "\n")
(Path(__file__).parent / "v1/golden.jsonl").write_text("".join(lines), encoding="utf-8")
