#!/usr/bin/env bash
# Runs the whole suite in a fresh Debian 13, and removes it: for maintainers, as root.
#
#     deploy/setup/test-debian13.sh [FOLDER]     (default: a new folder in /var/tmp)
#
# Twice: with user namespaces, and in a plain chroot, where the kernel refuses them as most
# containers do. As root there, with WHO=user as an ordinary user. Needs debootstrap, git, unshare;
# MIRROR and SUITE choose another source or release, SMTPFEEDS_TEST what is run in place of
# `make demo test`. Host and root share the network.
set -euo pipefail

SUITE=${SUITE:-trixie}
MIRROR=${MIRROR:-$(awk '/^deb /{print $2; exit} /^URIs:/{print $2; exit}' \
    /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null || true)}
PACKAGES=ca-certificates,gcc,git,libc6-dev,make,python3,python3-dev,python3-venv
COMMAND=${SMTPFEEDS_TEST:-make demo test}
WHO=${WHO:-root}

fail() {
    echo "error: $*" >&2
    exit 1
}

check() {
    [ "$(id -u)" -eq 0 ] || fail "this needs root: it makes a root file system and changes into it"
    local program
    for program in debootstrap git unshare chroot; do
        command -v "$program" >/dev/null || fail "$program is missing (Debian packages debootstrap, git)"
    done
    case $WHO in
    root) home=/root as=() ;;
    user) home=/home/tester as=(runuser -u tester --) ;;
    *) fail "WHO is root or user, not $WHO" ;;
    esac
}

# What this host needs to reach its package sources, the new root needs too.
take_over_network() {
    local file
    for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
        [ ! -e "$file" ] || cp --dereference "$file" "$root$file"
    done
    for file in /etc/apt/apt.conf.d /etc/apt/auth.conf.d; do
        [ ! -d "$file" ] || cp --no-clobber "$file"/* "$root$file"/ 2>/dev/null || true
    done
    # These keep packages from being installed whole.
    rm -f "$root"/etc/apt/apt.conf.d/docker-*
    chroot "$root" apt-get update --quiet=2
}

# A copy of what is committed, so that nothing here is changed.
copy_checkout() {
    local checkout
    checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
    git -c safe.directory="$checkout" clone --quiet --no-hardlinks "$checkout" "$root$home/smtpfeeds"
}

# An ordinary user cannot install the programs that tests drive.
add_user() {
    chroot "$root" useradd --create-home --shell /bin/bash tester
    copy_checkout
    chroot "$root" chown -R tester: "$home/smtpfeeds"
    inside none deploy/setup/test-programs.sh </dev/null
}

# In a mount namespace of its own: what is mounted goes with it, however it ends.
inside() {
    local how=$1 code
    export root home
    case $how in
    namespaces)
        # shellcheck disable=SC2016 # expanded inside
        code='set -e; mount --rbind "$root" "$root"; cd "$root"; mkdir -p .before
            for each in proc dev sys; do mount --rbind "/$each" "$each"; done
            pivot_root . .before; umount --lazy /.before; cd "$home/smtpfeeds"; exec "$@"'
        ;;
    none)
        # shellcheck disable=SC2016
        code='set -e; for each in proc dev sys; do mount --rbind "/$each" "$root/$each"; done
            exec chroot "$root" sh -c '\''cd "$home/smtpfeeds"; exec "$@"'\'' sh "$@"'
        ;;
    esac
    unshare --mount --propagation private bash -c "$code" bash env -i HOME="$home" LANG=C.UTF-8 \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        ${PIP_CERT:+PIP_CERT="$PIP_CERT"} ${PIP_INDEX_URL:+PIP_INDEX_URL="$PIP_INDEX_URL"} \
        "${@:2}"
}

remove_root() {
    grep -q " $root/" /proc/mounts && fail "something is still mounted below $root; it stays"
    rm -rf --one-file-system "$root"
}

main() {
    local how status=0
    check
    root=${1:-$(mktemp --directory /var/tmp/smtpfeeds-debian.XXXXXX)}
    # It is removed at the end.
    mkdir -p "$root"
    rmdir "$root" 2>/dev/null || fail "$root is not empty"
    mkdir "$root"
    trap remove_root EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    echo "Making a root of $SUITE in $root ..."
    debootstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$root" ${MIRROR:+"$MIRROR"} \
        >"$root.log" 2>&1 || { tail -n 5 "$root.log" >&2; fail "debootstrap failed"; }
    rm -f "$root.log"
    take_over_network
    if [ "$WHO" = root ]; then copy_checkout; else add_user; fi
    for how in namespaces none; do
        echo "== Debian $(cat "$root/etc/debian_version"), $WHO, user namespaces: $how =="
        inside "$how" "${as[@]}" sh -c "unshare --user true" 2>/dev/null && echo "user namespaces work" ||
            echo "user namespaces are refused"
        if inside "$how" "${as[@]}" sh -c "$COMMAND" </dev/null; then
            echo "== $how: good =="
        else
            echo "== $how: failed ==" >&2
            status=1
        fi
    done
    return "$status"
}

main "$@"
