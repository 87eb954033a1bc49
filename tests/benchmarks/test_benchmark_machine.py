"""The machine's description: psutil's figures, Linux's sysfs, the output of tools; of machines that are not here."""

import subprocess
from collections import namedtuple

import pytest

from qanet.benchmarks import machine

QUIET = {"cpu": {"usable_cpus": 2}, "load_average": [0.0, 0.0, 0.0], "gpus": []}
X86 = "processor\t: 0\nmodel name\t: Some CPU @ 2.0GHz\n\nprocessor\t: 1\nmodel name\t: Some CPU @ 2.0GHz\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp i8mm\n\nModel\t\t: Some Board Rev 1\n"
Clocks = namedtuple("Clocks", "current min max")
Sensor = namedtuple("Sensor", "current")


@pytest.mark.parametrize(("cpuinfo", "model"), [(X86, "Some CPU @ 2.0GHz"), (ARM, "Some Board Rev 1")])
def test_the_processors_name_or_the_boards(cpuinfo, model):
    assert machine.cpu_model(cpuinfo) == model


@pytest.mark.parametrize(("load", "busy"), [(0.1, False), (0.59, False), (1.0, True)])
def test_busy_by_share_of_the_cpus(load, busy):
    warning = machine.busy_warning({"load_average": [load, 0, 0], "cpu": {"usable_cpus": 2}})
    assert (warning is not None) is busy
    assert warning is None or f"load average {load} on 2 CPUs" in warning


def test_no_load_average_no_warning():
    assert machine.busy_warning({"load_average": None, "cpu": {"usable_cpus": 2}}) is None


def test_gpus_from_nvidia_smi(monkeypatch):
    def answer(arguments):
        if "clocks_event_reasons.active" in arguments[1]:
            return None  # an older driver does not know the field
        if "clocks_throttle_reasons.active" in arguments[1]:
            return "0x0000000000000044\n"
        return "Some GPU, 580.1, 81559 MiB, 345 MHz, 1980 MHz, [N/A], 9.0, 41, P0, Enabled, 512 MiB\n"

    monkeypatch.setattr(machine, "_output", answer)
    (gpu,) = machine.gpus()
    assert gpu["name"] == "Some GPU" and gpu["power.limit"] == "[N/A]" and gpu["compute_cap"] == "9.0"
    assert gpu["throttled"] == "power cap, temperature (hardware)"
    monkeypatch.setattr(machine, "_output", lambda arguments: None)
    assert machine.gpus() == []


@pytest.mark.parametrize(
    ("mask", "reasons"),
    [("0x0", ""), ("0x1", ""), ("0x3", ""), ("0x5", "power cap"), ("0x8000", "unknown"), ("[N/A]", "unknown")],
)
def test_idle_is_no_throttling(mask, reasons):
    assert machine.throttle_reasons(mask) == reasons


@pytest.fixture
def sysfs(tmp_path):
    """A sysfs tree with two CPUs that throttled, a governor, and no turbo."""

    def write(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{text}\n")

    write("devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave")
    write("devices/system/cpu/cpu0/cpufreq/energy_performance_preference", "balance_power")
    for number in (0, 1):
        write(f"devices/system/cpu/cpu{number}/thermal_throttle/core_throttle_count", 3)
        write(f"devices/system/cpu/cpu{number}/thermal_throttle/package_throttle_count", 5)
    write("devices/system/cpu/intel_pstate/no_turbo", 1)
    return tmp_path


def test_clocks_and_throttling(sysfs, monkeypatch):
    monkeypatch.setattr(machine.psutil, "cpu_freq", lambda: Clocks(1800.04, 0.0, 3600.0))
    found = machine.clocks(sysfs)
    assert (found["governor"], found["clock_mhz"], found["min_clock_mhz"], found["max_clock_mhz"]) == (
        "powersave",
        1800.0,
        None,
        3600.0,
    )
    assert found["turbo"] is False and found["energy_preference"] == "balance_power"
    assert machine.throttle_counts(sysfs) == {"core": 6, "package": 5}


def test_the_hottest_reading_of_each_sensor(monkeypatch):
    readings = {"coretemp": [Sensor(61.5), Sensor(70.0)], "nothing": []}
    monkeypatch.setattr(machine.psutil, "sensors_temperatures", lambda: readings, raising=False)
    assert machine.temperatures_c() == {"coretemp": 70.0}
    monkeypatch.delattr(machine.psutil, "sensors_temperatures")  # as on macOS and Windows
    assert machine.temperatures_c() == {}


@pytest.mark.parametrize("error", [AttributeError, NotImplementedError, FileNotFoundError])
def test_a_machine_without_clocks_has_none_of_them(tmp_path, monkeypatch, error):
    def no_clock():
        raise error("no clock")

    monkeypatch.setattr(machine.psutil, "cpu_freq", no_clock)
    assert set(machine.clocks(tmp_path).values()) == {None} and machine.throttle_counts(tmp_path) == {}


def test_throttling_while_measuring_is_told(monkeypatch):
    monkeypatch.setattr(machine, "throttle_counts", lambda: {"core": 9, "package": 5})
    before = {"throttle_counts": {"core": 6, "package": 5}, "gpus": []}
    after = machine.finish(before)
    assert after["throttled"] == {"core": 3, "package": 0}
    told = machine.warnings_of({**QUIET, "after": after})
    assert told == ["the processor throttled itself 3 times while measuring (core): it is too hot"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({}, None),
        ({"cpu": {"usable_cpus": 2, "governor": "powersave"}}, "governor is powersave"),
        ({"cpu": {"usable_cpus": 2, "governor": "powersave", "energy_preference": "performance"}}, None),
        ({"gpus": [{"name": "Some GPU", "throttled": "power cap"}]}, "Some GPU was throttled before"),
        ({"gpus": [{"name": "Some GPU", "throttled": ""}]}, None),
        ({"after": {"gpus": [{"name": "Some GPU", "throttled": "power cap"}]}}, "throttled after"),
        ({"load_average": [2.0, 0, 0]}, "was busy"),
    ],
)
def test_what_a_reader_is_warned_of(facts, words):
    told = machine.warnings_of({**QUIET, **facts})
    assert told == [] if words is None else len(told) == 1 and words in told[0]


def test_git_hash_only_of_a_checkout(tmp_path):
    assert machine.git_hash(tmp_path) is None
    try:
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("git is not installed")
    assert machine.git_hash(tmp_path) is None  # no commit yet
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    (tmp_path / "file").write_text("1")
    subprocess.run(["git", "-C", str(tmp_path), "add", "file"], check=True)
    subprocess.run(["git", "-C", str(tmp_path), *identity, "commit", "-q", "-m", "one"], check=True)
    clean = machine.git_hash(tmp_path)
    assert clean is not None and len(clean) == 12
    (tmp_path / "file").write_text("2")
    assert machine.git_hash(tmp_path) == clean + "+changes"


def test_describe_names_no_host(monkeypatch):
    import platform

    about = machine.describe()
    assert about["versions"]["numpy"] and about["cpu"]["usable_cpus"] >= 1
    node = platform.node()
    assert not node or len(node) < 4 or node not in str(about)
