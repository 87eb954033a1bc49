"""Annotations as tools write them: masks of ids or colours, COCO, CVAT for images, Labelme.

    found = find_annotations("DIR")        # which form it is, its pictures, and the names of what is drawn in them
    found.pictures[0].draw()               # (H, W) int32: position in found.names, -1 where nothing is drawn

A shape drawn later lies on top, except in COCO, whose file has no order: there the smaller one lies on top.
"""

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from qanet.coco.annotations import fill_polygon, segmentation_mask
from qanet.datasets.decoding import decode_ids
from qanet.errors import QanetError

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_PHOTO_FOLDERS = ("photos", "images", "image", "img", "imgs", "jpegimages")
_MASK_FOLDERS = ("labels", "masks", "mask", "annotations", "label", "gt", "segmentationclass", "segmentation")
_MASK_ENDINGS = ("_mask", "-mask", "_label", "-label", "_seg", "-seg", ".mask", "_labels", "_masks")
_MOST_COLOURS = 256
NOTHING, VOID = -1, -2  # in a drawing: nothing is drawn; 255 in a mask of ids
_FORMS = "folders of photographs and masks, a COCO file, CVAT for images 1.1, or Labelme"
Drawing = NDArray[np.int32]
Shape = tuple[str, Callable[[], NDArray[np.uint8]]]  # a label, and its mask (H, W) of 0 and 1
Found = tuple[str, Path, tuple[int, int], Sequence[Shape]]  # name, photograph, (H, W) pixels, shapes


@dataclass(frozen=True)
class Picture:
    """A photograph and what was drawn in it.

    Attributes:
        draw: gives (H, W) int32, positions in `Annotations.names`, NOTHING, or VOID.
    """

    name: str
    photo: Path
    draw: Callable[[], Drawing]


@dataclass(frozen=True)
class Annotations:
    """The annotated pictures of a folder or a file.

    Attributes:
        form: "masks of ids", "masks of colours", "COCO", "CVAT" or "Labelme".
        names: of what is drawn: labels, or ids ("7") and colours ("#ff0000") of masks without names.
        named: whether these are names that people gave.
    """

    form: str
    names: tuple[str, ...]
    pictures: list[Picture]
    named: bool = True


def find_annotations(source: str | Path) -> Annotations:
    """Recognise and list the annotations of a folder, or of a COCO or CVAT file; shapes are not drawn yet.

    Raises:
        QanetError: none of a known form, broken files, or photographs that are missing.
    """
    source = Path(source)
    root = source.parent if source.is_file() else source
    if not source.exists():
        raise QanetError(f"no data at {source}", expected=_FORMS, got="nothing")
    files = [source] if source.is_file() else sorted(p for p in root.rglob("*") if p.suffix in (".json", ".xml"))
    photos = _photos_by_name(root)
    labelme: list[tuple[Path, Mapping[str, Any]]] = []
    for path in files:
        if path.suffix == ".xml":
            tree = _xml(path)
            if tree is not None:
                return _of_shapes("CVAT", _cvat_pictures(tree, path, photos))
            continue
        document = _json(path)
        if isinstance(document, dict) and isinstance(document.get("annotations"), list) and "images" in document:
            return _of_shapes("COCO", _coco_pictures(document, path, photos))
        if isinstance(document, dict) and isinstance(document.get("shapes"), list):
            labelme.append((path, document))
    if labelme:
        return _of_shapes("Labelme", [_labelme_picture(path, document, photos) for path, document in labelme])
    return _of_masks(root, _mask_pairs(root))


# Shapes: COCO, CVAT, Labelme


def _of_shapes(form: str, pictures: list[Found]) -> Annotations:
    names = tuple(dict.fromkeys(label for _, _, _, shapes in pictures for label, _ in shapes))
    if not names:
        raise QanetError(f"the {form} annotations have no shape", expected="polygons, boxes or masks", got="none")
    return Annotations(
        form, names, [Picture(name, photo, partial(_paint, hw, shapes, names)) for name, photo, hw, shapes in pictures]
    )


def _paint(hw: tuple[int, int], shapes: Sequence[Shape], names: tuple[str, ...]) -> Drawing:
    canvas = np.full(hw, NOTHING, np.int32)
    for label, mask in shapes:
        canvas[mask() != 0] = names.index(label)
    return canvas


def _coco_pictures(document: Mapping[str, Any], path: Path, photos: dict[str, Path]) -> list[Found]:
    try:
        names = {entry["id"]: str(entry["name"]) for entry in document["categories"]}
        entries: dict[Any, list[Mapping[str, Any]]] = {}
        for entry in document["annotations"]:
            if entry.get("segmentation"):
                entries.setdefault(entry["image_id"], []).append(entry)
        pictures: list[Found] = []
        for image in document["images"]:
            hw = int(image["height"]), int(image["width"])
            mine = sorted(entries.get(image["id"], []), key=lambda entry: -float(entry.get("area") or 0))
            shapes = [
                (names[entry["category_id"]], partial(segmentation_mask, entry["segmentation"], hw)) for entry in mine
            ]
            photo = _photo(str(image["file_name"]), photos, path)
            pictures.append((photo.stem, photo, hw, shapes))
        return pictures
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise QanetError(
            f"{path} is no COCO annotation", expected="images, annotations, categories", got=error
        ) from error


def _cvat_pictures(tree: ElementTree.Element, path: Path, photos: dict[str, Path]) -> list[Found]:
    try:
        pictures: list[Found] = []
        for image in tree.iter("image"):
            hw = int(image.attrib["height"]), int(image.attrib["width"])
            drawn = sorted(image, key=lambda shape: int(shape.get("z_order", 0)))
            shapes = [(shape.attrib["label"], partial(_cvat_mask, shape, hw)) for shape in drawn if shape.tag in _CVAT]
            photo = _photo(image.attrib["name"], photos, path)
            pictures.append((photo.stem, photo, hw, shapes))
        return pictures
    except (KeyError, ValueError) as error:
        raise QanetError(f"{path} is no CVAT annotation", expected="CVAT for images 1.1", got=error) from error


_CVAT = ("polygon", "box", "mask")


def _cvat_mask(shape: ElementTree.Element, hw: tuple[int, int]) -> NDArray[np.uint8]:
    if shape.tag == "polygon":
        points = [float(v) for pair in shape.attrib["points"].split(";") for v in pair.split(",")]
        return fill_polygon(points, hw)
    if shape.tag == "box":
        x0, y0, x1, y1 = (float(shape.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
        return fill_polygon([x0, y0, x1, y0, x1, y1, x0, y1], hw)
    left, top, width, height = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
    runs = np.array([int(word) for word in shape.attrib["rle"].split(",")])
    inside = np.repeat(np.arange(len(runs)) % 2, runs)[: width * height].reshape(height, width)
    canvas = np.zeros(hw, np.uint8)
    canvas[top : top + height, left : left + width] = inside[: hw[0] - top, : hw[1] - left]
    return canvas


def _labelme_picture(path: Path, document: Mapping[str, Any], photos: dict[str, Path]) -> Found:
    try:
        hw = int(document["imageHeight"]), int(document["imageWidth"])
        drawn = [shape for shape in document["shapes"] if shape.get("shape_type", "polygon") in _LABELME]
        shapes = [(str(shape["label"]), partial(_labelme_mask, shape, hw)) for shape in drawn]
        name = re.split(r"[\\/]", str(document.get("imagePath") or ""))[-1]
        photo = photos.get(name.lower()) or next(
            (photos[key] for suffix in PHOTO_SUFFIXES if (key := f"{path.stem}{suffix}".lower()) in photos), None
        )
        photo = photo or _photo(name, photos, path)
        return photo.stem, photo, hw, shapes
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise QanetError(
            f"{path} is no Labelme annotation", expected="shapes, imageHeight, imageWidth", got=error
        ) from error


_LABELME = ("polygon", "rectangle", "circle", "mask")


def _labelme_mask(shape: Mapping[str, Any], hw: tuple[int, int]) -> NDArray[np.uint8]:
    import cv2

    kind, points = shape.get("shape_type", "polygon"), np.asarray(shape["points"], np.float64)
    if kind == "polygon":
        return fill_polygon(points.ravel().tolist(), hw)
    if kind == "circle":  # its centre, and a point on it
        angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        ring = points[0] + np.linalg.norm(points[1] - points[0]) * np.stack([np.cos(angle), np.sin(angle)], 1)
        return fill_polygon(ring.ravel().tolist(), hw)
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    if kind == "rectangle":
        return fill_polygon([x0, y0, x1, y0, x1, y1, x0, y1], hw)
    data = np.frombuffer(base64.b64decode(shape["mask"]), np.uint8)
    inside = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    canvas, left, top = np.zeros(hw, np.uint8), int(x0), int(y0)
    window = canvas[top : top + inside.shape[0], left : left + inside.shape[1]]
    window[...] = inside[: window.shape[0], : window.shape[1]] > 0
    return canvas


# Masks


def _mask_pairs(root: Path) -> list[tuple[str, Path, Path]]:
    """(name, photograph, mask) of folders side by side, or of one folder with photographs and masks."""
    folders = {p.name.lower(): p for p in root.iterdir() if p.is_dir()} if root.is_dir() else {}
    photo_folder = next((folders[name] for name in _PHOTO_FOLDERS if name in folders), None)
    mask_folder = next((folders[name] for name in _MASK_FOLDERS if name in folders), None)
    masks = {p.stem: p for p in sorted((mask_folder or root).iterdir()) if p.suffix.lower() in (".png", ".bmp", ".tif")}
    photos = [p for p in sorted((photo_folder or root).iterdir()) if p.suffix.lower() in PHOTO_SUFFIXES]
    pairs, without = [], []
    for photo in photos:
        names = [photo.stem, *(photo.stem + ending for ending in _MASK_ENDINGS)]
        mask = next((masks[name] for name in names if name in masks and masks[name] != photo), None)
        if mask is not None:
            pairs.append((photo.stem, photo, mask))
        elif photo.stem not in {m.removesuffix(e) for m in masks for e in _MASK_ENDINGS}:
            without.append(photo)
    if not pairs:
        got = f"{len(photos)} photographs and {len(masks)} masks" if photos or masks else "neither"
        raise QanetError(f"no annotations were recognised in {root}", expected=_FORMS, got=got)
    if photo_folder is not None and without:
        got = f"{len(without)} without, the first is {without[0].name}"
        raise QanetError(f"photographs of {root} have no mask", expected=f"{without[0].stem}.png", got=got)
    return pairs


def _of_masks(root: Path, pairs: list[tuple[str, Path, Path]]) -> Annotations:
    first = _read_mask(pairs[0][2])
    if first.ndim == 2:
        present = np.zeros(256, bool)
        for _, _, mask in pairs:
            present[np.unique(_ids(mask))] = True
        names = _names_file(root)
        highest = int(np.flatnonzero(present[:255]).max(initial=0))
        known = names if len(names) > highest else tuple(str(i) for i in range(highest + 1))
        draw = partial(_draw_ids, len(known))
        return Annotations(
            "masks of ids", known, [Picture(n, p, partial(draw, m)) for n, p, m in pairs], known is names
        )
    named = _colour_names(root)
    colours = {colour: name for name, colour in named.items()}
    codes: dict[int, None] = {}
    for _, _, mask in pairs:
        codes |= dict.fromkeys(np.unique(_codes(mask)).tolist())
        if len(codes) > _MOST_COLOURS:
            raise QanetError(
                f"{mask} is no mask", expected="few colours, one for each class", got="a photograph or JPEG"
            )
    names = tuple(colours.get(f"#{code:06x}", f"#{code:06x}") for code in codes)
    table = {code: position for position, code in enumerate(codes)}
    pictures = [Picture(n, p, partial(_draw_colours, table, m)) for n, p, m in pairs]
    return Annotations("masks of colours", names, pictures, bool(named))


def _read_mask(path: Path) -> NDArray[Any]:
    """Ids (H, W) of a grey or palette PNG, or colours (H, W, 3) BGR."""
    import cv2

    data = path.read_bytes()
    if path.suffix.lower() == ".png" and len(data) > 25 and data[25] in (0, 3):
        return _ids(path)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None:
        raise QanetError(f"broken mask {path}", expected="a whole picture", got=f"{len(data)} bytes")
    return image[..., :3] if image.ndim == 3 else image


def _ids(path: Path) -> NDArray[np.uint8]:
    if path.suffix.lower() == ".png":
        return decode_ids(path).astype(np.uint8, copy=False)
    ids = _read_mask(path)
    if ids.ndim != 2:
        raise QanetError(f"{path} has colours, the other masks have ids", expected="masks of one kind", got=ids.shape)
    return ids


def _codes(path: Path) -> NDArray[np.int32]:
    """(H, W) 0xrrggbb."""
    image = _read_mask(path)
    if image.ndim != 3:
        raise QanetError(f"{path} has ids, the other masks have colours", expected="masks of one kind", got=image.shape)
    blue, green, red = (image[..., channel].astype(np.int32) for channel in range(3))
    return red << 16 | green << 8 | blue


def _draw_ids(known: int, path: Path) -> Drawing:
    ids = _ids(path).astype(np.int32)
    return np.where(ids < known, ids, VOID)


def _draw_colours(table: Mapping[int, int], path: Path) -> Drawing:
    codes, inverse = np.unique(_codes(path), return_inverse=True)
    return np.array([table[code] for code in codes.tolist()], np.int32)[inverse].reshape(inverse.shape)


def _names_file(root: Path) -> tuple[str, ...]:
    """Names of ids: a line each of classes.txt, as tools write it ("null" for nothing)."""
    for name in ("classes.txt", "class_names.txt"):
        if (root / name).is_file():
            return tuple(line.strip() for line in (root / name).read_text().splitlines() if line.strip())
    return ()


def _colour_names(root: Path) -> dict[str, str]:
    """Name -> "#rrggbb" of a labelmap.txt of CVAT ("name:r,g,b:parts:actions")."""
    path = root / "labelmap.txt"
    found = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        if match := re.match(r"([^#:]+):(\d+),(\d+),(\d+)", line):
            found[match[1].strip()] = "#" + "".join(f"{int(match[k]):02x}" for k in (2, 3, 4))
    return found


# Files


def _photos_by_name(root: Path) -> dict[str, Path]:
    """Relative path and plain name, in small letters -> photograph."""
    found: dict[str, Path] = {}
    for path in _pictures(root):
        found[path.relative_to(root).as_posix().lower()] = path
        found.setdefault(path.name.lower(), path)
    return found


def _pictures(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in PHOTO_SUFFIXES and path.is_file():
            yield path


def _photo(name: str, photos: dict[str, Path], annotation: Path) -> Path:
    plain = re.split(r"[\\/]", name)[-1].lower()
    found = photos.get(name.lower()) or photos.get(plain)
    if found is None:
        raise QanetError(f"{annotation} names a photograph that is not there", expected=name, got="missing")
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def _xml(path: Path) -> ElementTree.Element | None:
    """The root of a CVAT file; None for any other. Entities are refused: they can unfold without bound."""
    try:
        data = path.read_bytes()
        if b"<!ENTITY" in data or b"<!DOCTYPE" in data:
            return None
        root = ElementTree.fromstring(data)
    except (OSError, ElementTree.ParseError):
        return None
    return root if root.tag == "annotations" and root.find("image") is not None else None
