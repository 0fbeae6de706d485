-- How each plan of a service went when it was last rehearsed.
CREATE TABLE rehearsals (
  service TEXT NOT NULL,
  plan    TEXT NOT NULL,
  body    BLOB NOT NULL,
  PRIMARY KEY (service, plan)
) STRICT, WITHOUT ROWID;
