"""Fault drills: what is done to a device's agent on purpose, and the figures that come of it (`pumpdeck drill`)."""
