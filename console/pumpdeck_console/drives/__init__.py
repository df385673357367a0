"""Removable drives of this computer: one question, three platforms."""

from pumpdeck_console.drives.drive import Drive, choose_drive, file_system_of, find_drives

__all__ = ["Drive", "choose_drive", "file_system_of", "find_drives"]
