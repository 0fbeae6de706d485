-- What the service counts: who was seen how often.
CREATE TABLE views (
  id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  channel text NOT NULL,
  views   bigint NOT NULL,
  seen    timestamptz NOT NULL DEFAULT now()
);
