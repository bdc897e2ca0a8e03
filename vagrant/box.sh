#!/usr/bin/env bash
# Makes a box for Vagrant's libvirt provider from Debian's own packages, for a site that mirrors Debian and no boxes:
#
#     sudo ./box.sh [bookworm|trixie]    leaves bookworm.box here, or trixie.box
#     vagrant box add --name anycastlb bookworm.box
#     BOX=anycastlb vagrant up --provider=libvirt
#
# The box is a minimal Debian with the kernel of its release (the standard one, which has IPVS), SSH and the user that
# Vagrant expects. It is made in a directory, by root, and written into an image with mke2fs: nothing is mounted from it.
# Settings, from the environment:
#
#     MIRROR=URL    where packages come from; as mmdebstrap chooses by itself if it is not set
#     CARRY=1       put what the lab's roles install into the box as well (packages, Python wheels, Consul), as the only
#                   source that apt and pip have there: then the machines need no way out
#     SIZE=10       GB of the disk, which takes only what is written
set -euo pipefail
cd "${BASH_SOURCE%/*}"
SELF=$PWD/${BASH_SOURCE##*/}

PATH=$PATH:/usr/sbin:/sbin
SUITE=${1:-bookworm} MIRROR=${MIRROR:-} CARRY=${CARRY:-} SIZE=${SIZE:-10}
# How the first megabyte is laid out: GRUB between the partition table and the only partition.
SECTOR=512 START=2048
KEEP=/usr/local/share/anycastlb-box # what CARRY brings
# apt's index of it is made inside, and so is GRUB's image.
PACKAGES=(
    systemd-sysv dbus udev kmod linux-image-amd64 initramfs-tools grub-pc-bin apt-utils ca-certificates openssh-server sudo rsync
    ifupdown isc-dhcp-client iproute2 procps netbase less
)

die() {
    echo "box.sh: $*" >&2
    exit 1
}

# What is called by mmdebstrap, with the root of the box: first when only essential packages are in it.
essential() {
    # The initial RAM disk of most boxes holds every driver there is; a machine of libvirt has few.
    put "$1/etc/initramfs-tools/conf.d/box" <<<"MODULES=list"
    put "$1/etc/initramfs-tools/hooks/box" 755 <<'END'
#!/bin/sh
[ "$1" = prereqs ] && exit 0
. /usr/share/initramfs-tools/hook-functions
manual_add_modules virtio_pci virtio_blk virtio_scsi ahci sd_mod ext4
END
}

# Then when all are.
customize() {
    boot "$1"
    machine "$1"
    [ -z "$CARRY" ] || carry "$1"
    rm -f "$1/etc/resolv.conf" # of the machine that makes the box
}

# GRUB finds kernel and initial RAM disk by the links that Debian keeps to the newest.
boot() {
    put "$1/etc/fstab" <<<"LABEL=root / ext4 errors=remount-ro 0 1"
    put "$1/boot/grub/grub.cfg" <<'END'
set timeout=0
menuentry Debian {
    linux /vmlinuz root=LABEL=root ro net.ifnames=0 no_timer_check console=tty0 console=ttyS0 quiet
    initrd /initrd.img
}
END
    chroot "$1" grub-mkimage --format=i386-pc --prefix='(hd0,msdos1)/boot/grub' --output=/boot/grub/core.img \
        biosdisk part_msdos ext2 normal linux
}

# The first network card has its address from the provider's DHCP, and the user vagrant its well-known key, which Vagrant
# replaces at the first `up`. Each machine makes SSH host keys of its own.
machine() {
    put "$1/etc/network/interfaces" <<'END'
auto lo eth0
iface lo inet loopback
iface eth0 inet dhcp
END
    put "$1/etc/hostname" <<<debian
    put "$1/etc/hosts" <<<"127.0.0.1 localhost
127.0.1.1 debian
::1 localhost ip6-localhost ip6-loopback"
    chroot "$1" useradd --create-home --shell /bin/bash vagrant
    put "$1/etc/sudoers.d/vagrant" 440 <<<"vagrant ALL=(ALL) NOPASSWD: ALL"
    put "$1/home/vagrant/.ssh/authorized_keys" 600 <<'END'
ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+v1I2YJ6oXevct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG0zQPyUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+FIPKcF96hrucXzcWyLbIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ== vagrant insecure public key
END
    chmod 700 "$1/home/vagrant/.ssh"
    chroot "$1" chown -R vagrant:vagrant /home/vagrant/.ssh
    rm -f "$1"/etc/ssh/ssh_host_*
    put "$1/etc/systemd/system/ssh.service.d/keys.conf" <<'END'
[Service]
ExecStartPre=
ExecStartPre=/usr/bin/ssh-keygen -A
ExecStartPre=/usr/sbin/sshd -t
END
}

# What the roles install, by their own word: the packages that they name, what a node's Python needs, and Consul.
carry() {
    local packages=() wheels consul
    read -ra packages -d '' < <(sed -n 's/^ *packages \([a-z].*\)/\1/p' roles/*) || true
    wheels=$(python3 -c 'import tomllib
project = tomllib.load(open("../pyproject.toml", "rb"))
for name in (*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["bgp"], *project["build-system"]["requires"]):
    print(name)')
    consul=$(python3 ../tests/rig/consul.py)
    mkdir -p "$1$KEEP/packages" "$1$KEEP/wheels"
    chroot "$1" apt-get clean
    chroot "$1" apt-get -qq -y --no-install-recommends --download-only install "${packages[@]}"
    mv "$1"/var/cache/apt/archives/*.deb "$1$KEEP/packages/"
    chroot "$1" sh -c "cd $KEEP/packages && apt-ftparchive packages . >Packages"
    rm -rf "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/* "$1"/var/lib/apt/lists/*
    put "$1/etc/apt/sources.list.d/anycastlb-box.list" <<<"deb [trusted=yes] file:$KEEP/packages ./"
    echo "$wheels" | xargs -d '\n' python3 -m pip --quiet --disable-pip-version-check download --dest "$1$KEEP/wheels" \
        --only-binary=:all: --python-version "$(chroot "$1" apt-cache show python3 | sed -n 's/^Version: \([0-9]*\.[0-9]*\).*/\1/p;T;q')"
    put "$1/etc/pip.conf" <<<"[global]
no-index = true
find-links = $KEEP/wheels"
    install -m 755 "$consul" "$1/usr/local/bin/consul"
}

# The disk of root directory $1: GRUB's first sector, a partition table of one partition, GRUB, and the file system.
image() {
    local grub=$1/usr/lib/grub/i386-pc sectors=$((SIZE * 1024 * 1024 * 2))
    truncate -s $((sectors * SECTOR)) "$2"
    mke2fs -q -F -t ext4 -L root -d "$1" -E offset=$((START * SECTOR)),lazy_itable_init=1 "$2" \
        $(((sectors - START) / 2))k
    dd if="$grub/boot.img" of="$2" bs=440 count=1 conv=notrunc status=none
    dd if="$1/boot/grub/core.img" of="$2" bs=$SECTOR seek=1 conv=notrunc status=none
    { # bootable, of type Linux, from START on; then three that are empty, and the signature
        printf '\x80\0\0\0\x83\0\0\0'
        little $START
        little $((sectors - START))
        printf '\0%.0s' {1..48}
        printf '\x55\xaa'
    } | dd of="$2" bs=1 seek=446 conv=notrunc status=none
}

# NUMBER as four bytes, the lowest first.
little() {
    local digits
    printf -v digits '%08x' "$1"
    printf '%b' "\x${digits:6:2}\x${digits:4:2}\x${digits:2:2}\x${digits:0:2}"
}

# put FILE [MODE]: its content comes on standard input
put() {
    mkdir -p "${1%/*}"
    cat >"$1"
    chmod "${2:-644}" "$1"
}

main() {
    local program
    [ "$(id -u)" = 0 ] || die "it makes files that are root's, and so must be root; the box itself is for everybody"
    case $SUITE in bookworm | trixie) ;; *) die "the suite is '$SUITE'; expected: bookworm or trixie" ;; esac
    for program in mmdebstrap mke2fs qemu-img tar; do
        type -P "$program" >/dev/null || die "there is no $program; install: mmdebstrap e2fsprogs qemu-utils"
    done
    WORK=$(mktemp -d "$PWD/.box.XXXXXX")
    chmod 755 "$WORK" # for the user that apt downloads as
    trap 'rm -rf --one-file-system "$WORK"' EXIT
    export SUITE CARRY
    mmdebstrap --quiet --mode=root --variant=minbase --format=directory --include="$(IFS=, && echo "${PACKAGES[*]}")" \
        --essential-hook="$SELF essential \"\$1\"" --customize-hook="$SELF customize \"\$1\"" \
        "$SUITE" "$WORK/root" ${MIRROR:+"$MIRROR"}
    image "$WORK/root" "$WORK/disk"
    qemu-img convert -O qcow2 "$WORK/disk" "$WORK/box.img"
    put "$WORK/metadata.json" <<<"{\"provider\": \"libvirt\", \"format\": \"qcow2\", \"virtual_size\": $SIZE}"
    put "$WORK/Vagrantfile" <<<'Vagrant.configure("2") { |config| }'
    tar -C "$WORK" -cf - metadata.json Vagrantfile box.img | gzip -1 >"$SUITE.box"
    echo "$PWD/$SUITE.box"
}

case ${1-} in
    essential | customize) "$@" ;;
    *) main ;;
esac
