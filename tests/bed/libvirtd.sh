#!/usr/bin/env bash
# Become root's libvirtd with nothing shared but the files below the directory given; what follows
# it are arguments of the daemon's.
# Called in mount and network namespaces of its own (see libvirtd.py), so that no mount, no bridge
# and no firewall rule of it is seen outside, and all of it is gone when the last process is.
set -euo pipefail
directory=$1
shift

. "$(dirname -- "${BASH_SOURCE[0]}")/private.sh"

for each in /etc/libvirt /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
    private "$each"
done

# Others have asked QEMU what it can, which takes seconds; libvirt looks whether that holds here.
if [ -n "${PROXYD_TESTS_QEMU-}" ]; then
    mkdir -p /var/cache/libvirt/qemu/capabilities
    mount --bind "$PROXYD_TESTS_QEMU" /var/cache/libvirt/qemu/capabilities
fi

# Debian 13's names a keytab that is nowhere here. Without it cyrus takes what Kerberos is set to.
[ ! -d /etc/sasl2 ] || private /etc/sasl2

# /sys shows the network of the namespace that mounted it. Without the host's control groups in it
# no domain leaves a group behind either.
umount --recursive --lazy /sys
mount -t sysfs sysfs /sys
ip link set lo up

# The account is compiled into Debian's libvirtd, which ends at start when it is missing; the package
# that makes it (libvirt-daemon-system) would also start a daemon on the host.
cp /etc/passwd /etc/group /etc/libvirt/
grep -q '^libvirt-qemu:' /etc/passwd ||
    echo 'libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin' >>/etc/libvirt/passwd
for each in libvirt-qemu:x:64055: kvm:x:64056:; do
    grep -q "^${each%%:*}:" /etc/group || echo "$each" >>/etc/libvirt/group
done
mount --bind /etc/libvirt/passwd /etc/passwd
mount --bind /etc/libvirt/group /etc/group

# No helper daemons (virtlogd), no AppArmor profiles, no files of the host: QEMU alone.
# "namespaces" off keeps every QEMU in the mount namespace by which libvirtd.py finds it at the end.
cat >/etc/libvirt/qemu.conf <<'CONF'
user = "root"
group = "root"
security_driver = "none"
stdio_handler = "file"
namespaces = []
cgroup_controllers = []
hugetlbfs_mount = []
CONF

exec libvirtd -f "$directory/conf" -p "$directory/pid" "$@"
