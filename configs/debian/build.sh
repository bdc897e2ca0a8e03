#!/usr/bin/env bash
# Builds dist/anycastlb_VERSION_ARCHITECTURE.deb: a virtual environment with all its libraries, and the units.
#
#     make deb        or        configs/debian/build.sh [PYTHON]
#
# It runs on the Debian it has been built on, as its libraries are built for that Python (3.11 on Debian 12, 3.13 on
# 13). Needs dpkg-deb and a Python with pip; the libraries come from where pip gets them.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=${1:-.venv/bin/python}
version=$("$python" -c 'import anycastlb; print(anycastlb.__version__)')
architecture=$(dpkg --print-architecture)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
home=$root/usr/lib/anycastlb

# ------------------------------------------------------------ the virtual environment

rm -rf build # what an earlier build left there would come along

/usr/bin/python3 -m venv --without-pip "$home"
"$python" -m pip --python "$home/bin/python" --disable-pip-version-check --quiet \
    install --no-compile --no-warn-script-location ".[bgp,grpc]"
# It was made here and is to live there.
grep -rIlZ --exclude-dir=lib -e "$root" "$home" | xargs -0 sed -i "s,$root,,g"
mkdir -p "$root/usr/share/man/man1" "$root/usr/share/doc/anycastlb"
mv "$home/share/anycastlb" "$root/usr/share/anycastlb"
find "$home/bin" -type f,l ! -name anycastlb ! -name 'anycastlb-bridge' ! -name exabgp ! -name 'python*' -delete
rm -rf "$home/share" "$home/etc" "$home/include" "$home"/lib/python3*/site-packages/*.dist-info/direct_url.json
find "$home" -name __pycache__ -type d -prune -exec rm -rf {} +
find "$home" -name '*.so' -exec chmod 644 {} +

# ------------------------------------------------------------ around it

mkdir -p "$root/usr/bin"
for program in anycastlb anycastlb-bridge exabgp; do
    ln -s ../lib/anycastlb/bin/$program "$root/usr/bin/$program"
done
share=$root/usr/share/anycastlb
mkdir -p "$root/usr/lib/systemd"
mv "$share/systemd" "$root/usr/lib/systemd/system"
for part in sysusers.d tmpfiles.d sysctl.d modules-load.d modprobe.d; do
    mkdir -p "$root/usr/lib/$part"
    mv "$share/$part"/* "$root/usr/lib/$part/"
    rmdir "$share/$part"
done
install -D -m 644 configs/debian/node.toml "$root/etc/anycastlb/node.toml"
for page in docs/man/*.1; do
    gzip -9nc "$page" >"$root/usr/share/man/man1/$(basename "$page").gz"
done
gzip -9nc CHANGELOG.md >"$root/usr/share/doc/anycastlb/CHANGELOG.md.gz"
{ echo "Copyright 2026, the authors of anycastlb. License: Apache-2.0, as in /usr/share/common-licenses/Apache-2.0."
  echo "The libraries under /usr/lib/anycastlb come with their own, each in its .dist-info."
} >"$root/usr/share/doc/anycastlb/copyright"
cp docs/INSTALL.md "$root/usr/share/doc/anycastlb/"

# ------------------------------------------------------------ the package

mkdir "$root/DEBIAN"
minor=$(/usr/bin/python3 -c 'import sys; print(sys.version_info.minor)')
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@SIZE@/$(du -sk "$root" | cut -f 1)/" \
    -e "s/@PYTHON@/3.$minor/" -e "s/@NEXT@/3.$((minor + 1))/" configs/debian/control >"$root/DEBIAN/control"
echo /etc/anycastlb/node.toml >"$root/DEBIAN/conffiles"
install -m 755 configs/debian/{postinst,prerm,postrm} "$root/DEBIAN/"
chmod -R u=rwX,go=rX "$root"
folder=${DEB_FOLDER:-dist}
mkdir -p "$folder"
dpkg-deb --root-owner-group -Zxz -z1 --build "$root" "$folder/anycastlb_${version}_$architecture.deb"
