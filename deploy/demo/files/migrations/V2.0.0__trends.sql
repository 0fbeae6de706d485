-- Phase 2: a running total for each channel, kept up by every write. Its mistake: an integer ends at 2147483647, and
-- when a channel's total gets there, no view of that channel can be written any more, whichever version writes it.
CREATE TABLE trend_totals (
  channel text PRIMARY KEY,
  total   integer NOT NULL
);

INSERT INTO trend_totals (channel, total) SELECT channel, sum(views) FROM views GROUP BY channel;

CREATE FUNCTION add_to_trend() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO trend_totals (channel, total) VALUES (NEW.channel, NEW.views)
    ON CONFLICT (channel) DO UPDATE SET total = trend_totals.total + NEW.views;
  RETURN NULL;
END
$$;

CREATE TRIGGER views_trend AFTER INSERT ON views FOR EACH ROW EXECUTE FUNCTION add_to_trend();
