#!/bin/sh
# The user and /var/lib/backout stay, even after a purge: the audit log is evidence. Remove them by hand.
set -e
if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
