"""Every TensorRT name in the code exists in 10.3, 10.16, 11.4 and TensorRT-RTX 1.7, or where it is used.

The names are those of the releases' own bindings: tests/golden/tensorrt_api/extract_names.py takes them from the
wheels. QANET_DOWNLOAD=1 runs it again and compares.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
API = REPOSITORY / "tests" / "golden" / "tensorrt_api"
DOCUMENT = json.loads((API / "names.json").read_text())
RELEASES = tuple(DOCUMENT["versions"])
NAMES = {name: tuple(having.split()) or RELEASES for name, having in DOCUMENT["names"].items()}
RTX, TENSORRT = ("rtx-1.7",), tuple(release for release in RELEASES if not release.startswith("rtx"))

SOURCES = [
    path
    for folder in ("export/backends", "runtime/engines", "runtime/backends", "benchmarks/profile")
    for path in sorted((REPOSITORY / folder).rglob("tensorrt*.py" if "profile" in folder else "*.py"))
    if any(word in path.read_text() for word in ("trt", "library.", "deserialize_cuda_engine", "tensorrt_session"))
]
MODULE_NAMES = {"trt", "self._trt", "library"}
# What a variable, or an attribute of self, is called by the code -> its class in the bindings.
VARIABLES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
    "engine": "ICudaEngine",
    "loader": "Runtime",
    "inspector": "EngineInspector",
    "refitter": "Refitter",
    "parser_refitter": "OnnxParserRefitter",
    "serialization": "ISerializationConfig",
    "self._engine": "ICudaEngine",
    "self._runtime": "Runtime",
    "profile.context": "IExecutionContext",
    "context": "IExecutionContext",
}
# Names that not every release has, and the releases whose branch of the code uses them.
ONLY_IN = {
    "ComputeCapability": RTX,
    "IBuilderConfig.num_compute_capabilities": RTX,
    "IBuilderConfig.set_compute_capability": RTX,
}
# Names asked for with getattr and a default, or by a string: at least one release has them.
ASKED = {
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "OnnxParserFlag.ADJUST_FOR_DLA",
    "IExecutionContext.is_stream_capturable",
    "Runtime.engine_host_code_allowed",
}


def uses(path):
    """(line, name) of every attribute of the library's module and of its objects."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Attribute):
            continue
        owner = ast.unparse(node.value)
        if node.attr.startswith("_") or "__" in owner:
            continue
        # In the runtime a bare `engine` or `profile` is a class of our own.
        if owner in VARIABLES and ("runtime" not in path.parts or "." in owner):
            yield node.lineno, f"{VARIABLES[owner]}.{node.attr}"
        elif owner in MODULE_NAMES:
            yield node.lineno, node.attr
        elif isinstance(node.value, ast.Attribute) and ast.unparse(node.value.value) in MODULE_NAMES:
            yield node.lineno, f"{node.value.attr}.{node.attr}"


FOUND = [(path, line, name) for path in SOURCES for line, name in uses(path)]


def is_there(name):
    """Whether every release that runs the line has the name."""
    return set(ONLY_IN.get(name, RELEASES)) <= set(NAMES.get(name, ()))


def test_every_name_exists_where_it_is_used():
    names = {name for _, _, name in FOUND}
    assert {"BuilderFlag.TF32", "IBuilderConfig.add_optimization_profile", "ICudaEngine.num_io_tensors"} <= names
    assert {"OnnxParserRefitter.refit_from_bytes", "IExecutionContext.execute_async_v3"} <= names and len(names) > 60
    missing = [
        f"{path.relative_to(REPOSITORY)}:{line} {name} is in {', '.join(NAMES.get(name, ())) or 'no release'}"
        for path, line, name in FOUND
        if not is_there(name) and name not in ASKED
    ]
    assert missing == []


def test_a_name_that_a_release_lacks_would_be_found():
    assert NAMES["BuilderFlag.FP16"] == ("10.3", "10.16") and not is_there("BuilderFlag.FP16")
    assert not is_there("IBuilderConfig.int8_calibrator") and not is_there("Builder.platform_has_fast_fp16")
    assert not is_there("NoSuchThing") and is_there("ComputeCapability")


def test_what_is_asked_for_by_name_exists_somewhere():
    assert [name for name in ASKED if not NAMES.get(name)] == []
    strings = {
        node.args[1].value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("getattr", "hasattr")
        and len(node.args) > 1
        and isinstance(node.args[1], ast.Constant)
        and isinstance(node.args[0], (ast.Name, ast.Attribute))
        and ast.unparse(node.args[0]).split(".")[0] in ("trt", "library", "profile")
    }
    assert strings <= {name.rpartition(".")[2] for name in ASKED}
    assert set(ONLY_IN) <= {name for _, _, name in FOUND}, "a name that is no longer used"


def test_every_hardware_level_and_target_is_the_bindings_own():
    from rtx_header import TARGETS

    from qanet.export.backends.tensorrt_options import HARDWARE_LEVELS

    assert all(NAMES.get(f"HardwareCompatibilityLevel.{level}") for level in HARDWARE_LEVELS.values())
    capabilities = {f"sm_{name[20:]}" for name in NAMES if name.startswith("ComputeCapability.SM")}
    assert set(TARGETS) <= capabilities


@pytest.mark.slow
@pytest.mark.skipif("QANET_DOWNLOAD" not in os.environ, reason="downloads wheels: set QANET_DOWNLOAD=1")
def test_the_names_are_those_of_the_wheels(tmp_path):
    output = tmp_path / "names.json"
    subprocess.run([sys.executable, str(API / "extract_names.py"), "--output", str(output)], check=True)
    assert json.loads(output.read_text()) == DOCUMENT, f"run {API / 'extract_names.py'}"
