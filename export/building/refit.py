"""`qanet build --refit`: engines that were built without weights get them from the graph they were built from."""

from qanet.bundle import Bundle
from qanet.commandline import emit
from qanet.errors import QanetError
from qanet.export.engines.refit import refit
from qanet.export.engines.tensorrt_library import check_targets, load_library
from qanet.export.graphs.typed_set import graph_file


def refit_bundle(bundle: Bundle, as_json: bool) -> int:
    """Refit every stripped engine of the bundle that is for this GPU and this TensorRT, and save the bundle.

    Raises:
        QanetError: there is none, or the weights do not fit.
    """
    stripped = [entry for entry in bundle.engines if entry.get("stripped")]
    if not stripped:
        raise QanetError(
            f"{bundle.path} has no engine without weights",
            expected="one of qanet build --strip-weights",
            got=f"{len(bundle.engines)} engines with weights",
        )
    trt = load_library("tensorrt")
    (here,) = check_targets(trt, "tensorrt", None)
    fitting = [e for e in stripped if here in e["targets"] and e["version"] == trt.__version__]
    if not fitting:
        got = ", ".join(f"{'+'.join(e['targets'])} of {e['version']}" for e in stripped)
        raise QanetError(
            "no engine without weights is for this machine",
            expected=f"{here} of {trt.__version__}",
            got=got,
            next_command=f"qanet build {bundle.path} --runtime tensorrt",
        )
    for entry in fitting:
        plan = bundle.read(entry["file"])
        with graph_file(bundle, entry["precision"], "tensorrt") as path:
            whole = refit(plan, path, tuple(entry["outputs"]))
        bundle.add_engine(entry["file"], whole, {name: value for name, value in entry.items() if name != "stripped"})
    bundle.save()
    files = [entry["file"] for entry in fitting]
    emit(as_json, {"bundle": str(bundle.path), "refitted": files}, f"refitted {', '.join(files)}")
    return 0
