"""What the agent's zipapp runs first: it becomes the archive's `__main__.py`.

The archive holds pure Python only. Compiled libraries (numpy, onnxruntime, cryptography, cffi) come from outside: from the
folders named by `PUMPDECK_AGENT_LIBRARIES`, which whoever starts the agent sets, else from where this Python finds libraries.
"""

import os
import sys
from pathlib import Path

LIBRARIES_VARIABLE = "PUMPDECK_AGENT_LIBRARIES"
PART = "--part"
PARTS = ("pumpdeck_agent.trial_child", "pumpdeck_agent.trial_pool")


def run() -> int:
    """Run the command line, or one of the agent's own child processes; returns the exit code."""
    # Behind the archive itself: what it brings along is what was signed and tried together.
    sys.path[1:1] = [folder for folder in os.environ.get(LIBRARIES_VARIABLE, "").split(os.pathsep) if folder]
    from pumpdeck_agent.code_cache import use_cache  # deferred: the path must stand before anything else is imported

    use_cache(Path(sys.path[0]))
    if sys.argv[1:2] == [PART] and sys.argv[2:3] and sys.argv[2] in PARTS:
        import runpy  # deferred: only a child process is started by module name

        module = sys.argv.pop(2)
        del sys.argv[1]
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        return 0
    from pumpdeck_agent.main import main  # deferred: the path must stand before anything else is imported

    return main()


if __name__ == "__main__":
    sys.exit(run())
