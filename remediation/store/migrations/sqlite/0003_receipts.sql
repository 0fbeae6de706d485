-- What a channel keeps of what it told, so that it goes on there: a message's address in a chat, say.
CREATE TABLE receipts (
  channel TEXT NOT NULL,
  key     TEXT NOT NULL,
  value   TEXT NOT NULL,
  PRIMARY KEY (channel, key)
) STRICT, WITHOUT ROWID;
