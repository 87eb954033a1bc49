"""Energy from sensors that are not here: sysfs trees and a library made up for the test."""

import ctypes
import os

import pytest

from qanet.benchmarks.energy import measure_energy, open_source
from qanet.benchmarks.harness import Target
from qanet.benchmarks.meters import PowerIntegral, Rapl, Unavailable, open_ina3221, open_nvml, rails
from qanet.benchmarks.schema import VariantEnergy


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")


@pytest.fixture
def powercap(tmp_path):
    """Two packages, a core domain inside one, and a psys zone; counters wrap at 1000 J."""
    for zone, name in (
        ("intel-rapl:0", "package-0"),
        ("intel-rapl:0:0", "core"),
        ("intel-rapl:1", "package-1"),
        ("intel-rapl:2", "psys"),
    ):
        write(tmp_path / zone / "name", name)
        write(tmp_path / zone / "max_energy_range_uj", 1_000_000_000)
        write(tmp_path / zone / "energy_uj", 999_000_000)
    return tmp_path


def test_rapl_adds_packages_and_wraps_around(powercap):
    meter = Rapl(powercap)
    assert meter.name == "RAPL package-0, package-1" and meter.joules() == 0
    write(powercap / "intel-rapl:0" / "energy_uj", 999_500_000)
    write(powercap / "intel-rapl:0:0" / "energy_uj", 1)  # inside the package: counted already
    assert meter.joules() == pytest.approx(0.5)
    write(powercap / "intel-rapl:1" / "energy_uj", 2_000_000)  # 1 J to the end of the range, 2 J after it
    assert meter.joules() == pytest.approx(3.5)


def test_rapl_that_is_not_there_or_not_for_this_user(tmp_path, powercap, monkeypatch):
    with pytest.raises(Unavailable, match="no package counter"):
        Rapl(tmp_path / "nothing")
    read = type(powercap).read_text

    def forbidden(path, *args, **kwargs):
        if path.name == "energy_uj":
            raise PermissionError(path)
        return read(path, *args, **kwargs)

    monkeypatch.setattr(type(powercap), "read_text", forbidden)
    with pytest.raises(Unavailable, match="only be read by root"):
        Rapl(powercap)


def jetson(root, labels=("VDD_IN", "VDD_CPU_GPU_CV", "NC")):
    hwmon = root / "class/hwmon/hwmon3"
    write(hwmon / "name", "ina3221")
    for number, label in enumerate(labels, 1):
        write(hwmon / f"in{number}_label", label)
        write(hwmon / f"in{number}_input", 5000)  # mV
        write(hwmon / f"curr{number}_input", 400 * number)  # mA
    return root


def test_ina3221_takes_the_rail_that_everything_hangs_on(tmp_path):
    known = rails(jetson(tmp_path))
    assert {name: watts() for name, watts in known.items()} == {"VDD_IN": 2.0, "VDD_CPU_GPU_CV": 4.0}
    meter = open_ina3221(tmp_path)
    try:
        assert meter.name == "INA3221 VDD_IN"
    finally:
        meter.close()


def test_ina3221_adds_the_rails_where_none_is_the_whole(tmp_path):
    meter = open_ina3221(jetson(tmp_path, ("GPU", "CPU", "SOC")))
    try:
        assert meter.name == "INA3221 GPU, CPU, SOC"
    finally:
        meter.close()


def test_the_iio_driver_of_older_boards(tmp_path):
    write(tmp_path / "bus/iio/devices/iio:device0/rail_name_0", "POM_5V_IN")
    write(tmp_path / "bus/iio/devices/iio:device0/in_power0_input", 3210)
    assert rails(tmp_path)["POM_5V_IN"]() == pytest.approx(3.21)


def test_a_rail_that_breaks_is_unavailable_not_zero(tmp_path):
    write(jetson(tmp_path) / "class/hwmon/hwmon3/curr1_input", "broken")
    with pytest.raises(Unavailable, match="VDD_IN cannot be read"):
        open_ina3221(tmp_path)
    with pytest.raises(Unavailable, match="no rail"):
        open_ina3221(tmp_path / "else")


def test_power_is_integrated_by_trapezoids():
    readings = iter([10.0, 20.0, 20.0])
    seconds = iter([0.0, 1.0, 3.0])
    meter = PowerIntegral("fake", lambda: next(readings), period_s=1e6, clock=lambda: next(seconds))
    assert meter.joules() == 15.0 and meter.joules() == 55.0
    meter.close()


class FakeNvml:
    """A driver library with an energy counter, only a power reading, or neither."""

    def __init__(self, energy=0, power=0, init=0):
        self.codes = {"energy": energy, "power": power, "init": init}
        self.millijoules = 1000

    def nvmlInit_v2(self):
        return self.codes["init"]

    def nvmlDeviceGetHandleByIndex_v2(self, index, device):
        return 0

    def nvmlDeviceGetName(self, device, text, size):
        text.value = b"Some GPU"
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, device, value):
        ctypes.cast(value, ctypes.POINTER(ctypes.c_ulonglong))[0] = self.millijoules
        return self.codes["energy"]

    def nvmlDeviceGetPowerUsage(self, device, value):
        ctypes.cast(value, ctypes.POINTER(ctypes.c_uint))[0] = 42_000
        return self.codes["power"]


def test_nvml_counts_energy_or_integrates_power_or_says_why_not():
    library = FakeNvml()
    meter = open_nvml(library=library)
    before = meter.joules()
    library.millijoules += 2500
    assert meter.name == "NVML energy of Some GPU" and meter.joules() - before == pytest.approx(2.5)
    older = open_nvml(library=FakeNvml(energy=3))
    assert older.name == "NVML power of Some GPU"
    older.close()
    with pytest.raises(Unavailable, match="power: not supported by this GPU"):
        open_nvml(library=FakeNvml(energy=3, power=3))
    with pytest.raises(Unavailable, match="start: no driver"):
        open_nvml(library=FakeNvml(init=9))


class FakeMeter:
    """5 W while idle and 25 W while somebody works; seconds pass in `sleep` and in `work`."""

    name = "fake"

    def __init__(self, idle_w=5.0, busy_w=25.0):
        self.now, self.total, self.idle_w, self.busy_w, self.closed = 0.0, 0.0, idle_w, busy_w, False

    def joules(self):
        return self.total

    def close(self):
        self.closed = True

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now, self.total = self.now + seconds, self.total + seconds * self.idle_w

    def work(self, number):
        self.now, self.total = self.now + 0.1, self.total + 0.1 * self.busy_w


def measured(meter, targets):
    return measure_energy(targets, 2.0, "cpu", lambda place: meter, meter.clock, meter.sleep)


def test_idle_is_subtracted_and_shown():
    meter = FakeMeter()
    found = measured(meter, {"int8": Target("t", meter.work, "parser", batch=2)})
    assert found.idle_w == 5.0 and found.source == "fake" and meter.closed
    row = found.by_variant["int8"]
    assert row.mj_per_frame == pytest.approx(2000) and row.mj_per_person == pytest.approx(1000)
    assert row.total_mj_per_frame == pytest.approx(2500) and row.watts == pytest.approx(25)


def test_what_is_not_above_idle_or_breaks_is_unavailable_and_the_rest_goes_on():
    meter = FakeMeter()

    def breaks(number):
        raise RuntimeError("broke")

    def idles(number):
        meter.sleep(0.1)

    found = measured(
        meter,
        {"a": Target("a", breaks, "parser"), "b": Target("b", idles, "parser"), "c": Target("c", meter.work, "parser")},
    ).by_variant
    assert found["a"] == VariantEnergy("unavailable", "RuntimeError: broke")
    assert found["b"].status == "unavailable" and "not above idle" in found["b"].reason
    assert found["c"].status == "measured"


def test_a_sensor_that_stands_still_is_unavailable():
    found = measured(FakeMeter(idle_w=0.0), {})
    assert found.status == "unavailable" and "counted nothing" in found.reason and found.idle_w is None


def test_no_sensor_has_the_reason_of_each():
    def missing(words):
        def opener():
            raise Unavailable(words)

        return opener

    with pytest.raises(Unavailable, match="^no RAPL; no INA3221$"):
        open_source("cpu", {"cpu": (missing("no RAPL"), missing("no INA3221"))})


def test_this_machine_is_measured_or_has_a_reason():
    found = measure_energy({"t": Target("t", lambda number: sum(range(20_000)), "parser")}, 0.2, "cpu")
    assert found.status in ("measured", "unavailable")
    assert (found.reason is None) == (found.status == "measured")
    if not os.path.isdir("/sys/class/powercap") and not os.path.isdir("/sys/class/hwmon"):
        assert "RAPL: no package counter" in found.reason and "INA3221: no rail" in found.reason
