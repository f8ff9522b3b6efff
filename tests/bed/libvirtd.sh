#!/usr/bin/env bash
# Become root's libvirtd with nothing shared but the files below the directory given.
# Called in mount and network namespaces of its own (see libvirtd.py), so that no mount, no bridge
# and no firewall rule of it is seen outside, and all of it is gone when the last process is.
set -euo pipefail
directory=$1

# Mount an empty tmpfs on $1, also where the host has no such directory and is not to get one:
# then the parent becomes a tmpfs too, into which all that the real one holds is mounted.
private() {
    local parent real shown
    if [ ! -d "$1" ]; then
        parent=$(dirname "$1")
        mount --rbind "$parent" /mnt
        mount -t tmpfs -o mode=755 tmpfs "$parent"
        for real in /mnt/* /mnt/.[!.]*; do
            shown=$parent/${real#/mnt/}
            if [ -L "$real" ]; then
                cp -P "$real" "$shown"
            elif [ -d "$real" ]; then
                mkdir -p "$shown" # libmount makes /run/mount by itself
                mount --rbind "$real" "$shown"
            elif [ -e "$real" ]; then
                : >"$shown"
                mount --bind "$real" "$shown"
            fi
        done
        umount --lazy /mnt
        mkdir "$1"
    fi
    mount -t tmpfs -o mode=755 tmpfs "$1"
}

for each in /etc/libvirt /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
    private "$each"
done

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

exec libvirtd -f "$directory/conf" -p "$directory/pid"
