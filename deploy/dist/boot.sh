#!/bin/sh
# boot.sh ROOT runs the systemd that is installed below ROOT, as a container's first process: the tests call it in
# namespaces of its own (unshare --mount --pid --uts --ipc --net --cgroup). Nothing of it reaches the machine.
set -e
root=$1
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
# The kernel's settings are the machine's too.
mount -o bind,ro "$root/proc/sys" "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
  touch "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
cd "$root"
pivot_root . mnt
umount -l mnt
exec env -i container=backout-test PATH=/usr/sbin:/usr/bin chroot . /usr/lib/systemd/systemd --unit=multi-user.target
