"""What the help page says: keys of the screen first, then keys everywhere, then the query language by example."""

from __future__ import annotations

Section = tuple[str, tuple[tuple[str, str], ...]]

_SCREEN_KEYS: dict[str, Section] = {
    "fleet": ("FLEET", (
        ("t", "show or fold the site tree"), ("d", "show or fold the pump pane"), ("Enter", "open the pump under the cursor"),
        ("[  ]", "in the pump pane: previous or next channels"), ("T", "train a model for this pump's type"),
        ("Esc", "clear filter and site"))),
    "models": ("MODELS", (("T", "train this model anew"), ("o", "start a rollout of this version"),
                          ("m", "the model card of this version"))),
    "rollouts": ("ROLLOUTS", (("a", "approve the plan"), ("h", "halt: nothing more is sent"), ("Tab", "to the device tasks"))),
    "audit": ("AUDIT", (("/", "search the chain"),)),
}  # fmt: skip
_KEYS: Section = ("EVERYWHERE", (
    ("1 2 3 4", "fleet, models, rollouts, audit"), ("up down  k j", "move; PgUp PgDn page; g G first, last"),
    ("s S  r", "sort by the next, previous column; reverse"), ("/", "filter while you type; Enter keeps, Esc clears"),
    (":", "jump to a pump, site, rollout or screen"),
    (":theme  :glyphs", "night, high-contrast ..; braille, block, ascii"), ("c", "copy the shell command for this view"),
    ("x X", "export the table as CSV, the screen as SVG"), ("R", "read everything anew"), ("Tab", "next pane"),
    ("ctrl+p", "command palette"), ("ctrl+x", "stop the running action"), ("q", "quit")))  # fmt: skip
_QUERIES: Section = ("FILTER BY EXAMPLE", (
    ("p-101", "a word: part of the pump's tag or site"), ("health:alarm", "one health; health>=stale is stale or worse"),
    ("site:gannet type:esp", "both must hold"), ("drift>0.2 or version<12", "either; ( ) group, not negates"),
    ("seen>2h criticality<=2", "silent for two hours, and critical"),
    ("maker:ksb,sulzer", "any of them; docs/query.md has the rest")))  # fmt: skip


def help_sections(screen: str) -> tuple[Section, ...]:
    """Help for one screen."""
    return (_SCREEN_KEYS[screen], _KEYS, _QUERIES) if screen == "fleet" else (_SCREEN_KEYS[screen], _KEYS)
