"""What `proxyd install` says is left to do, pasted on the host that it says it of."""

import pytest

from proxyd.doctor.state import Mode
from proxyd.switch.arrival import lines_for
from tests.bed.systemd_model import SystemdModel
from tests.doctor.test_remedies import Host, modular, monolithic, paste, seen, served, whole


def without_proxy():
    model = modular()
    for name in [name for name in model.units if name.startswith("virtproxyd")]:
        del model.units[name]
    model.put("virtproxyd")
    return model


def by_c_proxy():
    model = modular(tls=True)
    model.units["virtproxyd.service"].activity = "active"
    return model


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("build", [without_proxy, by_c_proxy])
def test_before_modular_daemons_the_sockets_listen_then(build, eager):
    host = Host(Mode.MODULAR, build())
    host.model.eager = eager
    before = served(host)
    lines = list(lines_for(seen(host)))
    assert lines[-1] == "proxyd doctor"
    assert all(paste(host, line) for line in lines[:-1])
    assert served(host) >= whole(host) | before


@pytest.mark.parametrize("others", [False, True])
def test_a_libvirtd_that_serves_is_not_switched_off_without_a_word(others):
    model = monolithic(others=others)
    if not others:
        model.put("virtproxyd")
    host = Host(Mode.MONOLITHIC, model)
    lines = list(lines_for(seen(host)))
    commands = [line for line in lines if not line.startswith("#")]
    assert commands == ["proxyd switch --to modular", "proxyd doctor"][0 if others else 1 :]
    assert "libvirtd serves here" in lines[0]


def test_where_nothing_is_the_doctor_says_what_to_install():
    assert list(lines_for(seen(Host(Mode.NONE, SystemdModel())))) == ["proxyd doctor"]
