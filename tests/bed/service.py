"""proxyd as a service of a machine."""

SERVICE = "virtproxyd.service"
CONF = "/etc/libvirt/virtproxyd.conf"


def configure(machine, unit, directives):
    """A drop-in, as an administrator would write one."""
    machine.write(f"/etc/systemd/system/{unit}.d/test.conf", directives)
    machine.systemctl("daemon-reload")


def install_certificates(machine, pki):
    """A server's where libvirt has its own, and a client's in /root/client."""
    server = pki.server()
    client = pki.client()
    for path, file in (
        ("/etc/pki/CA/cacert.pem", pki.ca_file),
        ("/etc/pki/libvirt/servercert.pem", server.cert_file),
        ("/etc/pki/libvirt/private/serverkey.pem", server.key_file),
        *((f"/root/client/{file.name}", file) for file in client.iterdir()),
    ):
        machine.write(path, file.read_text(), 0o600 if "key" in file.name else 0o644)
