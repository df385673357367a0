"""Choose the detector's form and options for SKAB by the labels of valve1 alone (docs/adr/0083); no other label is read.

    python tests/bench/skab_choice.py DIR [--json]      0: the recorded options are what comes out, 1: they are not

Of the other 18 files only the unlabelled reference windows are read, for the pooled limit and the shape of a model type.
Files are drawn with replacement 2,000 times; in each draw a form takes its best option and is judged on the files left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import skab

FORMS = {
    "today": skab.Options(15.0),
    "dither": skab.Options(15.0, dither=True),
    "wander": skab.Options(15.0, wander=True),
    "dither and wander": skab.Options(15.0, dither=True, wander=True),
    "pca": skab.Options(15.0, model_type="pca"),
}
# 400 rows hold no block of ten longer windows.
WINDOWS_S = (5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0)
POINTS = tuple((window_s, votes) for window_s in WINDOWS_S for votes in (False, True))
DRAWS = 2000
SEED = 20200309
# A default of the product is left only for what beats it in so many of the draws.
NEEDED_SHARE = 0.75


@dataclass(frozen=True)
class Verdict:
    """One form on valve1. f1_out: mean F1 on the files left out of a draw; beats_today: share of the draws."""

    form: str
    f1_out: float
    beats_today: float
    window_s: float
    temperatures_vote: bool
    f1: float
    far_pct: float
    mar_pct: float


def outcomes(runs: list[skab.Run], form: skab.Options) -> np.ndarray:
    """Hits, false alarms, missed and quiet rows of each option and file of valve1, int64 [options, files, 4]."""
    found = []
    for window_s, votes in POINTS:
        options = replace(form, window_s=window_s, temperatures_vote=votes)
        pairs = [pair for pair in skab.fit_all(runs, options) if pair[0].run.name.startswith("valve1/")]
        parts = [skab.count(skab.alarms_of(*pair, options), pair[0].run.anomaly) for pair in pairs]
        found.append([list(asdict(part).values()) for part in parts])
    return np.array(found, np.int64)


def f1_of(counts: np.ndarray) -> np.ndarray:
    """F1 of summed counts [.., 4]."""
    hit, false_alarm, missed = counts[..., 0], counts[..., 1], counts[..., 2]
    return np.asarray(2 * hit / np.maximum(2 * hit + false_alarm + missed, 1))


def draws(files: int) -> np.ndarray:
    """How often each file is drawn, int64 [draws, files]; the same on every computer."""
    drawn = np.random.default_rng(SEED).integers(0, files, (DRAWS, files))
    return np.stack([np.bincount(one, minlength=files) for one in drawn])


def winners(counts: np.ndarray, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each draw the form's best option, and its F1 on the files left out."""
    inside = f1_of(np.einsum("df,ofk->dok", drawn, counts))
    best = inside.argmax(axis=1)
    outside = f1_of(np.einsum("df,ofk->dok", (drawn == 0).astype(np.int64), counts))
    return best, outside[np.arange(len(drawn)), best]


def bagged(best: np.ndarray) -> tuple[float, bool]:
    """Window and temperatures: the majority of the winners, and the median window of these."""
    points = [POINTS[place] for place in best.tolist()]
    votes = 2 * sum(vote for _, vote in points) > len(points)
    return statistics.median_low(window_s for window_s, vote in points if vote == votes), votes


def choose(runs: list[skab.Run]) -> tuple[skab.Options, list[Verdict]]:
    """The choice and how every form did. runs: as `read_folder(closed=True)` gives them."""
    counts = {name: outcomes(runs, form) for name, form in FORMS.items()}
    drawn = draws(counts["today"].shape[1])
    won = {name: winners(found, drawn) for name, found in counts.items()}
    verdicts = []
    for name, (best, out) in won.items():
        window_s, votes = bagged(best)
        total = counts[name][POINTS.index((window_s, votes))].sum(axis=0)
        part = skab.Counts(*total.tolist())
        share = float((out > won["today"][1]).mean())
        verdicts.append(Verdict(name, float(out.mean()), share, window_s, votes, part.f1, part.far_pct, part.mar_pct))
    able = [one for one in verdicts if one.form == "today" or one.beats_today >= NEEDED_SHARE]
    chosen = max(able, key=lambda one: one.f1_out)
    options = replace(FORMS[chosen.form], window_s=chosen.window_s, temperatures_vote=chosen.temperatures_vote)
    return options, verdicts


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Choose SKAB's options by the labels of valve1 alone")
    parser.add_argument("folder", type=Path, help="the folder with valve1/, valve2/ and other/")
    parser.add_argument("--json", action="store_true", help="the chosen options as one flat object on stdout")
    parser.add_argument("--quick", action="store_true", help="accepted for CI; the whole choice takes seconds")
    arguments = parser.parse_args(argv)
    options, verdicts = choose(skab.read_folder(arguments.folder, closed=True))
    talk = sys.stderr if arguments.json else sys.stdout
    print(f"{'form':18} f1 out  beats today  window  temperatures  f1      FAR %  MAR %   (valve1)", file=talk)
    for one in verdicts:
        print(
            f"{one.form:18} {one.f1_out:.4f}  {one.beats_today:11.2f}  {one.window_s:6g}  "
            f"{'vote' if one.temperatures_vote else 'silent':12}  {one.f1:.4f}  {one.far_pct:5.2f}  {one.mar_pct:5.2f}",
            file=talk,
        )
    print(json.dumps(asdict(options)) if arguments.json else f"chosen: {options}")
    return 0 if options == skab.OPTIONS else 1


if __name__ == "__main__":
    sys.exit(main())
