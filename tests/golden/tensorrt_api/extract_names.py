"""Names in the bindings of four TensorRT releases -> names.json, for tests/export/backends/test_tensorrt_names.py.

    python tests/golden/tensorrt_api/extract_names.py [--output names.json]

The wheels come from the package registry through pip and need no GPU. The bindings of TensorRT import three libraries
that their wheels lack; of those they call nine C functions, and a library of nine functions that return null is
enough to import them and look at their names. Needs gcc, pip, network access, the Python that the wheels are for, and
tensorrt_rtx installed. A release that this Python has no wheel for stops it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEELS = {"10.3": "10.3.0", "10.16": "10.16.1.11", "11.4": "11.4.0.106"}  # release -> version of tensorrt-cu12-bindings
PACKAGE = "tensorrt-cu12-bindings"
RTX = "rtx-1.7"
MISSING_FUNCTIONS = {
    "nvinfer": (
        "createInferBuilder_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createInferRuntime_INTERNAL",
        "getPluginRegistry",
        "getBuilderPluginRegistry",
    ),
    "nvonnxparser": ("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion"),
    "nvinfer_plugin": ("initLibNvInferPlugins",),
}
# Names of layers, of plugins and of safety are left out: the project adds layers through the ONNX parser only.
_LIST_NAMES = """
import json, sys, importlib
module = importlib.import_module(sys.argv[1])
def skipped(name):
    return name.startswith("_") or "Plugin" in name or "Quick" in name or name.endswith("Layer") and name != "ILayer"
names = {n for n in vars(module) if not skipped(n)}
for owner in [getattr(module, n) for n in sorted(names)]:
    if isinstance(owner, type):
        names |= {f"{owner.__name__}.{n}" for n in dir(owner) if not n.startswith("_") and n not in dir(int)}
print(json.dumps([getattr(module, "__version__", ""), sorted(names)]))
"""


def names_of(module: str, **environment: str) -> tuple[str, list[str]]:
    """(version, names) of an importable module, asked in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", _LIST_NAMES, module], env=os.environ | environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{module}: {done.stderr.strip().splitlines()[-1]}")
    version, names = json.loads(done.stdout)
    return version, names


def names_of_wheel(version: str, folder: Path) -> list[str]:
    """Names of one release of the bindings, downloaded and imported over stub libraries."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
    subprocess.run([*pip, f"{PACKAGE}=={version}"], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder)
    for library, functions in MISSING_FUNCTIONS.items():
        file = f"lib{library}.so.{version.split('.')[0]}"
        source = "".join(f"void *{name}(void) {{ return 0; }}\n" for name in functions)
        command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", f"-Wl,-soname,{file}", "-o", str(folder / file)]
        subprocess.run(command, input=source.encode(), check=True)
    found, names = names_of("tensorrt_bindings", LD_LIBRARY_PATH=str(folder), PYTHONPATH=str(folder))
    assert found == version, f"asked for {version}, the wheel says {found}"
    return names


def collect() -> dict[str, dict[str, object]]:
    """{"versions": release -> version, "names": name -> the releases that have it, "" where all do}."""
    by_release, versions = {}, dict(WHEELS)
    for release, version in WHEELS.items():
        with tempfile.TemporaryDirectory() as folder:
            by_release[release] = set(names_of_wheel(version, Path(folder)))
    versions[RTX], names = names_of("tensorrt_rtx")
    by_release[RTX] = set(names)
    has = {name: [r for r, known in by_release.items() if name in known] for name in set().union(*by_release.values())}
    short = {name: "" if len(having) == len(by_release) else " ".join(having) for name, having in sorted(has.items())}
    return {"versions": versions, "names": short}


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("names.json"))
    args = parser.parse_args()
    args.output.write_text(json.dumps(collect(), indent=0) + "\n")


if __name__ == "__main__":
    main()
