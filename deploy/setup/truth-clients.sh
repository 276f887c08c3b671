#!/usr/bin/env bash
# Fetches real SMTP clients for `make truth` as Debian packages and unpacks them into a folder.
# It installs and starts nothing, so packages that conflict can be unpacked together.
#
# usage: truth-clients.sh FOLDER
set -euo pipefail

FOLDER=${1:?usage: truth-clients.sh FOLDER}
PACKAGES=(hydra msmtp s-nail esmtp ssmtp nullmailer exim4-daemon-light libnss-wrapper)

command -v apt-get >/dev/null || {
    echo "error: the clients are Debian packages, and apt-get is missing" >&2
    exit 1
}
[ -e "$FOLDER/complete" ] && exit 0
rm -rf "$FOLDER"
mkdir -p "$FOLDER/packages" "$FOLDER/root"

# Names the packages, and their dependencies that are not installed.
wanted() {
    local package
    for package in "${PACKAGES[@]}"; do
        echo "$package"
        apt-get install --simulate --no-install-recommends "$package" 2>/dev/null |
            awk '/^Inst / { print $2 }'
    done | sort -u
}

echo "Fetching SMTP clients (about 40 MB) ..."
if ! wanted >"$FOLDER/wanted" || ! (cd "$FOLDER/packages" && xargs apt-get download --quiet=2 <../wanted) 2>"$FOLDER/log"; then
    cat "$FOLDER/log" >&2
    echo "error: the packages could not be fetched; run 'apt-get update' as root, and try again" >&2
    exit 1
fi
for package in "$FOLDER"/packages/*.deb; do
    dpkg --extract "$package" "$FOLDER/root"
done
rm -rf "$FOLDER/packages"
# A program that changes its user ignores LD_LIBRARY_PATH.
find "$FOLDER/root" -type f -perm /6000 -exec chmod ug-s {} +
touch "$FOLDER/complete"
