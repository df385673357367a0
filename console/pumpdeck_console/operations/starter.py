"""The files of a new workspace: small, valid, and teaching by comments. docs/fleet.example.toml has every key."""

from __future__ import annotations

FLEET = """\
# The inventory of this fleet: sites, devices and pumps. People edit it; keep it in git.
# Every key that is understood stands in docs/fleet.example.toml. After a change: pumpdeck doctor
format = 1
name = "{name}"

[device_classes.edge-x86]
architecture = "x86_64"
os = "linux"
onnxruntime = "1.18"
highest_opset = 13
memory_mb = 512
cpu_quota_pct = 50

[pump_types.esp]
title = "Electric submersible pump"
cadence_s = 60
channels = [
  {{ name = "suction_pressure_bar", unit = "bar", low = 0, high = 250, resolution = 0.1 }},
  {{ name = "discharge_pressure_bar", unit = "bar", low = 0, high = 400, resolution = 0.1 }},
  {{ name = "motor_temperature_c", unit = "degC", low = -20, high = 250, resolution = 0.1 }},
  {{ name = "vibration_mm_s", unit = "mm/s", low = 0, high = 50, resolution = 0.01 }},
]

# [[sites]]
# id = "gannet"
# name = "Gannet Alpha"
# kind = "platform"
# link = "ssh"                # ssh | courier | mqtt
# time_zone = "Europe/London"
#
# [[sites.devices]]
# id = "gannet-d1"
# device_class = "edge-x86"
# address = "10.20.1.11"
# pumps = [
#   {{ tag = "P-101A", type = "esp", maker = "northfield", criticality = 2 }},
# ]
"""

POLICIES = """\
# Policies of this fleet. Every key and its default stands in docs/policies.example.toml.
format = 1

[rollout]
waves = ["1", "5%", "25%", "rest"]
soak_s = 86400
approvals = 1
"""

PIPELINE = """\
# How esp pumps are trained. Every key and its default stands in docs/pipeline.example.toml.
format = 1
pump_type = "esp"

[alarm]
budget_alarms = 1.0           # false alarms that a pump may raise ..
budget_days = 30.0            # .. in this time
"""


def starter_files(name: str) -> dict[str, str]:
    """Path inside the workspace -> text, for a fleet of that name."""
    fleet = FLEET.format(name=name.replace('"', "'"))
    return {"fleet.toml": fleet, "policies.toml": POLICIES, "pipelines/esp.toml": PIPELINE}
