import pytest

from proxyd.config.sources import load
from proxyd.daemon.places import Places, places_of, routing_table

USER = {"HOME": "/home/fred"}
XDG = {
    "HOME": "/home/fred",
    "XDG_CONFIG_HOME": "/c",
    "XDG_CACHE_HOME": "/k",
    "XDG_RUNTIME_DIR": "/run/user/1000",
}


def test_roots_places_are_the_systems_whatever_the_environment_says():
    assert places_of(XDG, euid=0) == Places(
        privileged=True,
        config_file="/etc/libvirt/virtproxyd.conf",
        runtime_dir="/run/libvirt",
        pid_file="/run/virtproxyd.pid",
        log_file="/var/log/libvirt/virtproxyd.log",
        passwords="/etc/libvirt/proxyd-passwords",
    )


def test_a_users_places_follow_the_xdg_directories():
    assert places_of(XDG, euid=1000) == Places(
        privileged=False,
        config_file="/c/libvirt/virtproxyd.conf",
        runtime_dir="/run/user/1000/libvirt",
        pid_file="/run/user/1000/libvirt/virtproxyd.pid",
        log_file="/k/libvirt/virtproxyd.log",
        passwords="/c/libvirt/proxyd-passwords",
        pki="/home/fred/.pki/libvirt",
    )


def test_without_them_a_users_places_are_in_the_home_directory():
    assert places_of(USER, euid=1000) == Places(
        privileged=False,
        config_file="/home/fred/.config/libvirt/virtproxyd.conf",
        runtime_dir="/home/fred/.cache/libvirt",
        pid_file="/home/fred/.cache/libvirt/virtproxyd.pid",
        log_file="/home/fred/.cache/libvirt/virtproxyd.log",
        passwords="/home/fred/.config/libvirt/proxyd-passwords",
        pki="/home/fred/.pki/libvirt",
    )


def test_without_a_run_time_directory_the_cache_directory_is_taken():
    places = places_of({**USER, "XDG_CACHE_HOME": "/k"}, euid=1000)
    assert (places.runtime_dir, places.pid_file) == ("/k/libvirt", "/k/libvirt/virtproxyd.pid")


def test_empty_variables_count_as_unset():
    empty = dict.fromkeys(["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"], "")
    assert places_of({**USER, **empty}, euid=1000) == places_of(USER, euid=1000)


def test_without_a_home_the_user_database_is_asked(monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    places = places_of({}, euid=1000)
    assert places.config_file.startswith("/")


def table(text="", *, privileged=True):
    settings = load(text, "/etc/x.conf", privileged=privileged).settings
    return routing_table(settings, places_of(XDG, euid=0 if privileged else 1000))


@pytest.mark.parametrize(
    ("name", "readonly", "path"),
    [
        ("qemu:///system", False, "/run/libvirt/virtqemud-sock"),
        ("qemu:///system", True, "/run/libvirt/virtqemud-sock-ro"),
        ("network:///system", False, "/run/libvirt/virtnetworkd-sock"),
    ],
)
def test_roots_routes_lead_to_the_systems_daemons(name, readonly, path):
    assert table().resolve(name, readonly=readonly).path == path


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("qemu:///session", "/run/user/1000/libvirt/virtqemud-sock"),
        ("qemu:///system", "/run/libvirt/virtqemud-sock"),
    ],
)
def test_a_users_routes_lead_to_the_users_own_daemons_and_to_the_systems(name, path):
    assert table(privileged=False).resolve(name, readonly=False).path == path


@pytest.mark.parametrize("privileged", [True, False])
@pytest.mark.parametrize("mode", ["system", "session"])
def test_a_directory_of_the_file_holds_all_daemons(privileged, mode):
    made = table('proxyd_backend_dir = "/b"', privileged=privileged)
    assert made.resolve(f"qemu:///{mode}", readonly=False).path == "/b/virtqemud-sock"


def test_routes_of_the_file_count_before_the_rule():
    made = table('proxyd_routes = [ "qemu=libvirtd", "test=/srv/a=b" ]')
    assert made.resolve("test:///default", readonly=False).path == "/srv/a=b"
    assert made.resolve("lxc:///system", readonly=False).path == "/run/libvirt/virtlxcd-sock"
