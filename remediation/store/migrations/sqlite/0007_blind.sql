-- Since when Prometheus does not answer; NULL where it does.
ALTER TABLE beats ADD COLUMN away INTEGER;
