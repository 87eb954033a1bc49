"""The official layout: where the published data sets keep their files.

    <DS>/{Training,Validation|Testing}/{Images,Category_ids,Human_ids,Instance_ids}
    <DS>/annotations/<DS>_{train,val|test}.json

Source: method, Layout; names as in soeaver/QANet's data set catalogue. Single-person sets need no Human_ids and
Instance_ids: the person is everything that is not background.
"""

from dataclasses import dataclass, field
from pathlib import Path

from qanet.errors import QanetError

IMAGES, CATEGORIES, HUMANS, PARTS = "Images", "Category_ids", "Human_ids", "Instance_ids"
_SPLITS = {"train": "Training", "val": "Validation", "test": "Testing"}


@dataclass(frozen=True)
class Layout:
    """One data set's names."""

    format: str  # as users name it
    folder: str  # <DS>
    labels: str  # the label set of its own
    aliases: dict[str, str] = field(default_factory=dict)  # split -> the split that is meant

    def split(self, name: str | None) -> str:
        """The split of that name, `val` for None; QanetError for an unknown one."""
        chosen = self.aliases.get(name or "val", name or "val")
        if chosen not in _SPLITS:
            raise QanetError(f"no split {name!r} in the layout of {self.folder}", expected=", ".join(_SPLITS), got=name)
        return chosen

    def split_folder(self, root: Path, split: str) -> Path:
        """<DS>/Training and so on."""
        return root / _SPLITS[split]

    def json_path(self, root: Path, split: str) -> Path:
        """The split's annotation file. Its name tells one set from another, so no other name will do."""
        return root / "annotations" / f"{self.folder}_{split}.json"

    def find_root(self, root: Path) -> Path:
        """The folder that holds annotations/: `root`, or <DS> in it."""
        for folder in (root, root / self.folder):
            if (folder / "annotations").is_dir():
                return folder
        raise QanetError(
            f"no data set at {root}",
            expected=f"annotations/ and {', '.join(_SPLITS.values())}, as in {self.folder}",
            got="no such folder" if not root.is_dir() else sorted(p.name for p in root.iterdir())[:8],
            next_command="give the folder of the data set, or the --format that it has",
        )

    def is_at(self, root: Path) -> bool:
        """Whether `root`, or <DS> in it, holds annotation files of this data set's name."""
        return any(any((f / "annotations").glob(f"{self.folder}_*.json")) for f in (root, root / self.folder))

    def splits(self, root: Path) -> tuple[str, ...]:
        """The splits that are there."""
        found = self.find_root(root)
        return tuple(s for s in _SPLITS if self.split_folder(found, s).is_dir() and self.json_path(found, s).exists())


LAYOUTS = {
    layout.format: layout
    for layout in (
        Layout("cihp", "CIHP", "cihp20"),
        Layout("lip", "LIP", "lip20"),
        Layout("atr", "ATR", "atr18"),
        Layout("mhp", "MHP-v2", "mhp59"),
        # Two orders of the six parts are in use: `ppp`, the default, is head, torso, upper-arms, ...; the files of the
        # other begin with lower-arms. The set is trained on Training and tested on Testing; it has no other split.
        Layout("ppp", "PASCAL-Person-Part", "ppp7", {"val": "test"}),
        Layout("ppp-arms-first", "PASCAL-Person-Part", "ppp7-arms-first", {"val": "test"}),
    )
}
