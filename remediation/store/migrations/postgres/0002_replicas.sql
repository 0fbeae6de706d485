-- The processes that share the database, and who acts in which realm: times are Unix
-- nanoseconds by the database's clock. The table leases stays that of a process that has
-- the database for itself.
CREATE TABLE replicas (
  id   text  COLLATE "C" PRIMARY KEY,
  body bytea NOT NULL
);
CREATE TABLE realms (
  realm  text   COLLATE "C" PRIMARY KEY,
  holder text   NOT NULL,
  epoch  bigint NOT NULL,
  until  bigint
);
-- Small values that all of them share: the key of the console's forms, say.
CREATE TABLE kept (
  name  text  COLLATE "C" PRIMARY KEY,
  secret bytea NOT NULL
);
-- What must come only once, until it is too old to come at all.
CREATE TABLE once (
  kind  text   COLLATE "C",
  key   text   COLLATE "C",
  until bigint NOT NULL,
  PRIMARY KEY (kind, key)
);
