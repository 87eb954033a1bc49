"""A network of one's own becomes a bundle: a torch module, or the ONNX file of any segmenter."""

import importlib.metadata
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qanet.bundle import VIEWS, Bundle, create, new_folder
from qanet.errors import QanetError
from qanet.files import sha256_bytes
from qanet.labels import LabelSet, label_set
from qanet.quality import PIXEL_SCORE_THRESHOLD, QAM_WEIGHTS
from qanet.runtime.answers.known import renew_answers
from qanet.runtime.answers.verdicts import TOLERANCES
from qanet.runtime.backends.onnxruntime import exact_outputs

if TYPE_CHECKING:
    from torch import nn

    from qanet.export.graphs.foreign import NetworkForm

_VERSIONS = ("torch", "onnx", "onnxscript", "numpy")
Report = Callable[[str], None]


def export_module(
    module: "nn.Module",
    output: str | Path,
    labels: LabelSet | str | Path,
    *,
    input_hw: tuple[int, int],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    value_range: float | None = None,
    colours: str = "rgb",
    layout: str = "NCHW",
    view: str = "person",
    report: Report = lambda line: None,
) -> Bundle:
    """Export a torch module that gives logits; see `qanet.export`.

    Raises:
        QanetError: a module without logits, classes that do not fit, no normalisation, a graph that departs from it.
    """
    from qanet.export.graphs.foreign import WrappedModule, form_of_module, known_normalisation, scaled
    from qanet.export.graphs.network import INPUTS, OUTPUTS, check_parity, has_free_batch, to_onnx

    chosen, folder = _checked(labels, view), new_folder(output)
    if any(side < 64 or side % 4 for side in input_hw):
        raise QanetError("bad input size", expected="multiples of 4 from 64 on", got=input_hw)
    if mean is None and std is None:
        mean, std = known_normalisation(module)
    form = form_of_module(module, input_hw, layout, colours, scaled(mean, std, value_range))
    for line in form.lines(chosen):
        report(line)
    wrapped = WrappedModule(module, form, chosen, _weights(form)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own remarks about its internals
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        graph = to_onnx(wrapped, OUTPUTS, input_hw)
    if not has_free_batch(graph):
        raise QanetError(
            f"{type(module).__name__} is exported for one number of pictures alone",
            expected="a forward pass in which no Python value depends on the batch",
            got="a batch of two",
        )
    parity = check_parity(wrapped, OUTPUTS, input_hw, graph, inputs=INPUTS)
    made = {"parity_with_torch": {k: float(f"{v:.3g}") for k, v in parity.items()}, "source": type(module).__name__}
    return _written(folder, graph, form, chosen, view, made)


def export_onnx(
    path: str | Path,
    output: str | Path,
    labels: LabelSet | str | Path,
    *,
    input_hw: tuple[int, int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    value_range: float | None = None,
    colours: str = "rgb",
    layout: str | None = None,
    logits: str | None = None,
    iou: str | None = None,
    stride: int | None = None,
    view: str = "person",
    report: Report = lambda line: None,
) -> Bundle:
    """Export the ONNX file of a segmenter; the options are those of `qanet export`.

    Args:
        report: takes a line for each thing that was recognised.
    Raises:
        QanetError: what cannot be seen in the file and was not given, or does not fit the label set.
    """
    from qanet.export.graphs.foreign import scaled
    from qanet.export.graphs.foreign_onnx import open_network, parsing_graph, takes_bytes

    path, chosen, folder = Path(path), _checked(labels, view), new_folder(output)
    normalisation = None if mean is None and std is None and takes_bytes(path) else scaled(mean, std, value_range)
    network = open_network(
        path, chosen, normalisation, input_hw=input_hw, layout=layout, colours=colours, logits=logits, iou=iou
    )
    for line in network.lines(chosen):
        report(line)
    form = network.form
    if stride is not None and form.input_hw[0] != stride * form.logits_hw[0]:
        got = f"{form.input_hw[0] / form.logits_hw[0]:g}"
        raise QanetError(f"{network.logits} has another stride", expected=stride, got=got)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        graph = parsing_graph(network, chosen, _weights(form))
    made = {"source": path.name, "source_sha256": sha256_bytes(path.read_bytes()), "logits": network.logits}
    return _written(folder, graph, form, chosen, view, made)


def _checked(labels: LabelSet | str | Path, view: str) -> LabelSet:
    if view not in VIEWS:
        raise QanetError("unknown view", expected=f"one of {', '.join(VIEWS)}", got=view)
    return labels if isinstance(labels, LabelSet) else label_set(labels)


def _weights(form: "NetworkForm") -> tuple[float, float, float]:
    """QAM exponents; a network that predicts no IoU leaves it out."""
    box, iou, pixel = QAM_WEIGHTS
    return (box, iou if form.has_iou else 0.0, pixel)


def _written(
    folder: Path, graph: bytes, form: "NetworkForm", labels: LabelSet, view: str, made: dict[str, Any]
) -> Bundle:
    versions = {name: importlib.metadata.version(name) for name in _VERSIONS}
    folder.mkdir(parents=True, exist_ok=True)
    bundle = create(
        folder,
        labels=labels.name,
        label_set=labels.to_document(),
        view=view,
        input_hw=list(form.input_hw),
        qam_weights=list(_weights(form)),
        pixel_score_threshold=PIXEL_SCORE_THRESHOLD,
        graphs={"fp32": "model.onnx"},
        made={**made, "network": form.to_json(), "versions": versions},
    )
    bundle.add_file("model.onnx", graph)
    renew_answers(bundle, {"fp32": graph}, exact_outputs, TOLERANCES)
    bundle.save()
    return bundle
