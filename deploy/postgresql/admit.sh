#!/bin/sh
# Admits two users of this host to the database's roles, without passwords. Run it as PostgreSQL's
# administrator; it may be run again.
#
#     runuser -u postgres -- sh -s OPERATOR PROGRAMS <admit.sh
#
# OPERATOR may connect as any of the three; PROGRAMS, the user that the aggregator runs as, as
# smtpfeeds_ingest and smtpfeeds_publish; everyone under their own name. It adds one line to pg_hba.conf and
# six to pg_ident.conf, and changes no other line. With a line in pg_hba.conf that it does not understand,
# PostgreSQL does not start: after an error or a signal both files are as before.
set -eu

MAP=smtpfeeds_map
if [ $# -ne 2 ]; then
    echo "usage: $0 OPERATOR PROGRAMS   (two users of this host, such as root and smtpfeeds)" >&2
    exit 2
fi

ask() {
    psql --no-psqlrc --quiet --tuples-only --no-align --command="$1" postgres </dev/null
}

# PostgreSQL's errors in both files, as they are now.
errors() {
    ask 'SELECT error FROM pg_hba_file_rules WHERE error IS NOT NULL
        UNION ALL SELECT error FROM pg_ident_file_mappings WHERE error IS NOT NULL'
}

put_back() {
    mv "$rules.before" "$rules"
    mv "$names.before" "$names"
    rm -f "$rules.new" "$names.new"
}

# PostgreSQL applies the first rule that matches. The file is complete at any moment.
put_first() {
    if ! grep -qxF -e "$2" "$1"; then
        cp -p "$1" "$1.new"
        { printf '%s\n' "$2" && cat "$1"; } >"$1.new"
        mv "$1.new" "$1"
    fi
}

# The view of pg_ident.conf's errors is new in PostgreSQL 15.
version=$(ask 'SHOW server_version')
if [ "${version%%[!0-9]*}" -lt 15 ]; then
    echo "error: this needs PostgreSQL 15 or later; the server is $version. Nothing is changed" >&2
    exit 1
fi
rules=$(ask 'SHOW hba_file')
names=$(ask 'SHOW ident_file')
wrong=$(errors)
if [ -n "$wrong" ]; then
    echo "error: PostgreSQL does not understand $rules or $names: $wrong" >&2
    echo "Nothing is changed; correct the file and run this again" >&2
    exit 1
fi
cp -p "$rules" "$rules.before"
cp -p "$names" "$names.before"
trap put_back EXIT
trap 'exit 1' HUP INT TERM
put_first "$names" "$MAP /^(.*)\$ \\1"
for role in smtpfeeds_publish smtpfeeds_ingest; do
    put_first "$names" "$MAP $2 $role"
    put_first "$names" "$MAP $1 $role"
done
put_first "$names" "$MAP $1 smtpfeeds_owner"
put_first "$rules" "local smtpfeeds all peer map=$MAP"
wrong=$(errors)
if [ -n "$wrong" ]; then
    echo "error: PostgreSQL does not understand the new lines: $wrong" >&2
    echo "$rules and $names are as before" >&2
    exit 1
fi
ask 'SELECT pg_reload_conf()' >/dev/null
trap - EXIT HUP INT TERM
rm "$rules.before" "$names.before"
