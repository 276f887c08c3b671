#!/bin/sh
# Creates the virtual host `smtpfeeds`, its exchange and the aggregator's account. It may be run again.
#
#     set-up-centre.sh PASSWORD_FILE
#
# The aggregator declares both queues when it starts. It publishes refused messages to
# its second queue through the default exchange, so it needs the right to `amq.default`.
set -eu

VHOST=smtpfeeds
EXCHANGE=smtpfeeds
ACCOUNT=smtpfeeds-aggregator
OWN='^smtpfeeds(\..*)?$'
OWN_AND_DEFAULT='^(smtpfeeds(\..*)?|amq\.default)$'

if [ $# -ne 1 ] || [ ! -s "$1" ]; then
    echo "usage: $0 PASSWORD_FILE   (a file with the account's password on its first line)" >&2
    exit 2
fi

rabbitmqctl --quiet list_vhosts name | grep -qx "$VHOST" || rabbitmqctl --quiet add_vhost "$VHOST"
# The password goes to stdin, because every user of the host can read arguments. rabbitmqctl prints
# "Password:" while it reads. RabbitMQ 4 reads it only if the name is the only argument: no --quiet here.
if rabbitmqctl --quiet list_users | cut -f1 | grep -qx "$ACCOUNT"; then
    head -n 1 "$1" | rabbitmqctl change_password "$ACCOUNT" >/dev/null
else
    head -n 1 "$1" | rabbitmqctl add_user "$ACCOUNT" >/dev/null
fi
rabbitmqctl --quiet set_permissions --vhost "$VHOST" "$ACCOUNT" "$OWN" "$OWN_AND_DEFAULT" "$OWN"

# Sensors' rights name the exchange, so RabbitMQ 4.3 needs it before them. rabbitmqctl runs as
# another user, and versions differ in what they read from stdin: it reads a file of all users.
# An exchange that exists stays as it is.
definitions=$(mktemp)
trap 'rm -f "$definitions"' EXIT
chmod 0644 "$definitions"
cat >"$definitions" <<END
{"exchanges": [{"name": "$EXCHANGE", "vhost": "$VHOST", "type": "topic", "durable": true,
    "auto_delete": false, "internal": false, "arguments": {}}]}
END
rabbitmqctl --quiet import_definitions "$definitions"
