# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=sh
# What a system needs around it, mounted into the root that is the current folder, in a mount namespace of its own. What it
# could change outside of its namespaces it may only read: /sys, and /proc/sys but for net.
mount -t proc proc proc
mount --bind proc/sys/net proc/sys/net
mount --bind proc/sys proc/sys
mount --rbind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for device in null,1,3 zero,1,5 full,1,7 random,1,8 urandom,1,9 tty,5,0 console,1,3; do
    (IFS=, && set -- $device && mknod -m 666 "dev/$1" c "$2" "$3")
done
mkdir dev/pts dev/shm dev/net
mknod -m 666 dev/net/tun c 10 200
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777 tmpfs dev/shm
