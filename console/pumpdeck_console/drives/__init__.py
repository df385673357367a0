"""Removable drives of this computer: one question, three platforms."""

from pumpdeck_console.drives.drive import Drive, choose_drive, find_drives

__all__ = ["Drive", "choose_drive", "find_drives"]
