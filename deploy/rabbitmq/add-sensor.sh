#!/bin/sh
# Makes a sensor's account, or gives it a new password. Run it once for each sensor.
#
#     add-sensor.sh NAME PASSWORD_FILE
#
# The account's name is the sensor's. It may publish to the exchange under its own routing key, and
# nothing else: read nothing, declare nothing, use no default exchange, speak for no other sensor.
set -eu
# What rabbitmqctl prints while it reads a password, "Password:", is not a question: it goes to /dev/null.
# RabbitMQ 4 reads it only where nothing but the name is given: no --quiet here.

VHOST=smtpfeeds
EXCHANGE=smtpfeeds
NOTHING='^$'

if [ $# -ne 2 ] || [ ! -s "$2" ]; then
    echo "usage: $0 NAME PASSWORD_FILE   (a file with the password on its first line)" >&2
    exit 2
fi
name=$1
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
fi
# First what the account may not do: between these two lines it can do nothing at all.
rabbitmqctl --quiet set_topic_permissions --vhost "$VHOST" "$name" "$EXCHANGE" \
    "^observations\.$name\$" "$NOTHING"
rabbitmqctl --quiet set_permissions --vhost "$VHOST" "$name" "$NOTHING" "^$EXCHANGE\$" "$NOTHING"
