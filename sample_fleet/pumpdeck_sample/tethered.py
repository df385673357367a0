"""`python -m pumpdeck_sample.tethered ..`: the device's own `pumpdeck-agent ..`, which also stops when its standard input ends.

A real agent is started by the device's service manager and outlives everybody; a simulated one must never outlive its simulator,
even when that is killed without a word.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from pumpdeck_agent.main import main

GRACE_S = 10.0


def _stop_at_end_of_input() -> None:
    try:
        while os.read(sys.stdin.fileno(), 4096):
            pass
    except OSError:
        pass
    threading.Timer(GRACE_S, os._exit, (1,)).start()
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    sys.exit(main())
