-- Whether the watchdog was ever heard. Of those from before, it is taken that it was.
ALTER TABLE beats ADD COLUMN heard INTEGER NOT NULL DEFAULT 1;
