"""How a file is to be read, as far as the file and the inventory do not say it themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class IngestOptions:
    """Everything is found out by itself unless it is given here.

    site: id; makes bare tags unique and gives the time zone of times without one.
    pump: identity or tag, for files of one pump without a pump column.
    maker: whose aliases count, for every pump of the file.
    columns: column of the file -> channel, or `time`, `pump`, or `-` to leave it out.
    time_zone: of times without one; else that of the pump's site.
    time_format: strptime format, for times no rule can read.
    separator, decimal, encoding: of a text file. header_line: the line with the names of columns, from 1.
    skip_bad: leave out rows that cannot be used, and count them, instead of refusing the file.
    allow_missing: the file need not hold every channel of the pump type.
    """

    site: str = ""
    pump: str = ""
    maker: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    time_zone: str = ""
    time_format: str = ""
    separator: str = ""
    decimal: str = ""
    encoding: str = ""
    header_line: int = 1
    skip_bad: bool = False
    allow_missing: bool = False
