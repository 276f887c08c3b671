#!/usr/bin/env bash
# For maintainers, as root: runs all tests in a fresh Debian 13, and removes it.
#
#     deploy/setup/test-debian13.sh [FOLDER]     (default: a new folder in /var/tmp)
#
# It runs them twice: with user namespaces, and in a plain chroot, where the kernel refuses them as in
# most containers. The tests run as root, with WHO=user as an ordinary user. The script needs
# debootstrap, git and unshare. MIRROR and SUITE choose another source or release, SMTPFEEDS_TEST
# another command than `make demo test`. Host and Debian share the network.
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
    [ "$(id -u)" -eq 0 ] || fail "this needs root, to create a root file system and change into it"
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

# Copies this host's settings to reach its package sources.
take_over_network() {
    local file
    for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
        [ ! -e "$file" ] || cp --dereference "$file" "$root$file"
    done
    for file in /etc/apt/apt.conf.d /etc/apt/auth.conf.d; do
        [ ! -d "$file" ] || cp --no-clobber "$file"/* "$root$file"/ 2>/dev/null || true
    done
    # These would leave out parts of packages.
    rm -f "$root"/etc/apt/apt.conf.d/docker-*
    chroot "$root" apt-get update --quiet=2
}

# Clones the committed state, so that the tests do not change this checkout.
copy_checkout() {
    local checkout
    checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
    git -c safe.directory="$checkout" clone --quiet --no-hardlinks "$checkout" "$root$home/smtpfeeds"
}

# Root installs the programs that tests use, because an ordinary user cannot.
add_user() {
    chroot "$root" useradd --create-home --shell /bin/bash tester
    copy_checkout
    chroot "$root" chown -R tester: "$home/smtpfeeds"
    inside none deploy/setup/test-programs.sh </dev/null
}

# Runs a command inside, in its own mount namespace, so that its mounts always end with it.
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
    # It must be empty, because it is removed at the end.
    mkdir -p "$root"
    rmdir "$root" 2>/dev/null || fail "$root is not empty"
    mkdir "$root"
    trap remove_root EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    echo "Creating a root file system of $SUITE in $root ..."
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
