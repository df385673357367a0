"""Which of the two platform modules this computer needs."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from pumpdeck_agent.platform_windows import (
        FileLocks,
        become,
        is_clock_synced,
        limit_this_process,
        resident_mb,
        run_in_fork,
        user_ids,
    )
else:
    from pumpdeck_agent.platform_posix import (
        FileLocks,
        become,
        is_clock_synced,
        limit_this_process,
        resident_mb,
        run_in_fork,
        user_ids,
    )

__all__ = ["FileLocks", "become", "is_clock_synced", "limit_this_process", "resident_mb", "run_in_fork", "user_ids"]
