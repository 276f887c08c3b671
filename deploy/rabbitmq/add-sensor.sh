#!/bin/sh
# Creates a sensor's account, or sets a new password. Run it once for each sensor.
#
#     add-sensor.sh NAME PASSWORD_FILE [WORKERS]
#
# The account has the sensor's name. It may only publish to the exchange with its own routing key: it
# cannot read, declare, use the default exchange, or publish for another sensor. It may have as many
# connections and channels as a sensor with so many workers, and not more: 1 for a new account; an
# existing one keeps its limits if no number is given.
set -eu
# rabbitmqctl prints "Password:" while it reads a password from stdin; that goes to /dev/null.
# RabbitMQ 4 reads it only if the name is the only argument, so these commands have no --quiet.

VHOST=smtpfeeds
EXCHANGE=smtpfeeds
NOTHING='^$'

if [ $# -lt 2 ] || [ $# -gt 3 ] || [ ! -s "$2" ]; then
    echo "usage: $0 NAME PASSWORD_FILE [WORKERS]   (a file with the password on its first line)" >&2
    exit 2
fi
name=$1
workers=${3-}
case ${workers:-1} in
    0* | *[!0-9]*)
        echo "error: workers '$workers': use a whole number from 1 on" >&2
        exit 2
        ;;
esac
case $name in
    '' | *[!a-z0-9-]*)
        echo "error: sensor name '$name': use 1 to 63 of a-z, 0-9 and hyphen" >&2
        exit 2
        ;;
    smtpfeeds-aggregator)
        echo "error: '$name' is the aggregator's account" >&2
        exit 2
        ;;
esac
if [ ${#name} -gt 63 ]; then
    echo "error: sensor name '$name' is longer than 63" >&2
    exit 2
fi

if rabbitmqctl --quiet list_users | cut -f1 | grep -qx "$name"; then
    head -n 1 "$2" | rabbitmqctl change_password "$name" >/dev/null
else
    head -n 1 "$2" | rabbitmqctl add_user "$name" >/dev/null
    workers=${workers:-1}
fi
# One connection for each worker, and four for a check, a replay and what the broker has not noticed the
# end of; two channels for each.
if [ -n "$workers" ]; then
    connections=$((workers + 4))
    rabbitmqctl --quiet set_user_limits "$name" \
        "{\"max-connections\": $connections, \"max-channels\": $((connections * 2))}"
fi
# Limit the routing key first. Until the second command, the account has no permission at all.
rabbitmqctl --quiet set_topic_permissions --vhost "$VHOST" "$name" "$EXCHANGE" \
    "^observations\.$name\$" "$NOTHING"
rabbitmqctl --quiet set_permissions --vhost "$VHOST" "$name" "$NOTHING" "^$EXCHANGE\$" "$NOTHING"
