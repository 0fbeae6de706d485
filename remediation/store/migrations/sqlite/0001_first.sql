-- Times are Unix nanoseconds in UTC; NULL stands for Go's zero time.

CREATE TABLE incidents (
  n       INTEGER PRIMARY KEY AUTOINCREMENT, -- of "inc-N"; never given twice
  service TEXT    NOT NULL,
  drill   INTEGER NOT NULL,
  open    INTEGER NOT NULL,
  wake    INTEGER,
  version INTEGER NOT NULL,
  body    BLOB    NOT NULL                   -- the whole incident as JSON; the columns are for finding it
) STRICT;
CREATE UNIQUE INDEX incidents_open ON incidents (service, drill) WHERE open = 1;
CREATE INDEX incidents_service ON incidents (service, drill);
CREATE INDEX incidents_wake ON incidents (wake) WHERE wake IS NOT NULL;

CREATE TABLE alerts (
  n           INTEGER PRIMARY KEY,           -- the order in which they were first put
  fingerprint TEXT    NOT NULL UNIQUE,
  incident    TEXT    NOT NULL,
  service     TEXT    NOT NULL,
  trigger     TEXT    NOT NULL,
  active      INTEGER NOT NULL,
  last_seen   INTEGER
) STRICT;
CREATE INDEX alerts_incident ON alerts (incident, last_seen);

-- How many alerts of an incident are active, kept by PutAlert: an incident may
-- have 300,000, and counting them would take each poll too long.
CREATE TABLE alert_totals (
  incident TEXT PRIMARY KEY,
  active   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Append-only. Entry holds the canonical bytes that hash is the sum of; kind,
-- service and incident repeat what stands in them, for finding it.
CREATE TABLE audit (
  seq      INTEGER PRIMARY KEY,
  kind     TEXT NOT NULL,
  service  TEXT NOT NULL,
  incident TEXT NOT NULL,
  hash     TEXT NOT NULL,
  entry    BLOB NOT NULL
) STRICT;
CREATE INDEX audit_kind ON audit (kind);
CREATE INDEX audit_service ON audit (service) WHERE service <> '';
CREATE INDEX audit_incident ON audit (incident) WHERE incident <> '';

CREATE TABLE effects (
  n        INTEGER PRIMARY KEY,
  incident TEXT NOT NULL,
  step     TEXT NOT NULL,
  time     INTEGER,
  service  TEXT NOT NULL,
  action   TEXT NOT NULL,
  target   TEXT NOT NULL,
  outcome  TEXT NOT NULL,
  UNIQUE (incident, step)
) STRICT;
CREATE INDEX effects_time ON effects (time);
CREATE INDEX effects_service ON effects (service, time);

CREATE TABLE freezes (
  service TEXT NOT NULL,
  scope   TEXT NOT NULL,
  body    BLOB NOT NULL,
  PRIMARY KEY (service, scope)
) STRICT, WITHOUT ROWID;

CREATE TABLE rollouts (
  service TEXT PRIMARY KEY,
  body    BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE beats (
  service TEXT PRIMARY KEY,
  last    INTEGER,
  lost    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE playbooks (
  hash   TEXT PRIMARY KEY,
  source BLOB NOT NULL
) STRICT, WITHOUT ROWID;
