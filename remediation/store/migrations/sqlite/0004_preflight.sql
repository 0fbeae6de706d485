-- The last preflight of a service, and what humans signed for.
CREATE TABLE preflights (
  service TEXT PRIMARY KEY,
  body    BLOB NOT NULL
) STRICT, WITHOUT ROWID;
