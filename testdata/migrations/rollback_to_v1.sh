#!/bin/sh
# The rollback of rollout-playbook.md as a command: what schema_rollback runs with command: [./rollback_to_v1.sh]. The
# database's address and the timeouts come in libpq's own variables. All is done, or nothing.
set -eu
exec psql --no-psqlrc --no-password --set=ON_ERROR_STOP=1 --single-transaction \
  --file=U2.0.0__rollback_analytics.sql \
  --command="INSERT INTO flyway_schema_history (installed_rank, version, description, type, script, installed_by, execution_time, success)
    SELECT max(installed_rank) + 1, '2.0.0', 'rollback analytics', 'UNDO_SQL', 'U2.0.0__rollback_analytics.sql', current_user, 0, true
    FROM flyway_schema_history"
