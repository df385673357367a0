"""Types, pure rules and ports of Pumpdeck. Standard library only; no I/O except `files`."""
