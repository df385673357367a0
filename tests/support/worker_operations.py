"""An opener for worker process tests: small operations that answer, report, wait, fail and die."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from pumpdeck_console.worker_process import Progress
from pumpdeck_fleet.core.errors import GateRefusedError


def opener(context: Mapping[str, Any]) -> Any:
    def run(operation: str, arguments: Mapping[str, Any], progress: Progress) -> Any:
        if operation == "echo":
            return {"context": dict(context), "arguments": dict(arguments)}
        if operation == "count":
            for done in range(3):
                progress("counting", done, 3)
                time.sleep(0.06)
            return 3
        if operation == "print":
            print("a library prints this")
            sys.stdout.flush()
            os.write(1, b"and so does a C library\n")
            return "printed"
        if operation == "wait":
            while True:
                progress("waiting", 0, 0)
                time.sleep(0.01)
        if operation == "refuse":
            raise GateRefusedError("is worse than the champion", "esp-health v13", expected=0.9, found=0.7, hint="train longer")
        if operation == "die":
            os._exit(9)
        raise ZeroDivisionError("a defect")

    return run
