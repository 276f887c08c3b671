#!/bin/sh
# Admits two users of this host to the database's roles, without passwords. Run it as PostgreSQL's
# administrator; it may be run again.
#
#     runuser -u postgres -- sh -s OPERATOR PROGRAMS <admit.sh
#
# OPERATOR may connect as any of the three; PROGRAMS, the user that the aggregator runs as, as
# smtpfeeds_ingest and smtpfeeds_publish; everyone under their own name. It adds one line to pg_hba.conf and
# six to pg_ident.conf, and changes no other line.
set -eu

MAP=smtpfeeds_map
if [ $# -ne 2 ]; then
    echo "usage: $0 OPERATOR PROGRAMS   (two users of this host, such as root and smtpfeeds)" >&2
    exit 2
fi

ask() {
    psql --no-psqlrc --quiet --tuples-only --no-align --command="$1" postgres </dev/null
}

# The first rule that fits is the one that counts. The file is whole at any moment.
put_first() {
    if ! grep -qxF -e "$2" "$1"; then
        cp -p "$1" "$1.new"
        { printf '%s\n' "$2" && cat "$1"; } >"$1.new"
        mv "$1.new" "$1"
    fi
}

rules=$(ask 'SHOW hba_file')
names=$(ask 'SHOW ident_file')
put_first "$names" "$MAP /^(.*)\$ \\1"
for role in smtpfeeds_publish smtpfeeds_ingest; do
    put_first "$names" "$MAP $2 $role"
    put_first "$names" "$MAP $1 $role"
done
put_first "$names" "$MAP $1 smtpfeeds_owner"
put_first "$rules" "local smtpfeeds all peer map=$MAP"
wrong=$(ask 'SELECT error FROM pg_hba_file_rules WHERE error IS NOT NULL
    UNION ALL SELECT error FROM pg_ident_file_mappings WHERE error IS NOT NULL')
if [ -n "$wrong" ]; then
    echo "error: PostgreSQL does not understand $rules or $names: $wrong" >&2
    exit 1
fi
ask 'SELECT pg_reload_conf()' >/dev/null
