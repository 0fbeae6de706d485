#!/bin/sh
# backout is not started here: the playbook is an example until somebody has changed it. One that runs is restarted.
set -e
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  systemctl try-restart backout.service
fi
