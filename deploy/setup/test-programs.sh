#!/usr/bin/env bash
# Installs the programs that the tests use, such as RabbitMQ and SMTP clients.
#
# As root on Debian or Ubuntu it installs missing packages without starting their services. Otherwise
# it names the missing packages and fails.
set -euo pipefail

POLICY=/usr/sbin/policy-rc.d
POLICY_KEPT=/usr/sbin/policy-rc.d.smtpfeeds-kept
POLICY_MARK="smtpfeeds test set-up"

# program:package pairs. Server programs may be outside an ordinary user's PATH. A name with two colons
# is a Perl module, which swaks needs for TLS.
WANTED=(
    rabbitmq-server:rabbitmq-server
    swaks:swaks
    Net::SSLeay:libnet-ssleay-perl
    nmap:nmap
    smtp-source:postfix
    fakeroot:fakeroot
    chromium:chromium
    pgbouncer:pgbouncer
    minisign:minisign
    jq:jq
    cc:build-essential
)

find_program() {
    local program=$1 folder
    if [[ $program == *::* ]]; then
        perl "-M$program" -e 1 2>/dev/null
        return
    fi
    command -v "$program" >/dev/null 2>&1 && return 0
    for folder in /usr/lib/rabbitmq/bin /usr/local/sbin /usr/sbin /sbin; do
        [ -x "$folder/$program" ] && return 0
    done
    return 1
}

missing_packages() {
    local pair
    for pair in "${WANTED[@]}"; do
        find_program "${pair%:*}" || printf '%s\n' "${pair##*:}"
    done
}

# invoke-rc.d asks policy-rc.d whether it may start a service: 101 is "no".
forbid_service_starts() {
    if [ -e "$POLICY" ] && ! grep -qs "$POLICY_MARK" "$POLICY"; then
        mv "$POLICY" "$POLICY_KEPT"
    fi
    printf '#!/bin/sh\n# %s: nothing is started while its packages are installed.\nexit 101\n' \
        "$POLICY_MARK" >"$POLICY"
    chmod 755 "$POLICY"
}

allow_service_starts() {
    if grep -qs "$POLICY_MARK" "$POLICY"; then
        rm -f "$POLICY"
    fi
    if [ -e "$POLICY_KEPT" ]; then
        mv "$POLICY_KEPT" "$POLICY"
    fi
}

apt_install() {
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends \
        -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@"
}

install_packages() {
    local log
    log=$(mktemp)
    trap 'allow_service_starts; rm -f "'"$log"'"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    forbid_service_starts
    # Without this answer the package configures a mail server for this host.
    echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
    # The package lists may be missing (containers) or stale, so fetch them if the first try fails.
    if ! apt_install "$@" >"$log" 2>&1; then
        echo "Fetching the package lists ..."
        apt-get update --quiet=2 >>"$log" 2>&1 || true
        if ! apt_install "$@" >>"$log" 2>&1; then
            tail -n 30 "$log" >&2
            echo "error: could not install: $* (the end of apt-get's output is above)" >&2
            exit 1
        fi
    fi
}

main() {
    local missing
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -eq 0 ] && return 0
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        {
            echo "error: the tests need programs that are missing: ${missing[*]}"
            echo "On Debian or Ubuntu, as root: $0"
            echo "It installs them without starting any service. Elsewhere: install packages of these names."
        } >&2
        exit 1
    fi
    echo "Installing for the tests, without starting services: ${missing[*]} ..."
    install_packages "${missing[@]}"
    mapfile -t missing < <(missing_packages)
    if [ ${#missing[@]} -ne 0 ]; then
        echo "error: still missing after the installation: ${missing[*]}" >&2
        exit 1
    fi
}

main "$@"
