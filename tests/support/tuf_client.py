"""`pumpdeck-agent tuf-client` as a test drives it: the command line, over folders of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuf.api.metadata import Metadata

from pumpdeck_agent.main import main


@dataclass
class Client:
    """The command line, over folders of its own."""

    folder: Path
    address: str

    def __post_init__(self) -> None:
        (self.folder / "metadata").mkdir(parents=True)
        (self.folder / "targets").mkdir()

    def init(self, root: bytes) -> int:
        place = self.folder / "first.json"
        place.write_bytes(root)
        return main(["tuf-client", "--metadata-dir", str(self.folder / "metadata"), "init", str(place)])

    def refresh(self) -> int:
        return main(self.words("refresh"))

    def download(self, name: str) -> int:
        more = ["--target-name", name, "--target-dir", str(self.folder / "targets"), "--target-base-url"]
        words = self.words("download")
        return main([*words[:-1], *more, f"{self.address}/targets/", words[-1]])

    def words(self, step: str) -> list[str]:
        folder = str(self.folder / "metadata")
        return ["tuf-client", "--metadata-url", f"{self.address}/metadata/", "--metadata-dir", folder, step]

    def version(self, role: str) -> int:
        return int(Metadata.from_file(str(self.folder / "metadata" / f"{role}.json")).signed.version)

    def trusted(self) -> dict[str, int]:
        names = sorted(place.stem for place in (self.folder / "metadata").glob("*.json"))
        return {name: self.version(name) for name in names}

    def downloads(self) -> list[bytes]:
        return sorted(place.read_bytes() for place in (self.folder / "targets").iterdir())
