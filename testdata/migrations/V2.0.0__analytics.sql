-- Phase 2, advanced analytics: forecasts and recommendations, and how a post is meant.
CREATE TABLE forecasts (
  channel  bigint NOT NULL REFERENCES channels (id),
  day      date NOT NULL,
  views    bigint NOT NULL,
  PRIMARY KEY (channel, day)
);

CREATE TABLE recommendations (
  id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  channel  bigint NOT NULL REFERENCES channels (id),
  text     text NOT NULL
);

ALTER TABLE posts ADD COLUMN sentiment text;

CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.sentiment := CASE WHEN NEW.body LIKE '%;-)%' THEN 'good' ELSE 'none' END;
  RETURN NEW;
END
$$;

CREATE TRIGGER posts_judge BEFORE INSERT ON posts FOR EACH ROW EXECUTE FUNCTION judge();
