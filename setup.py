"""Maps the top-level stage folders to subpackages of `qanet`: `train/` installs as `qanet.train`, and so on.

The folders stay at the top of the checkout, where a reader looks for them, and no package called `train` or
`tests` ever lands in somebody's site-packages. The C++ kernels are built where there is a compiler; without one the
package installs all the same: the kernel tail runs on NumPy, and crops are OpenCV's.
"""

from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

STAGES = ("train", "export", "runtime", "calib", "benchmarks")
NOT_INSTALLED = ["lab", "lab.*"]  # benchmarks/lab/: tools of the project's authors, which run in a checkout alone

packages = find_packages(include=["qanet", "qanet.*"])
package_dir = {"qanet": "qanet"}
for stage in STAGES:
    package_dir[f"qanet.{stage}"] = stage
    packages.append(f"qanet.{stage}")
    packages += [f"qanet.{stage}.{name}" for name in find_packages(stage, exclude=NOT_INSTALLED)]

CPP = Path("runtime/native/cpp")
# The instruction set is chosen when it runs, so nothing here depends on the machine that builds it. No contraction:
# what is to be fused is written so, and the sampling positions round as the reference's do.
native_kernels = Extension(
    "qanet.runtime.native._native",
    sources=sorted(str(path) for path in CPP.rglob("*.cpp")),
    depends=sorted(str(path) for path in CPP.rglob("*.h")),
    include_dirs=[str(CPP)],
    language="c++",
    extra_compile_args=["-std=c++17", "-O3", "-g0", "-ffp-contract=off", "-fvisibility=hidden", "-pthread"],
    extra_link_args=["-pthread"],
    optional=True,
)


class BuildLibrary(build_ext):
    """A plain C library for ctypes: no Python headers, no module to import, hence a name that is not a module's."""

    def get_ext_filename(self, fullname: str) -> str:
        return str(Path(*fullname.split(".")[:-1]) / "libqanet_native.so.1")  # qanet.runtime.native loads it


class AnyPythonWheel(bdist_wheel):
    """The library knows nothing of Python: one wheel a platform serves every version."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    packages=packages,
    package_dir=package_dir,
    package_data={
        "qanet": ["py.typed", "models/*/*", "label_sets/*.json"],
        "qanet.pages": ["*.j2", "*.css"],
        "qanet.calib": ["*.j2"],
        "qanet.benchmarks.report": ["*.j2"],
        "qanet.runtime.answers": ["pictures/*.jpg"],
        "qanet.runtime.serve": ["page.html"],
        "qanet.runtime.native": ["cpp/*.cpp", "cpp/*.h", "cpp/*/*.cpp", "cpp/*/*.h"],
        "qanet.runtime.cuda": ["kernels/*.cu", "kernels/*.cuh"],
    },
    ext_modules=[native_kernels],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": AnyPythonWheel},
)
