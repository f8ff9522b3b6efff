"""Packages that are made for a test: an older one of ours, one with libvirt's own virtproxyd."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

CONF: Final = "usr/share/proxyd/virtproxyd.conf"
DAY_S: Final = 86400
# What a package of libvirt's would have, with a program that waits in the place of its daemon.
C_DAEMON: Final = {
    "DEBIAN/control": """\
Package: made-up-virtproxyd
Version: 1.0
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: units named as those of libvirt's virtproxyd
""",
    "DEBIAN/conffiles": "/etc/libvirt/virtproxyd.conf\n",
    "etc/libvirt/virtproxyd.conf": "max_clients = 66\n",
    "{units}/virtproxyd.service": """\
[Unit]
Description=libvirt's own
[Service]
ExecStart=/bin/sleep infinity
[Install]
WantedBy=multi-user.target
Also=virtproxyd.socket
""",
    "{units}/virtproxyd.socket": """\
[Unit]
Description=libvirt's own
[Socket]
ListenStream=/run/libvirt/libvirt-sock
SocketMode=0666
RemoveOnStop=yes
[Install]
WantedBy=sockets.target
""",
}


def older(package: Path, version: str, into: Path) -> Path:
    """The same package as it may have been: another version, times and default configuration."""
    tree = into / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", str(package), str(tree)], check=True)
    control = tree / "DEBIAN" / "control"
    full = version + re.search(r"\+deb\d+$", field(package, "Version"))[0]
    control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {full}", control.read_text()))
    (module,) = tree.glob("usr/lib/proxyd/lib/python3*/site-packages/proxyd/__init__.py")
    text = re.sub(r'(?m)^__version__ = ".*"$', f'__version__ = "{version}"', module.read_text())
    module.write_text(text)
    # Byte code of the host's Python, which need not be this one's, is not looked at again.
    for left in (module.parent / "__pycache__").glob("__init__.*"):
        left.unlink()
    conf = tree / CONF
    conf.write_text("# Of an older release.\n" + conf.read_text())
    made = into / f"proxyd_{full}_amd64.deb"
    days_ago = str(int(module.with_name("__main__.py").stat().st_mtime) - DAY_S)
    for file in tree.rglob("*"):
        subprocess.run(["touch", "--no-dereference", f"--date=@{days_ago}", str(file)], check=True)
    build(tree, made)
    shutil.rmtree(tree)
    return made


def c_daemon(into: Path, units: str = "lib/systemd/system") -> Path:
    """Named as Debian 12 names that directory; Debian 13 has /usr before it."""
    tree = into / "tree"
    for name, text in C_DAEMON.items():
        file = tree / name.format(units=units)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    made = into / "made-up-virtproxyd.deb"
    build(tree, made)
    shutil.rmtree(tree)
    return made


def build(tree: Path, made: Path) -> None:
    quick = ["-Zgzip", "-z1", "--root-owner-group"]
    subprocess.run(["dpkg-deb", *quick, "--build", str(tree), str(made)], check=True)


def field(package: Path, name: str) -> str:
    asked = ["dpkg-deb", "--field", str(package), name]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
