"""A folder of one's own classes, made from annotations of any form: photographs, label maps, label set, recipe, splits.

hats/photos/NAME.jpg   hats/labels/NAME.png    ids in the order of the classes, 255 for void
hats/labels.json       the label set           hats/train.txt, val.txt    the splits
hats/recipe.json       what `qanet train hats` trains
"""

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qanet.datasets.decoding import decode_photo
from qanet.datasets.importing import NOTHING, Annotations, Picture
from qanet.errors import QanetError
from qanet.files import write_bytes, write_text
from qanet.labels import IGNORE, LabelSet

BASE = "ccp13-lite0"  # the recipe, and the bundle whose weights training starts from
_LEAST_PEOPLE = 600  # that a run sees: small sets are drawn several times an epoch
_EPOCHS = 12
_COPIED = (".jpg", ".jpeg", ".png")  # other files are written again, as PNG
_SHOWN = 8


@dataclass(frozen=True)
class ClassPlan:
    """The classes, and which names, ids or colours of the annotations each holds.

    >>> plan = ClassPlan.parse("hair,clothes=shirt+trousers")
    >>> plan.classes, plan.sources["clothes"]
    (('background', 'hair', 'clothes'), ('shirt', 'trousers'))
    """

    classes: tuple[str, ...]
    sources: Mapping[str, tuple[str, ...]]  # of the classes that list their own
    void: tuple[str, ...] = ()
    others: str | None = None  # what everything else becomes: "background", "void"; None: see `parse`

    @classmethod
    def parse(cls, text: str, void: str = "", others: str | None = None) -> "ClassPlan":
        """Read "background,hair,clothes=shirt+trousers"; background is added where it is missing.

        Args:
            void: names that are not to be learnt, with + between them.
            others: what names in no class become; None: shapes become background, ids and colours of masks an error.
        """
        classes, sources = [], {}
        for part in (word.strip() for word in text.split(",")):
            name, equals, members = (piece.strip() for piece in part.partition("="))
            if not name or (equals and not members):
                expected = "names between commas, such as hair,clothes=shirt+trousers"
                raise QanetError("bad --classes", expected=expected, got=text)
            classes.append(name)
            if equals:
                sources[name] = tuple(member.strip() for member in members.split("+"))
        ordered = ["background", *(name for name in classes if name != "background")]
        return cls(tuple(ordered), sources, tuple(word.strip() for word in void.split("+") if word.strip()), others)

    def label_set(self, name: str) -> LabelSet:
        """The label set; classes left-X and right-X swap in a mirror."""
        sided = [name.removeprefix("left-") for name in self.classes if name.startswith("left-")]
        pairs = [[f"left-{part}", f"right-{part}"] for part in sided if f"right-{part}" in self.classes]
        return LabelSet.of_document({"name": name, "classes": list(self.classes), "flip_pairs": pairs}, "--classes")

    def table(self, found: Annotations) -> NDArray[np.uint8]:
        """(names + 2,) uint8: position in `found.names`, then VOID and NOTHING from the end -> class id or IGNORE.

        Raises:
            QanetError: a class or a member that the annotations do not have; of masks, an id or colour without a class.
        """
        place = {_plain(name): position for position, name in enumerate(found.names)}
        table = np.full(len(found.names) + 2, IGNORE, np.uint8)
        table[NOTHING] = 0
        given = np.zeros(len(found.names), bool)
        by_order = found.form == "masks of ids" and not found.named and not self.sources
        for class_id, name in enumerate(self.classes):
            members = self.sources.get(name, (str(class_id),) if by_order else (name,))
            for member in members:
                position = place.get(_plain(member))
                if position is None and (by_order or (name == "background" and name not in self.sources)):
                    continue  # of shapes there is none; an id may not occur
                if position is None or given[position]:
                    self._refuse(found, name, member, twice=position is not None)
                table[position], given[position] = class_id, True
        for member in self.void:
            position = place.get(_plain(member))
            if position is None:
                self._refuse(found, "void", member, twice=False)
            given[position] = True
        others = self.others or ("background" if not found.form.startswith("masks") else None)
        if not given.all() and others is None:
            self._ask(found, [name for name, known in zip(found.names, given) if not known])
        table[:-2][~given] = 0 if others == "background" else IGNORE
        return table

    def _refuse(self, found: Annotations, name: str, member: str, twice: bool) -> None:
        shown = ", ".join(found.names[:40])
        if twice:
            raise QanetError(f"{member} is in two classes", expected="each in one", got=name)
        if not found.named:
            self._ask(found, list(found.names))
        fact = f"class {name} is not in the annotations ({found.form})"
        raise QanetError(fact, expected=f"of {shown}", got=member, next_command=f"--classes ...,{name}=NAME+NAME")

    def _ask(self, found: Annotations, rest: list[str]) -> None:
        example = ",".join(f"{name}={source}" for name, source in zip(self.classes, found.names))
        raise QanetError(
            f"{found.form} without a name: {', '.join(rest[:_SHOWN])}{' ...' if len(rest) > _SHOWN else ''}",
            expected="a class for each, or --others background, or --others void",
            got=f"{len(rest)} of {len(found.names)} without",
            next_command=f"--classes '{example}', as they are meant",
        )


def make_folder(
    output: str | Path,
    found: Annotations,
    plan: ClassPlan,
    *,
    val_share: float = 0.2,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the folder; nothing of the source is changed.

    Args:
        output: the folder, new or empty; its name is that of the label set and the recipe.
        found: of `find_annotations`.
        val_share: share of the photographs held back to measure on, at least one.
    Raises:
        QanetError: a folder that is not empty, classes that do not fit, broken files, sizes that differ.
    """
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise QanetError(f"{output} is there already", expected="a new folder", next_command="choose another name")
    labels, table = plan.label_set(output.resolve().name), plan.table(found)
    names = _unique_names(found.pictures)
    aside = output.with_name(f".{output.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        for done, (name, picture) in enumerate(zip(names, found.pictures), start=1):
            _write_picture(aside, name, picture, table)
            progress(done, len(names))
        for split, chosen in zip(("train", "val"), _split(names, val_share, seed)):
            write_text(aside / f"{split}.txt", "".join(f"{name}\n" for name in chosen))
        write_text(aside / "labels.json", _json_text({**labels.to_document(), "colours": _hex(labels)}))
        write_text(aside / "recipe.json", _json_text(_recipe(labels.name, len(names))))
        if output.exists():
            output.rmdir()
        aside.rename(output)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return output


def _write_picture(folder: Path, name: str, picture: Picture, table: NDArray[np.uint8]) -> None:
    import cv2

    labels = table[picture.draw()]
    stored = decode_photo(picture.photo)
    suffix = picture.photo.suffix.lower()
    if stored.shape[:2] == labels.shape:
        if suffix in _COPIED:
            write_bytes(folder / "photos" / f"{name}{suffix}", picture.photo.read_bytes())
        else:
            write_bytes(folder / "photos" / f"{name}.png", cv2.imencode(".png", stored)[1].tobytes())
    else:  # annotated on the photograph as viewers turn it, by its EXIF orientation
        turned = cv2.imread(str(picture.photo), cv2.IMREAD_COLOR)
        if turned is None or turned.shape[:2] != labels.shape:
            raise QanetError(
                f"{picture.photo} and its annotation differ in size", expected=labels.shape, got=stored.shape[:2]
            )
        quality = [cv2.IMWRITE_JPEG_QUALITY, 97]
        write_bytes(folder / "photos" / f"{name}.jpg", cv2.imencode(".jpg", turned, quality)[1].tobytes())
    write_bytes(folder / "labels" / f"{name}.png", cv2.imencode(".png", labels)[1].tobytes())


def _unique_names(pictures: Sequence[Picture]) -> list[str]:
    """A file name of each picture without spaces, which separate names in split files; none twice."""
    names: list[str] = []
    for picture in pictures:
        plain = re.sub(r"[^\w.-]+", "_", picture.name) or "picture"
        name, number = plain, 2
        while name in names:
            name, number = f"{plain}_{number}", number + 1
        names.append(name)
    return names


def _split(names: Sequence[str], val_share: float, seed: int) -> tuple[list[str], list[str]]:
    """Names to train on and to measure on; a set of one is both."""
    if not 0 <= val_share < 1:
        raise QanetError("bad share for val", expected="0 or more, below 1", got=val_share)
    if len(names) == 1:
        return list(names), list(names)
    count = min(len(names) - 1, max(1, round(val_share * len(names)))) if val_share else 0
    chosen = set(np.random.default_rng(seed).permutation(len(names))[:count].tolist())
    return [n for i, n in enumerate(names) if i not in chosen], [n for i, n in enumerate(names) if i in chosen]


def _recipe(name: str, photographs: int) -> dict[str, object]:
    """A short run from the shipped weights. The number of people seen in an epoch does not fall with the set's size."""
    settings: dict[str, float] = {
        "epochs": _EPOCHS,
        "epoch_people": max(photographs, _LEAST_PEOPLE // _EPOCHS),
        "batch_size": 8,
    }
    settings |= {"frozen_stages": 4, "loss_stride": 2, "lovasz_from": 0.5}  # what a processor trains in minutes
    start = {"recipe": BASE, "initial_weights": BASE, "labels": "labels.json", "data": "."}
    return {"name": name, **start, "settings": {**settings, "learning_rate": 2e-3}}


def _hex(labels: LabelSet) -> list[str]:
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in labels.colours_rgb.tolist()]


def _json_text(document: object) -> str:
    """JSON with lists on one line, for people who edit it."""
    text = json.dumps(document, indent=2)
    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: "[" + re.sub(r"\s*\n\s*", " ", m[1]) + "]", text) + "\n"


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "-", name.strip().lower())
