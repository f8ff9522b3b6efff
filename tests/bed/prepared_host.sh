#!/usr/bin/env bash
# Run a command as on a host that is prepared for libvirt: $1 holds pki, log and krb5.tab, which are shown
# at /etc/pki, /var/log/libvirt and /etc/libvirt; the addresses 192.0.2.10 and 2001:db8::10 are there, and
# the groups that deployment tools name. What follows $1 is the command.
# Called in mount and network namespaces of its own (see prepared_host.py).
set -euo pipefail
directory=$1
shift
. "$(dirname -- "${BASH_SOURCE[0]}")/private.sh"

for each in /etc/libvirt /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt /etc/pki; do
    private "$each"
done
[ ! -d /etc/sasl2 ] || private /etc/sasl2
mount --bind "$directory/log" /var/log/libvirt
mount --bind "$directory/pki" /etc/pki
cp "$directory/krb5.tab" /etc/libvirt/krb5.tab

umount --recursive --lazy /sys
mount -t sysfs sysfs /sys
ip link set lo up
ip address add 192.0.2.10/32 dev lo
ip address add 2001:db8::10/128 dev lo nodad

cp /etc/passwd /etc/group /etc/libvirt/
grep -q '^libvirt-qemu:' /etc/passwd ||
    echo 'libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin' >>/etc/libvirt/passwd
gid=64055
for each in libvirt-qemu kvm libvirt libvirtd qemu; do
    grep -q "^$each:" /etc/group || echo "$each:x:$gid:" >>/etc/libvirt/group
    gid=$((gid + 1))
done
mount --bind /etc/libvirt/passwd /etc/passwd
mount --bind /etc/libvirt/group /etc/group
printf '%s\n' 'security_driver = "none"' 'stdio_handler = "file"' 'namespaces = []' 'cgroup_controllers = []' \
    >/etc/libvirt/qemu.conf

exec "$@"
