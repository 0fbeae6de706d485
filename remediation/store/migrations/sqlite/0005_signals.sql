-- The signals that are raised; one that is cleared is deleted.
CREATE TABLE signals (
  service TEXT NOT NULL,
  name    TEXT NOT NULL,
  body    BLOB NOT NULL,
  PRIMARY KEY (service, name)
) STRICT, WITHOUT ROWID;
