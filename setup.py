"""Maps the top-level stage folders to subpackages of `qanet`: `train/` installs as `qanet.train`, and so on.

The folders stay at the top of the checkout, where a reader looks for them, and no package called `train` or
`tests` ever lands in somebody's site-packages.
"""

from setuptools import find_packages, setup

STAGES = ("train", "export", "runtime", "calib", "benchmarks")

packages = find_packages(include=["qanet", "qanet.*"])
package_dir = {"qanet": "qanet"}
for stage in STAGES:
    package_dir[f"qanet.{stage}"] = stage
    packages.append(f"qanet.{stage}")
    packages += [f"qanet.{stage}.{name}" for name in find_packages(stage)]

setup(packages=packages, package_dir=package_dir, package_data={"qanet": ["py.typed", "models/*/*"]})
