"""`qanet calibrate-quality`: fit the map from scores to expected IoUs, and keep it in the bundle.

Each annotated person is parsed from the true box as the photograph is, and in HARD_VIEWS views that cameras and
cropping spoil: cut at a border, dark, blurred, small, compressed. The plain photographs alone would say nothing about
the scores that real people get. The map must be fitted on photographs that the network was not trained on, and judged
on others: the errors that are reported are cross-fitted, half of the photographs against the other half.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qanet.bundle import PRECISIONS, Bundle, open_bundle, writable_copy
from qanet.commandline import comma_list, command_parser, emit, table
from qanet.datasets import DATA_FORMATS, DataSet, Sample, default_split, open_dataset
from qanet.errors import QanetError
from qanet.labels import IGNORE
from qanet.metrics import ParsingEvaluator, Truth
from qanet.metrics.measures import calibration_error, rank_correlation, reliability
from qanet.quality.qam import fuse_quality
from qanet.quality.quality_map import QualityMap, fit_curve
from qanet.runtime.backends.base import graph_name
from qanet.runtime.detectors.base import Detections
from qanet.runtime.evaluate import predictions_of
from qanet.runtime.parser import Parser, load
from qanet.train.data.augment import cut, spoil

HARD_VIEWS = 3
_SEED = 7
Rows = NDArray[np.float64]  # (N, 5): box, IoU and pixel score, Q, true IoU


@dataclass(frozen=True)
class FittedMap:
    """The map of one graph, and how it and Q are off on photographs that the map was not fitted on.

    Attributes:
        before, after: name -> value of Q and of the expected IoU: "ece" (people in the plain photographs), "ece_all"
            (in the spoilt ones too), "ece_parts", and "rank_correlation" (people in the plain photographs).
        tables: the data of the reliability diagrams: "Q" and "expected" to (10, 3), see `reliability`.
    """

    graph: str
    map: QualityMap
    people: int
    before: dict[str, float]
    after: dict[str, float]
    tables: dict[str, NDArray[np.float64]]


def score_photographs(parser: Parser, data: DataSet, progress: Callable[[], None]) -> list[list[tuple[Rows, Rows]]]:
    """Per annotated person and view (the photograph itself first), the rows of the person and of the parts."""
    scored = []
    for index in range(len(data)):
        rng = np.random.default_rng((_SEED, index))
        sample = data[index]
        views = [sample, *(_hard_view(sample, data, rng) for _ in range(HARD_VIEWS))]
        scored.append([_score(parser, view) for view in views])
        progress()
    return scored


def _hard_view(sample: Sample, data: DataSet, rng: np.random.Generator) -> Sample:
    view = cut(sample, data.label_set, rng) if rng.random() < 0.7 else sample
    return Sample(view.name, spoil(view.image, rng) if rng.random() < 0.7 else view.image, view.labels, view.box)


def _score(parser: Parser, view: Sample) -> tuple[Rows, Rows]:
    classes = parser.bundle.labels.num_classes
    known = np.where(view.labels < classes, view.labels, IGNORE).astype(np.uint8)
    truth = Truth(known, (known != 0).astype(np.uint8))  # void pixels are the person's, and do not count
    people = parser.every_box(view.image, Detections(view.box[None], np.ones(1, np.float32)))
    evaluator = ParsingEvaluator(classes, weights=parser.bundle.qam_weights)
    evaluator.add(truth, predictions_of(people))
    return evaluator.score_rows()


def fit_map(scored: list[list[tuple[Rows, Rows]]], weights: tuple[float, float, float]) -> QualityMap:
    """The map of these people, all views alike."""
    people, parts = (np.concatenate([view[kind] for views in scored for view in views]) for kind in (0, 1))
    curves = (fit_curve(_fused(rows, weights), rows[:, -1]) for rows in (people, parts))
    return QualityMap(weights, *curves)


def _fused(rows: Rows, weights: tuple[float, float, float]) -> NDArray[np.float32]:
    return fuse_quality(rows[:, 0], rows[:, 1], rows[:, 2], weights)


def measure(graph: str, scored: list[list[tuple[Rows, Rows]]], weights: tuple[float, float, float]) -> FittedMap:
    """Fit on every person; judge by halves, each by the map of the other."""
    halves = [scored[0::2], scored[1::2]]
    plain, every, parts = [], [], []
    for mine, other in zip(halves, halves[::-1]):
        chart = fit_map(other, weights)
        for views in mine:
            for number, (people, its_parts) in enumerate(views):
                rows = np.column_stack([people[:, 3], chart.people(_fused(people, weights)), people[:, -1]])
                every.append(rows)
                if number == 0:
                    plain.append(rows)
                    parts.append(
                        np.column_stack([its_parts[:, 3], chart.parts(_fused(its_parts, weights)), its_parts[:, -1]])
                    )
    tables = {"ece": np.concatenate(plain), "ece_all": np.concatenate(every), "ece_parts": np.concatenate(parts)}
    before, after = (
        {name: calibration_error(reliability(rows[:, column], rows[:, -1])) for name, rows in tables.items()}
        | {"rank_correlation": rank_correlation(tables["ece"][:, column], tables["ece"][:, -1])}
        for column in (0, 1)
    )
    drawn = {
        name: reliability(tables["ece_all"][:, column], tables["ece_all"][:, -1])
        for column, name in enumerate(("Q", "expected"))
    }
    return FittedMap(graph, fit_map(scored, weights), len(scored), before, after, drawn)


def calibrate_quality(
    model: Bundle | str | Path,
    data: str | Path,
    *,
    format: str = "ccp",
    split: str | None = None,
    precisions: Sequence[str] | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[FittedMap]:
    """Fit the quality map of each precision on annotated photographs that the model was not trained on.

    Args:
        model: a bundle, its path, or the name of a shipped one; it stays as it is, see `save_maps`.
        data: folder of the data set.
        format, split: as for `qanet val`.
        precisions: None: those that the bundle has graphs of.
        device, threads: of the engines, as `qanet.load` takes them.
        progress: called after each person with the number of people done, and of all.
    Raises:
        QanetError: a model or data set that cannot be had, or fewer than 20 people.
    """
    bundle = model if isinstance(model, Bundle) else open_bundle(model)
    images = open_dataset(data, format, bundle.labels, split or default_split(data, format))
    if len(images) < 20:
        raise QanetError("too few people to fit a quality map", expected="20 or more", got=len(images))
    weights = (0.0, *bundle.qam_weights[1:])
    chosen = precisions or [name for name in PRECISIONS if name in bundle.manifest["graphs"]]
    fitted, done, total = [], 0, len(images) * len(chosen)

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    for precision in chosen:
        with load(bundle.path, device, precision, threads=threads) as parser:
            scored = score_photographs(parser, images, step)
            fitted.append(measure(graph_name(parser.engine), scored, weights))
    return fitted


def save_maps(bundle: Bundle, fitted: Sequence[FittedMap], data: str) -> Bundle:
    """Write the maps into the bundle, or into a copy ./NAME.qanet of a shipped one; returns that bundle.

    Args:
        data: what they were fitted on, in words.
    """
    target = writable_copy(bundle)
    maps = dict(target.manifest.get("quality_map", {}))
    for one in fitted:
        errors = {
            f"{key}_{when}": round(v, 4)
            for when, of in (("q", one.before), ("map", one.after))
            for key, v in of.items()
        }
        maps[one.graph] = one.map.to_json() | {"fitted_on": data, "fitted_people": one.people, **errors}
    target.manifest["quality_map"] = maps
    target.save()
    return target


def main(argv: Sequence[str]) -> int:
    """Entry point."""
    from tqdm import tqdm

    parser = command_parser(
        "calibrate-quality",
        "Fit the map from scores to the expected mean IoU of a person, on photographs that were not trained on.",
    )
    parser.add_argument("model", metavar="BUNDLE", help="a bundle's name or folder; a shipped one is copied first")
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument(
        "--format", default="ccp", choices=DATA_FORMATS, metavar="NAME", help=f"one of {', '.join(DATA_FORMATS)} (ccp)"
    )
    parser.add_argument("--split", metavar="NAME", help="default: val; a ccp folder without val.txt is taken whole")
    parser.add_argument(
        "--precision",
        type=comma_list(PRECISIONS),
        metavar="A,B",
        help=f"of {', '.join(PRECISIONS)} (default: those that the bundle has graphs of)",
    )
    parser.add_argument("--device", default="auto", help="as for qanet val (auto)")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of the engine")
    args = parser.parse_args(argv)
    bundle = open_bundle(args.model)
    with tqdm(unit="person", desc="quality", disable=args.json or None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        fitted = calibrate_quality(
            bundle,
            args.data,
            format=args.format,
            split=args.split,
            precisions=args.precision,
            device=args.device,
            threads=args.threads,
            progress=progress,
        )
    split = args.split or default_split(args.data, args.format) or "all"
    told = f"{Path(args.data).resolve().name} {split}, each plain and {HARD_VIEWS} times spoilt"
    saved = save_maps(bundle, fitted, told)
    emit(args.json, _document(saved, fitted), _text(saved, fitted))
    return 0


def _document(bundle: Bundle, fitted: Sequence[FittedMap]) -> dict[str, Any]:
    return {
        "bundle": str(bundle.path),
        "quality_map": {one.graph: bundle.manifest["quality_map"][one.graph] for one in fitted},
    }


def _text(bundle: Bundle, fitted: Sequence[FittedMap]) -> str:
    names = {
        "ece": "calibration error, plain photographs",
        "ece_all": "spoilt ones too",
        "ece_parts": "of parts",
        "rank_correlation": "rank correlation with the true IoU",
    }
    rows = [
        (one.graph, what, *(f"{values[key]:.3f}" for key in names))
        for one in fitted
        for what, values in (("Q", one.before), ("expected IoU", one.after))
    ]
    words = table(rows, ("graph", "score", *names.values()))
    return f"{words}\n\nwrote {bundle.path}; errors on the half of the photographs that the map was not fitted on"
