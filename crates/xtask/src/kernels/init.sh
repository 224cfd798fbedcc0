#!/bin/sh
# The first process of a machine that `./x kernels` starts: cgroup v2 alone, nothing running, then what the second disk says.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mkdir -p /dev/pts /dev/shm
for mount in "proc /proc" "sysfs /sys" "devpts /dev/pts" "tmpfs /dev/shm" "tmpfs /run" "tmpfs /tmp" "cgroup2 /sys/fs/cgroup" "bpf /sys/fs/bpf"; do
    set -- $mount
    mountpoint -q "$2" || mount -t "$1" "$1" "$2"
done
ip link set lo up
mount -t ext4 LABEL=work /mnt
echo "x: booted $(uname -r)"
sh /mnt/run 2>&1
sync
echo o >/proc/sysrq-trigger
sleep 60
