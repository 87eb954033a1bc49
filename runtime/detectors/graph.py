"""An ONNX detector as a graph: its inputs and outputs, a request of OpenVINO on the CPU, and images as its input."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qanet.errors import QanetError
from qanet.runtime.backends.openvino import DEVICE, compile_config, import_openvino, openvino_core

if TYPE_CHECKING:
    import openvino

_DEFAULT_SIDE_PX = 640  # of an input whose height or width is free: what all exporters here default to


@dataclass(frozen=True)
class Port:
    """An input or an output: its name, its shape with None where a size is free, and whether it holds integers."""

    name: str
    shape: tuple[int | None, ...]
    integer: bool

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name} {'int' if self.integer else 'float'} ({sizes})"


@dataclass(frozen=True)
class Graph:
    """Inputs and outputs of a detector. Free batches are 1, free heights and widths of an image are 640."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    classes: dict[int, str] | None  # names that the exporter left in the file

    @property
    def image_hw(self) -> tuple[int, int] | None:
        """(H, W) of the one input that is an image of 3 channels, planar; None where there is none."""
        images = [p.shape for p in self.inputs if not p.integer and len(p.shape) in (3, 4) and p.shape[-3] == 3]
        if len(images) != 1 or images[0][-1] is None or images[0][-2] is None:
            return None
        return images[0][-2], images[0][-1]

    def person(self, default: int) -> int:
        """The class that is a person, by the names in the file, else `default`."""
        named = [index for index, name in (self.classes or {}).items() if name.lower() == "person"]
        return named[0] if named else default


def read_graph(path: Path) -> tuple["openvino.Model", Graph]:
    """A detector's model and its ports.

    Raises:
        QanetError: no file, or not an ONNX model.
    """
    if not path.is_file():
        raise QanetError(
            f"no detector at {path}",
            expected="an ONNX detector, e.g. yolox_nano.onnx",
            next_command="leave --detector out to use the shipped detector, person-lite0",
        )
    # Core.read_model would try other formats too, and print.
    frontend = import_openvino().frontend.FrontEndManager().load_by_framework("onnx")
    try:
        model = frontend.convert(frontend.load(str(path)))
        _settle(model)
    except Exception as error:  # OpenVINO's exceptions have no common base
        got = str(error).strip().splitlines()[-1]
        raise QanetError(f"{path} is not a readable ONNX model", got=got) from error
    return model, Graph(_ports(model.inputs), _ports(model.outputs), _classes(model))


def compile_graph(model: "openvino.Model", threads: int | None) -> "openvino.InferRequest":
    """A request on the CPU."""
    return openvino_core().compile_model(model, DEVICE, compile_config(None, threads)).create_infer_request()


def _settle(model: "openvino.Model") -> None:
    """Give free sizes of the inputs a value: one image at a time, of the exporters' default size."""
    shapes = {}
    for port in model.inputs:
        shape = port.get_partial_shape()
        if shape.rank.is_dynamic or shape.is_static:
            continue
        sizes = [None if size.is_dynamic else size.get_length() for size in shape]
        free = [_DEFAULT_SIDE_PX if len(sizes) >= 3 and k >= len(sizes) - 2 else 1 for k in range(len(sizes))]
        shapes[port.get_any_name()] = [f if size is None else size for size, f in zip(sizes, free)]
    if shapes:
        model.reshape(shapes)


def _ports(ports: Any) -> tuple[Port, ...]:
    found = []
    for port in ports:
        shape = port.get_partial_shape()
        sizes = () if shape.rank.is_dynamic else tuple(None if s.is_dynamic else s.get_length() for s in shape)
        found.append(Port(port.get_any_name(), sizes, port.get_element_type().is_integral()))
    return tuple(found)


def _classes(model: "openvino.Model") -> dict[int, str] | None:
    """The `names` that Ultralytics writes into the file's metadata: a dictionary as Python prints it."""
    if not model.has_rt_info(["framework", "names"]):
        return None
    try:
        names = ast.literal_eval(str(model.get_rt_info(["framework", "names"]).value))
        return {int(index): str(name) for index, name in names.items()}
    except (AttributeError, SyntaxError, TypeError, ValueError):
        return None


@dataclass(frozen=True)
class Letterbox:
    """How an image lies in the network's input: network = image * ratio + offset."""

    ratio: float
    offset: tuple[float, float]  # x, y in network pixels

    def to_image(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (N, 4) xyxy of network pixels in image pixels."""
        moved = (boxes - np.array([*self.offset, *self.offset], np.float32)) / np.float32(self.ratio)
        return moved.astype(np.float32)


def letterbox(
    image: NDArray[np.uint8], input_hw: tuple[int, int], centred: bool, rgb01: bool
) -> tuple[NDArray[np.float32], Letterbox]:
    """An image in its own aspect on a canvas of grey 114, as (1, 3, H, W) float32.

    Args:
        centred: in the middle (Ultralytics) or at the top left (YOLOX).
        rgb01: RGB in 0..1; otherwise BGR in 0..255.
    """
    import cv2

    height, width = input_hw
    ratio = min(height / image.shape[0], width / image.shape[1])
    columns, rows = max(1, int(image.shape[1] * ratio + 1e-6)), max(1, int(image.shape[0] * ratio + 1e-6))
    left, top = ((width - columns) // 2, (height - rows) // 2) if centred else (0, 0)
    canvas = np.full((height, width, 3), 114, np.uint8)
    canvas[top : top + rows, left : left + columns] = cv2.resize(image, (columns, rows))
    return planar(canvas, rgb01), Letterbox(ratio, (left, top))


def planar(image: NDArray[np.uint8], rgb01: bool) -> NDArray[np.float32]:
    """(H, W, 3) uint8 BGR as (1, 3, H, W) float32, RGB in 0..1 or BGR in 0..255."""
    channels = (image[:, :, ::-1] if rgb01 else image).transpose(2, 0, 1)[None]
    blob = np.ascontiguousarray(channels, np.float32)
    return np.multiply(blob, np.float32(1 / 255), out=blob) if rgb01 else blob
