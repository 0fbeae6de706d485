-- What the public is told of an incident.
CREATE TABLE public_incidents (
  n        INTEGER PRIMARY KEY,               -- the order in which they were first put
  incident TEXT    NOT NULL UNIQUE,
  resolved INTEGER,
  body     BLOB    NOT NULL                   -- the whole of it as JSON, its updates too
) STRICT;
CREATE INDEX public_incidents_resolved ON public_incidents (resolved);

-- Messages that are not delivered yet; one that is, or never can be, is deleted.
CREATE TABLE outbox (
  n       INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order of delivery; never given twice
  channel TEXT    NOT NULL,
  key     TEXT    NOT NULL,
  body    BLOB    NOT NULL
) STRICT;
CREATE INDEX outbox_order ON outbox (channel, key);
