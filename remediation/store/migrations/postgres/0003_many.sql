-- What every gate and every page asks for, found without reading the bodies of all: which
-- incidents have a step that runs, or need a person, and which rollouts have a promotion.
-- 1 where it may be so, until the row is next written.
ALTER TABLE incidents ADD COLUMN running smallint NOT NULL DEFAULT 1;
ALTER TABLE incidents ADD COLUMN paging smallint NOT NULL DEFAULT 1;
UPDATE incidents SET running = open;
UPDATE incidents SET paging = 0 WHERE drill = 1 OR n <> (SELECT max(o.n) FROM incidents AS o WHERE o.service = incidents.service AND o.drill = 0);
CREATE INDEX incidents_running ON incidents (n) WHERE running = 1;
CREATE INDEX incidents_paging ON incidents (n) WHERE paging = 1;
ALTER TABLE rollouts ADD COLUMN promoting smallint NOT NULL DEFAULT 1;
CREATE INDEX rollouts_promoting ON rollouts (service) WHERE promoting = 1;
