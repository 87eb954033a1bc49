"""What is read from /proc and from tools, on texts of machines that are not here."""

import subprocess

import pytest

from qanet.benchmarks import machine
from qanet.benchmarks import machine as cpu
from qanet.benchmarks import machine as reading
from qanet.benchmarks.machine import throttle_reasons

QUIET = {"cpu": {"usable_cpus": 2}, "load_average": [0.0, 0.0, 0.0], "gpus": []}
X86 = """processor\t: 0
model name\t: Some CPU @ 2.0GHz
physical id\t: 0
core id\t: 0
flags\t\t: fpu avx2 avx512f avx512_vnni avx512_bf16 amx_int8 sse2

processor\t: 1
model name\t: Some CPU @ 2.0GHz
physical id\t: 0
core id\t: 0
flags\t\t: fpu avx2
"""
ARM = """processor\t: 0
Features\t: fp asimd asimdhp asimddp i8mm

Model\t\t: Some Board Rev 1
"""


def test_x86_flags_and_hyperthreads():
    found = machine.parse_cpuinfo(X86)
    assert (found["model"], found["logical_cpus"], found["physical_cores"]) == ("Some CPU @ 2.0GHz", 2, 1)
    assert found["isa"] == ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"]


def test_arm_features_and_board():
    found = machine.parse_cpuinfo(ARM)
    assert (found["model"], found["logical_cpus"], found["physical_cores"]) == ("Some Board Rev 1", 1, None)
    assert found["isa"] == ["asimddp", "asimdhp", "i8mm"]


def test_nothing_readable_is_none_not_an_error():
    assert machine.parse_cpuinfo("")["isa"] == []
    assert machine.parse_meminfo("") == {"total_gib": None, "available_gib": None}


def test_memory_in_gib():
    assert machine.parse_meminfo("MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n") == {
        "total_gib": 8.0,
        "available_gib": 4.0,
    }


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

    monkeypatch.setattr(reading, "answer", answer)
    (gpu,) = machine.gpus()
    assert gpu["name"] == "Some GPU" and gpu["power.limit"] == "[N/A]" and gpu["compute_cap"] == "9.0"
    assert gpu["throttled"] == "power cap, temperature (hardware)"
    monkeypatch.setattr(reading, "answer", lambda arguments: None)
    assert machine.gpus() == []


@pytest.mark.parametrize(
    ("mask", "reasons"),
    [("0x0", ""), ("0x1", ""), ("0x3", ""), ("0x5", "power cap"), ("0x8000", "unknown"), ("[N/A]", "unknown")],
)
def test_idle_is_no_throttling(mask, reasons):
    assert throttle_reasons(mask) == reasons


@pytest.fixture
def sysfs(tmp_path):
    """A sysfs tree with two CPUs that throttled, a governor, two temperatures and no turbo."""

    def write(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{text}\n")

    for name, value in {
        "scaling_governor": "powersave",
        "scaling_cur_freq": 1_800_000,
        "cpuinfo_max_freq": 3_600_000,
        "energy_performance_preference": "balance_power",
    }.items():
        write(f"devices/system/cpu/cpu0/cpufreq/{name}", value)
    for number in (0, 1):
        write(f"devices/system/cpu/cpu{number}/thermal_throttle/core_throttle_count", 3)
        write(f"devices/system/cpu/cpu{number}/thermal_throttle/package_throttle_count", 5)
    write("devices/system/cpu/intel_pstate/no_turbo", 1)
    write("class/thermal/thermal_zone0/type", "cpu-thermal")
    write("class/thermal/thermal_zone0/temp", 61500)
    write("class/thermal/thermal_zone1/temp", "broken")
    write("class/hwmon/hwmon0/name", "k10temp")
    write("class/hwmon/hwmon0/temp1_input", 70000)
    return tmp_path


def test_clocks_temperatures_and_throttling_from_sysfs(sysfs):
    told = cpu.clocks(sysfs)
    assert (told["governor"], told["clock_mhz"], told["max_clock_mhz"], told["turbo"]) == (
        "powersave",
        1800,
        3600,
        False,
    )
    assert told["min_clock_mhz"] is None and told["energy_preference"] == "balance_power"
    assert cpu.temperatures_c(sysfs) == {"cpu-thermal": 61.5, "k10temp": 70.0}
    assert cpu.throttle_counts(sysfs) == {"core": 6, "package": 5}


def test_a_machine_that_tells_nothing_is_none_and_empty(tmp_path):
    assert set(cpu.clocks(tmp_path).values()) == {None}
    assert cpu.temperatures_c(tmp_path) == {} and cpu.throttle_counts(tmp_path) == {}


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
