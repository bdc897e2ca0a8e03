#!/usr/bin/env bash
# Makes a fresh Debian 12 or 13 able to run the demo or the tests. Does nothing, quickly, where that is already so.
#
#     tests/rig/setup.sh demo      what the demo runs: a few small Debian packages, .venv, test kernel, Consul, BIRD
#     tests/rig/setup.sh           what the tests run besides: everything
#     tests/rig/setup.sh python    only .venv, for what needs no kernel (make check)
#     tests/rig/setup.sh deb       .venv with what a node needs and no more, for building its package
#
# As root, or with a sudo that asks no password, it installs what is missing; otherwise it names the command to run. It
# installs no service: programs of packages that bring one are unpacked into the cache, which is .cache (or
# ANYCASTLB_CACHE), as is everything else that is downloaded.
set -euo pipefail
cd "$(dirname "$0")/../.."

# What must be found, and the package that brings it.
DEMO_PROGRAMS=(ip:iproute2 ping:iputils-ping sysctl:procps modprobe:kmod curl:curl flock:util-linux unshare:util-linux)
TEST_PROGRAMS=(
    chromium:chromium groff:groff-base mmdebstrap:mmdebstrap pipx:pipx shellcheck:shellcheck systemd-analyze:systemd
    vagrant:vagrant
)
# What is unpacked where it is not installed; tests/rig/programs.py knows the packages.
DEMO_SERVICES=(bird ipvsadm)
TEST_SERVICES=(keepalived knotd mkfs.ext4 named nginx nsd rsyslogd vtysh)

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
    for pair in "${programs[@]}"; do
        PATH=$PATH:/usr/sbin:/sbin type -P "${pair%%:*}" >/dev/null || echo "${pair#*:}"
    done
    [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
    [ -x .venv/bin/python ] || python venv >/dev/null || echo python3-venv
}

# Runs as root.
install_packages() {
    export DEBIAN_FRONTEND=noninteractive
    # One broken third-party source must not stop us; a real failure shows in the installation. A machine that has
    # just booted is often busy updating itself, so wait for its locks.
    apt-get -qq update || { sleep 5 && apt-get -qq update; } || true
    apt-get -qq -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 --no-install-recommends install "$@" >/dev/null
}

ensure_packages() {
    local missing
    missing=$(missing_packages | sort -u | tr '\n' ' ')
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
    missing=$(missing_packages | sort -u | tr '\n' ' ')
    [ -z "$missing" ] || die "still missing after the installation: $missing(Python must be 3.11 or later)"
}

# $1: the extra of pyproject.toml whose packages are needed. All are in the extra "test".
ensure_venv() {
    local stamp
    if ! .venv/bin/python -c '' 2>/dev/null; then
        say "making .venv with $(python venv)"
        "$(python venv)" -m venv --clear .venv
    fi
    stamp=$(sha256sum pyproject.toml)
    if grep -qsxF "$stamp" .venv/setup.stamp ".venv/setup.$1.stamp"; then return; fi
    say "installing Python packages into .venv"
    .venv/bin/python -m pip --quiet --disable-pip-version-check install --editable ".[$1]" </dev/null
    case $1 in
    test) echo "$stamp" >.venv/setup.stamp ;;
    *) echo "$stamp" >".venv/setup.$1.stamp" ;;
    esac
}

# Side by side, for most of it is waiting for mirrors. None of it needs .venv.
fetch_everything() {
    local python job jobs=()
    python=$(python)
    "$python" tests/rig/testkernel.py fetch & jobs+=($!)
    "$python" tests/rig/programs.py "${services[@]}" & jobs+=($!)
    optional Consul "$python" tests/rig/consul.py & jobs+=($!)
    if [ "$what" = demo ]; then
        optional HAProxy "$python" tests/rig/haproxy.py own & jobs+=($!)
    else
        optional Prometheus "$python" tests/rig/prometheus.py & jobs+=($!)
        optional HAProxy "$python" tests/rig/haproxy.py & jobs+=($!)
        optional "Debian 13's kernel" "$python" tests/rig/virtual.py debian-13 & jobs+=($!)
    fi
    ensure_venv "$extra"
    for job in "${jobs[@]}"; do
        wait "$job" || die "what is missing is said above; the rest is kept, so run this again"
    done
}

optional() {
    "${@:2}" >/dev/null || say "the tests that need $1 will be skipped, or fail if required"
}

what=${1:-all}
programs=() services=() extra=test
case $what in
all) programs=("${DEMO_PROGRAMS[@]}" "${TEST_PROGRAMS[@]}") services=("${DEMO_SERVICES[@]}" "${TEST_SERVICES[@]}") ;;
demo) programs=("${DEMO_PROGRAMS[@]}") services=("${DEMO_SERVICES[@]}") extra=bgp ;;
python) programs=(flock:util-linux) ;;
deb) programs=(flock:util-linux) extra=bgp ;;
*) die "unknown part '$what'; expected: demo, python, deb, or nothing for everything" ;;
esac
ensure_packages
mkdir -p .cache
exec 9>.cache/setup.lock # two makes at a time
flock 9
case $what in python | deb) ensure_venv "$extra" ;; *) fetch_everything ;; esac
