-- The processes that share the database, and who acts in which realm.
CREATE TABLE replicas (
  id   TEXT PRIMARY KEY,
  body BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE realms (
  realm  TEXT PRIMARY KEY,
  holder TEXT    NOT NULL,
  epoch  INTEGER NOT NULL,
  until  INTEGER
) STRICT, WITHOUT ROWID;
-- Small values that all of them share: the key of the console's forms, say.
CREATE TABLE kept (
  name  TEXT PRIMARY KEY,
  secret BLOB NOT NULL
) STRICT, WITHOUT ROWID;
-- What must come only once, until it is too old to come at all.
CREATE TABLE once (
  kind  TEXT    NOT NULL,
  key   TEXT    NOT NULL,
  until INTEGER NOT NULL,
  PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
