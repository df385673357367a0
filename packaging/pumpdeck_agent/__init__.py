"""What runs on a device: verifies, installs, tries and scores, and reports back with signed receipts."""

AGENT_VERSION = "0.1.0"
