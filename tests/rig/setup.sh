#!/usr/bin/env bash
# Makes a fresh Debian 12 or 13 able to run the tests and the demo. Does nothing, quickly, where that is already so.
#
#     tests/rig/setup.sh           everything: Debian packages, .venv, the test kernel, Consul, Prometheus
#     tests/rig/setup.sh python    only .venv, for what needs no kernel (make check)
#
# As root, or with a sudo that asks no password, it installs what is missing; otherwise it names the command to run. It
# leaves no service running and enables none. Downloads go to .cache (or ANYCASTLB_CACHE).
set -euo pipefail
cd "$(dirname "$0")/../.."

# What must be found, and the package that brings it.
PROGRAMS=(
    ip:iproute2 ping:iputils-ping sysctl:procps modprobe:kmod ipvsadm:ipvsadm bird:bird2 curl:curl
    flock:util-linux unshare:util-linux nginx:nginx nsd:nsd knotd:knot rsyslogd:rsyslog chromium:chromium groff:groff-base
    vtysh:frr shellcheck:shellcheck vagrant:vagrant
    mmdebstrap:mmdebstrap pipx:pipx systemd-analyze:systemd
)

say() { echo "setup: $*" >&2; }
die() { say "$@"; exit 1; }

# The first python on PATH that the project can use. $1 = venv: and that can make a virtual environment.
python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11)); ' 2>/dev/null &&
            { [ "${1-}" != venv ] || "$name" -c 'import venv, ensurepip' 2>/dev/null; }; then
            command -v "$name"
            return
        fi
    done
    return 1
}

missing_packages() {
    local pair
    if [ "$1" = all ]; then
        for pair in "${PROGRAMS[@]}"; do
            PATH=$PATH:/usr/sbin:/sbin type -P "${pair%%:*}" >/dev/null || echo "${pair#*:}"
        done
    fi
    [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
    [ -x .venv/bin/python ] || python venv >/dev/null || echo python3-venv
}

# Runs as root. A package that brings a service must neither start it now nor at the next boot: the tests start their
# own. A policy-rc.d that is already there is the administrator's, and is left alone.
install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        trap "rm -f $policy" EXIT
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod 755 $policy
    fi
    # One broken third-party source must not stop us; a real failure shows in the installation. A machine that has
    # just booted is often busy updating itself, so wait for its locks.
    apt-get -qq update || { sleep 5 && apt-get -qq update; } || true
    apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 --no-install-recommends install "$@" >/dev/null
    local service
    for service in bird ipvsadm nsd knot rsyslog nginx frr vagrant; do
        case " $* " in *" $service"*) ;; *) continue ;; esac
        [ $service != vagrant ] || service=rsync # which vagrant depends on
        { systemctl disable $service.service; update-rc.d $service disable; } >/dev/null 2>&1 || true
    done
}

ensure_packages() {
    local missing
    missing=$(missing_packages "$1" | sort -u | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    say "installing $missing"
    command -v apt-get >/dev/null || die "there is no apt-get here; install these by hand: $missing"
    # shellcheck disable=SC2086
    if [ "$(id -u)" = 0 ]; then
        (install_packages $missing) </dev/null >&2
    elif sudo -n true 2>/dev/null; then
        sudo -n bash -c "set -euo pipefail; $(declare -f install_packages); install_packages $missing" </dev/null >&2
    else
        die "packages are missing and you are not root; run: sudo apt-get install --no-install-recommends $missing"
    fi
    missing=$(missing_packages "$1" | sort -u | tr '\n' ' ')
    [ -z "$missing" ] || die "still missing after the installation: $missing(Python must be 3.11 or later)"
}

ensure_venv() {
    local stamp
    if ! .venv/bin/python -c '' 2>/dev/null; then
        say "making .venv with $(python venv)"
        "$(python venv)" -m venv --clear .venv
    fi
    stamp=$(sha256sum pyproject.toml)
    [ "$(cat .venv/setup.stamp 2>/dev/null)" != "$stamp" ] || return 0
    say "installing Python packages into .venv"
    .venv/bin/python -m pip --quiet --disable-pip-version-check install --editable '.[test]' </dev/null
    echo "$stamp" >.venv/setup.stamp
}

what=${1:-all}
case $what in all | python) ;; *) die "unknown part '$what'; expected: python, or nothing for everything" ;; esac
ensure_packages "$what"
mkdir -p .cache
exec 9>.cache/setup.lock # two makes at a time
flock 9
ensure_venv
if [ "$what" = all ]; then
    .venv/bin/python tests/rig/testkernel.py fetch
    .venv/bin/python tests/rig/consul.py >/dev/null || say "the tests that need Consul will be skipped, or fail if required"
    .venv/bin/python tests/rig/prometheus.py >/dev/null || say "the tests that need Prometheus will be skipped, or fail if required"
fi
