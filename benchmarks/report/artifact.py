"""What was measured and where: the bundle, its engines and files, the machine."""

from typing import Any

from qanet.benchmarks.report.charts import share_bar
from qanet.benchmarks.report.markup import Safe, facts, join, paragraph, section, table, tag
from qanet.benchmarks.report.values import (
    NARROW_TO_WIDE,
    NOT_MEASURED,
    colour_of,
    label_of,
    mebibytes,
    milliseconds,
    plain,
    share,
    shares_in_words,
    times,
)


def header(document: dict[str, Any]) -> Safe:
    """Title, what it is about in two lines, key figures, warnings."""
    bundle, source = document.get("bundle", {}), document.get("input", {})
    cpu = document.get("machine", {}).get("cpu") or {}
    size = bundle.get("input_hw")
    network = [
        f"label set {plain(bundle.get('labels'))}",
        f"{len(bundle['classes'])} classes" if bundle.get("classes") else None,
        f"input {size[0]}\u00d7{size[1]} (H\u00d7W)" if size else None,
    ]
    place = [plain(g.get("name")) for g in document.get("machine", {}).get("gpus") or []] or [plain(cpu.get("model"))]
    where = [
        f"on {', '.join(place)}",
        f"{cpu['usable_cpus']} CPUs" if cpu.get("usable_cpus") else None,
        f"input {plain(source.get('name'))}",
        plain(document.get("created")).replace("T", " ").replace("+00:00", " UTC"),
    ]
    return tag(
        "header",
        tag("h1", f"{plain(bundle.get('name'))}: latency and accuracy"),
        paragraph(", ".join(part for part in network if part), class_="quiet"),
        paragraph(", ".join(part for part in where if part), class_="quiet"),
        _cards(document),
        _warnings(document.get("warnings") or []),
        class_="top",
    )


def _cards(document: dict[str, Any]) -> Safe | None:
    cards = []
    for entry in document.get("comparison", []):
        if entry.get("tail") == "pytorch":
            continue  # a baseline is no engine
        engine, miou = entry.get("engine_ms") or {}, (entry.get("accuracy") or {}).get("miou")
        if entry.get("status") == "refused":
            figure = "not timed"
        else:
            figure = f"{milliseconds(engine['p50'])} ms" if engine.get("p50") is not None else NOT_MEASURED
        speed = entry.get("engine_speed_up")
        gain = f", {times(speed)} over FP32" if speed is not None and entry["precision"] != "fp32" else ""
        words = [f"{label_of(entry)} engine, one crop, p50{gain}", f"mIoU {share(miou)}"]
        style = f"border-top-color: {colour_of(entry['precision'])}"
        cards.append(tag("li", tag("strong", figure), *(tag("span", w) for w in words), style=style))
    return tag("ul", *cards, class_="cards") if cards else None


def _warnings(lines: list[str]) -> Safe | None:
    if not lines:
        return None
    return tag(
        "div", paragraph("Mind when reading"), tag("ul", *(tag("li", line) for line in lines)), class_="warnings"
    )


def engines(document: dict[str, Any]) -> Safe:
    """The manifest's engines, with the census of what precision their layers really have."""
    bundles = document.get("bundles") or [document.get("bundle", {})]
    entries = [
        {**entry, "precision": entry.get("precision"), "model": bundle.get("name") if len(bundles) > 1 else None}
        for bundle in bundles
        for entry in bundle.get("engines") or []
    ]
    title = "Engines of the bundle"
    if not entries:
        return section("engines", title, paragraph("The bundle holds no built engine; graphs are compiled on loading."))
    rows, notes = [], []
    for entry in sorted(entries, key=_wide_first):
        census = entry.get("census") or {}
        targets = ", ".join(entry.get("targets") or [])
        rows.append(
            [
                f"{_model(entry)}{entry.get('precision')}, {entry.get('runtime')} {entry.get('version', '')}",
                targets,
                _shares(census.get("multiply_add_shares"), "multiply-adds"),
                _shares(census.get("layer_shares"), "layers"),
                plain(census.get("reformats")),
                mebibytes(entry.get("bytes")),
            ]
        )
        if census.get("note"):
            notes.append(f"{entry.get('precision')}: {census['note']}")
    columns = ("engine", "target", "multiply-adds in", "layers in", "reformats", "MiB")
    caption = "Precision census: what the layers really run in. Reformats only move or convert data."
    return section(
        "engines", title, table(caption, columns, rows, 4), *(paragraph(note, class_="note") for note in notes)
    )


def _model(entry: dict[str, Any]) -> str:
    return f"{entry['model']} " if entry.get("model") else ""


def _wide_first(entry: dict[str, Any]) -> tuple[str, int]:
    precision = entry.get("precision")
    return str(entry.get("runtime")), -NARROW_TO_WIDE.index(precision) if precision in NARROW_TO_WIDE else 1


def _shares(shares: dict[str, float] | None, what: str) -> Safe | str:
    if not shares:
        return NOT_MEASURED
    words = shares_in_words(shares)
    ordered = {precision: shares[precision] for precision in NARROW_TO_WIDE if precision in shares}
    return join(share_bar(f"{what}: {words}", ordered), tag("span", words, class_="shares"))


def files(document: dict[str, Any]) -> Safe:
    """The bundles' files with the start of their hashes, and how each was made."""
    bundles = document.get("bundles") or [document.get("bundle", {})]
    title = "Files of the bundle" if len(bundles) == 1 else "Files of the bundles"
    return section("files", title, *(part for bundle in bundles for part in _files_of(bundle)))


def _files_of(bundle: dict[str, Any]) -> list[Safe]:
    graphs = {file: precision for precision, file in (bundle.get("graphs") or {}).items()}
    rows = [
        [
            name,
            f"{graphs[name]} graph" if name in graphs else "",
            tag("code", str(entry.get("sha256", ""))[:16]),
            mebibytes(entry.get("bytes")),
        ]
        for name, entry in (bundle.get("files") or {}).items()
    ]
    made = bundle.get("made") or {}
    settings = [("QAM exponents (box, IoU, pixel)", plain(bundle.get("qam_weights")))]
    settings += [("pixel score threshold", plain(bundle.get("pixel_score_threshold")))]
    listing = table("First 16 digits of each sha256", ("file", "role", "sha256", "MiB"), rows, 3)
    heading = tag("h3", plain(bundle.get("name")))
    return [heading, listing, facts([*settings, *((key, plain(value)) for key, value in made.items())])]


def machine(document: dict[str, Any]) -> Safe:
    """Processor, memory, load, GPUs, versions."""
    about = document.get("machine", {})
    cpu, memory, after = (about.get(key) or {} for key in ("cpu", "memory", "after"))
    clocks = [f"{cpu[key]:.0f} MHz {name}" for key, name in _CLOCKS.items() if cpu.get(key)]
    rows: list[tuple[object, object]] = [
        ("CPU", plain(cpu.get("model"))),
        ("CPUs usable / logical / cores", " / ".join(plain(cpu.get(k)) for k in _COUNTS)),
        ("instruction sets", plain(cpu.get("isa"))),
        ("clock", ", ".join(clocks) or NOT_MEASURED),
        ("governor", plain(cpu.get("governor"))),
        ("memory", f"{memory['total_gib']:.1f} GiB" if memory.get("total_gib") else NOT_MEASURED),
        ("power mode, profile", f"{plain(about.get('power_mode'))}, {plain(cpu.get('platform_profile'))}"),
        ("turbo", plain(cpu.get("turbo"))),
        ("temperatures before, \u00b0C", plain(about.get("temperatures_c"))),
        ("temperatures after, \u00b0C", plain(after.get("temperatures_c"))),
        ("throttling events meanwhile", plain(after.get("throttled"))),
        ("load average before", plain(about.get("load_average"))),
        ("system", plain(about.get("system"))),
        ("commit", plain(about.get("git"))),
    ]
    gpus = about.get("gpus") or []
    rows += [(f"GPU {index}", plain(gpu)) for index, gpu in enumerate(gpus)] or [("GPU", "none found")]
    rows += [(name, version) for name, version in (about.get("versions") or {}).items()]
    return section("machine", "Machine", facts(rows))


_CLOCKS = {"clock_mhz": "now", "max_clock_mhz": "at most"}
_COUNTS = ("usable_cpus", "logical_cpus", "physical_cores")
