"""The warm trial process of a simulator: everything is imported once, each trial runs in a fork of its own.

Requests are lines of JSON on standard input, reports lines on standard output. It ends with its parent (end of input).
"""

from __future__ import annotations

import sys

from pumpdeck_agent.platform_here import run_in_fork
from pumpdeck_agent.runtime import warm_up
from pumpdeck_agent.trial import REPORT_MAX_BYTES, TrialReport, TrialRequest, ended_by, failed, parse_report
from pumpdeck_agent.trial_child import rounded, run_trial
from pumpdeck_fleet.core import canonical

_LINE_MAX_BYTES = 16 * 1024


def try_in_fork(request: TrialRequest) -> TrialReport:
    """One trial in a fork; what becomes of the fork becomes the report."""
    data, status = run_in_fork(lambda: canonical.encode(rounded(run_trial(request))), request.wall_s, REPORT_MAX_BYTES)
    if status is None:
        return failed(f"the trial did not end within {request.wall_s:g} s")
    return parse_report(data) if status == 0 else failed(f"the trial process {ended_by(status)}")


def main() -> int:
    """Serve trials until the end of input."""
    warm_up()
    while line := sys.stdin.buffer.readline(_LINE_MAX_BYTES):
        request = canonical.decode(TrialRequest, line, "trial request", max_bytes=_LINE_MAX_BYTES)
        sys.stdout.buffer.write(canonical.encode(try_in_fork(request)) + b"\n")
        sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
