-- What the service keeps of each channel that it watches.
CREATE TABLE channels (
  id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name  text NOT NULL UNIQUE
);

CREATE TABLE posts (
  id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  channel  bigint NOT NULL REFERENCES channels (id),
  body     text NOT NULL,
  seen     timestamptz NOT NULL DEFAULT now()
);
