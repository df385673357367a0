"""`[gates]` of a pipeline spec: every threshold of the quality gates, and which of them make sense."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import msgspec

from pumpdeck_fleet.core.errors import InputError

PARITY_FLAGS = 0.9999
PARITY_RELATIVE = 1e-3
_SHARES = ("chance", "parity_flags", "excluded_", "backtest_over_", "coverage_", "unseen_", "profile_")
_NO_SHARES = ("coverage_seasons_warn",)
_MORE_IS_WORSE = ("replay_alarms", "holdout_alarms", "excluded_share", "backtest_over")
_LESS_IS_WORSE = ("coverage_pumps", "unseen_auc")


@dataclass(frozen=True, slots=True)
class GateThresholds:
    """Where the quality gates stand.

    chance: a figure is beyond its threshold when chance alone would show so much less often than this. parity_*: least share of
    equal alarm flags and largest relative difference of scores; they may be tightened only. replay_alarms_*, holdout_alarms_*:
    alarms per pump and 30 days, mean over pumps, on rows learned from and on held-out ones. excluded_share_*: share of rows left
    out of training. champion_margin, slice_margin: by what part the false-alarm rate may pass the champion's, over all pumps
    and in one slice. backtest_over_*: share of pumps beyond their own alarm budget, refused from backtest_fewest_pumps such
    pumps on. coverage_*: least share of the type's pumps, sites and makers that the data holds, least number of seasons, least
    share of rows in each third of an operating channel's range, share of pumps that used to run outside what the data holds of
    them, in more than coverage_history_hours of their hours. unseen_*: of supervised types, on pumps left out in turn: AUC,
    share of faults told. profile_latency_warn: share of a device class's latency limit that a measured row may take.
    """

    chance: float = 0.05
    parity_flags: float = PARITY_FLAGS
    parity_relative: float = PARITY_RELATIVE
    replay_alarms_warn: float = 2.0
    replay_alarms_refuse: float = 10.0
    holdout_alarms_warn: float = 2.0
    holdout_alarms_refuse: float = 1e6
    excluded_share_warn: float = 0.3
    excluded_share_refuse: float = 0.95
    champion_margin: float = 0.25
    slice_margin: float = 0.5
    backtest_over_warn: float = 0.1
    backtest_over_refuse: float = 0.5
    backtest_fewest_pumps: int = 3
    coverage_pumps_warn: float = 0.8
    coverage_pumps_refuse: float = 0.0
    coverage_sites_warn: float = 1.0
    coverage_makers_warn: float = 1.0
    coverage_seasons_warn: int = 1
    coverage_regime_warn: float = 0.01
    coverage_history_warn: float = 0.2
    coverage_history_hours: float = 0.05
    unseen_auc_warn: float = 0.8
    unseen_auc_refuse: float = 0.6
    unseen_found_warn: float = 0.5
    profile_latency_warn: float = 0.5

    def of(self, *names: str) -> dict[str, float]:
        """Those whose names begin so: what a verdict is stored with."""
        return {name: float(value) for name, value in asdict(self).items() if name.startswith(names)}


class GatesTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """`[gates]` as it is written."""

    chance: float = 0.05
    parity_flags: float = PARITY_FLAGS
    parity_relative: float = PARITY_RELATIVE
    replay_alarms_warn: float = 2.0
    replay_alarms_refuse: float = 10.0
    holdout_alarms_warn: float | None = None
    holdout_alarms_refuse: float = 1e6
    excluded_share_warn: float = 0.3
    excluded_share_refuse: float = 0.95
    champion_margin: float = 0.25
    slice_margin: float = 0.5
    backtest_over_warn: float = 0.1
    backtest_over_refuse: float = 0.5
    backtest_fewest_pumps: int = 3
    coverage_pumps_warn: float = 0.8
    coverage_pumps_refuse: float = 0.0
    coverage_sites_warn: float = 1.0
    coverage_makers_warn: float = 1.0
    coverage_seasons_warn: int = 1
    coverage_regime_warn: float = 0.01
    coverage_history_warn: float = 0.2
    coverage_history_hours: float = 0.05
    unseen_auc_warn: float = 0.8
    unseen_auc_refuse: float = 0.6
    unseen_found_warn: float = 0.5
    profile_latency_warn: float = 0.5


def read_thresholds(table: GatesTable, what: str) -> GateThresholds:
    """The thresholds of a spec; without a word of its own the hold-out warns where the replay does.

    Raises:
        InputError: names the key, what was expected and found.
    """
    said = msgspec.structs.asdict(table)
    if table.holdout_alarms_warn is None:
        said["holdout_alarms_warn"] = table.replay_alarms_warn
    for name, value in said.items():
        is_share = name.startswith(_SHARES) and name not in _NO_SHARES
        if not (math.isfinite(value) and 0 <= value <= (1 if is_share else math.inf)):
            expected = "a share from 0 to 1" if is_share else "a number from 0"
            raise InputError("is out of range", f"{what}: gates.{name}", expected=expected, found=value)
    found = GateThresholds(**said)
    _check_parity(found, what)
    if not found.chance:
        raise InputError("lets no figure be beyond its threshold", f"{what}: gates.chance", expected="more than 0", found=0)
    for stem in (*_MORE_IS_WORSE, *_LESS_IS_WORSE):
        warn, refuse = said[f"{stem}_warn"], said[f"{stem}_refuse"]
        if (refuse < warn) if stem in _MORE_IS_WORSE else (refuse > warn):
            expected = f"{'at least' if stem in _MORE_IS_WORSE else 'at most'} {warn:g}, where it warns"
            raise InputError("refuses before it warns", f"{what}: gates.{stem}_refuse", expected=expected, found=refuse)
    return found


def _check_parity(found: GateThresholds, what: str) -> None:
    """No spec may let a graph pass that answers otherwise than the trainer."""
    hint = "the parity gate may be tightened, never loosened"
    if (flags := found.parity_flags) < PARITY_FLAGS:
        expected = f"{PARITY_FLAGS:g} or more"
        raise InputError("is too low", f"{what}: gates.parity_flags", expected=expected, found=flags, hint=hint)
    if (apart := found.parity_relative) > PARITY_RELATIVE:
        expected = f"{PARITY_RELATIVE:g} or less"
        raise InputError("is too high", f"{what}: gates.parity_relative", expected=expected, found=apart, hint=hint)
