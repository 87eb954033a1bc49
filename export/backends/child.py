"""Builds an engine in a child process: its memory returns to the system, and its death becomes an error.

`python -m qanet.export.backends.child REQUEST.json` is that process; `build_apart` starts it. On small Jetsons, where
CPU and GPU share a few GiB, builds in one process would run out of memory and be killed.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qanet.errors import QanetError
from qanet.export.backends.census import BuiltEngine, Census, Report
from qanet.export.backends.tensorrt_options import Options
from qanet.scratch import scratch_folder

# One heap for all threads, and only the kernels that run: both leave memory to the builder.
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "1", "CUDA_MODULE_LOADING": "LAZY"}


def build_apart(
    graph: bytes,
    *,
    runtime: str,
    targets: Sequence[str] | None,
    options: Options,
    outputs: Sequence[str] | None,
    name: str = "model.onnx",
    report: Report | None = None,
) -> BuiltEngine:
    """As `tensorrt.build`, in a child process.

    Raises:
        QanetError: as `tensorrt.build`; also when the system kills the build, as it does when memory runs out.
    """
    with scratch_folder() as folder:
        model, request, answer, plan = (folder / file for file in ("model.onnx", "request.json", "answer.json", "plan"))
        model.write_bytes(graph)
        call = {
            "runtime": runtime,
            "name": name,
            "outputs": outputs and list(outputs),
            "targets": targets and list(targets),
            "options": dataclasses.asdict(options),
        }
        files = {"graph": str(model), "answer": str(answer), "plan": str(plan)}
        request.write_text(json.dumps({"call": call, **files}, default=str))
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(request)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | _ENVIRONMENT,
        )
        try:
            printed, errors = process.communicate()
        finally:
            process.kill()  # after Ctrl-C; a process that ended is left alone
        for line in printed.splitlines():
            (report or (lambda text: None))(line)
        if not answer.is_file():
            raise _died(process.returncode, errors, options)
        document = json.loads(answer.read_text())
        if "error" in document:
            raise QanetError(**document["error"])
        return _built(document, plan.read_bytes())


def _died(code: int, errors: str, options: Options) -> QanetError:
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if code == -signal.SIGKILL:
        return QanetError(
            f"the build for batches {options.batches()} was killed",
            got=f"{name}, as when memory runs out",
            next_command="close what else runs, add swap, lower --workspace or --max-batch",
        )
    last = errors.strip().splitlines()[-1:] or ["nothing on stderr"]
    return QanetError(f"the build for batches {options.batches()} died", got=f"{name}: {last[0]}")


def _built(document: dict[str, Any], data: bytes) -> BuiltEngine:
    fields = dict(document["built"])
    census = Census.from_json(fields.pop("census"))
    for name in ("targets", "messages", "inputs", "outputs"):
        fields[name] = tuple(fields[name])
    fields["batches"] = tuple(tuple(batch) for batch in fields["batches"])
    return BuiltEngine(data=data, census=census, **fields)


def main(argv: Sequence[str]) -> int:
    """Entry point of the child."""
    from qanet.export.backends import tensorrt

    request = json.loads(Path(argv[0]).read_text())
    call, answer = request["call"], Path(request["answer"])
    options = dict(call.pop("options"))
    options["profile"] = options["profile"] and tuple(options["profile"])
    graph = Path(request["graph"]).read_bytes()
    try:
        built = tensorrt.build(graph, options=Options(**options), report=lambda line: print(line, flush=True), **call)
    except QanetError as error:
        fields = {name: getattr(error, name) for name in ("fact", "expected", "got", "next_command")}
        answer.write_text(json.dumps({"error": fields}, default=str))
        return 0
    Path(request["plan"]).write_bytes(built.data)
    facts = {f.name: getattr(built, f.name) for f in dataclasses.fields(built) if f.name not in ("data", "census")}
    answer.write_text(json.dumps({"built": {**facts, "census": built.census.to_json()}}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
