"""What the help page says: keys of the screen first, then keys everywhere, then the query language by example."""

from __future__ import annotations

Section = tuple[str, tuple[tuple[str, str], ...]]

_SCREEN_KEYS: dict[str, Section] = {
    "fleet": ("FLEET", (
        ("t", "show or fold the site tree"), ("d", "show or fold the pump pane"), ("Enter", "open the pump under the cursor"),
        ("[  ]", "in the pump pane: previous or next channels"), ("T", "train a model for this pump's type"),
        ("Esc", "clear filter and site"))),
    "models": ("MODELS", (
        ("m", "the model card of this version"), ("=", "compare it with another version"),
        ("p", "promote: make this version the champion"), ("b", "roll back: the champion before it"),
        ("T", "train this model anew"), ("o", "start a rollout of this version"))),
    "rollouts": ("ROLLOUTS", (
        ("a", "approve the plan"), ("h", "halt: nothing more is sent, even while delivering"), ("u", "resume a halted rollout"),
        ("A", "abort: end it for good"), ("D", "deliver: carry out what is due"), ("Tab", "to the device tasks"))),
    "bundles": ("BUNDLES", (
        ("e", "write what waits onto a stick, or into one file for mail"), ("i", "take in what came back"),
        ("w", "note who carries the stick"), ("l", "mark it as lost"), ("n", "write a lost stick's load again"))),
    "audit": ("AUDIT", (("/", "search the chain"),)),
    "runs": ("RUNS", (
        ("v V", "next, previous list: runs, snapshots, asked for, experiments"), ("Enter", "the row in full"),
        ("T", "train this pump type, or run this experiment"), ("=", "compare this run with another"),
        ("D", "dismiss what a device asks for"), ("ctrl+x  Esc", "stop what is under way; put its story away"))),
    "trust": ("TRUST", (
        ("v V", "next, previous list: keys, readers, behind, retired"),
        ("Enter", "the row in full, with the commands for it"))),
    "upkeep": ("UPKEEP", (
        ("v V", "next, previous list: checks, backups, trips, conflicts"), ("Enter", "the row in full"),
        ("b", "back the workspace up"), ("p", "prove a backup: read all of it back"),
        ("y", "sync: take in another workspace; the plan comes first"),
        ("t", "prepare a trip"), ("u", "take in a trip that returned"))),
}  # fmt: skip
_KEYS: Section = ("EVERYWHERE", (
    ("1 .. 8", "the screens, as the first line names them"), ("up down  k j", "move; PgUp PgDn page; g G first, last"),
    ("s S  r", "sort by the next, previous column; reverse"), ("/", "filter while you type; Enter keeps, Esc clears"),
    (":", "jump to a pump, site, rollout or screen"),
    (":theme  :glyphs", "night, high-contrast ..; braille, block, ascii"), ("c", "copy the shell command for this view"),
    ("x X", "export the table as CSV, the screen as SVG"), ("R", "read everything anew"), ("Tab", "next pane"),
    ("ctrl+p", "command palette"), ("ctrl+x", "stop the running action"), ("q", "quit")))  # fmt: skip
_QUERIES: dict[str, Section] = {"fleet": ("FILTER BY EXAMPLE", (
    ("p-101", "a word: part of the pump's tag or site"), ("health:alarm", "one health; health>=stale is stale or worse"),
    ("site:gannet type:esp", "both must hold"), ("drift>0.2 or version<12", "either; ( ) group, not negates"),
    ("seen>2h criticality<=2", "silent for two hours, and critical"),
    ("maker:ksb,sulzer", "any of them; docs/query.md has the rest"))),
    "models": ("FILTER BY EXAMPLE", (
        ("esp-health v13", "words: part of model, version, type, alias or note"), ("alias:champion", "one alias"),
        ("gates:warn running>0", "both must hold"), ("made<7d", "registered within the last week"))),
    "runs": ("FILTER BY EXAMPLE", (
        ("esp-health", "a word: part of model, type, digest or reason"), ("state:refused at<7d", "refused within the last week"),
        ("held:no type:esp", "in the list of snapshots"), ("alias:champion", "snapshots that a champion came of"))),
}  # fmt: skip


def help_sections(screen: str) -> tuple[Section, ...]:
    """Help for one screen."""
    queries = (_QUERIES[screen],) if screen in _QUERIES else ()
    return (_SCREEN_KEYS[screen], _KEYS, *queries)
