"""The fleet: sensors' accounts at the broker, their certificates, and how they are.

    authority    a small private certificate authority, and the certificates it issues
    files        files that are whole or not there
    bundle       one file for one sensor's host: settings, secret, unit, install script
    management   RabbitMQ's management API: accounts, rights, limits, connections

An account at the broker is a sensor; its name is the sensor's.
"""
