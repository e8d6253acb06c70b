/** A ledger as the first version wrote it, with something in each table. */
import { instanceId, ten } from "./events.ts";

const hour = ten / 3_600_000;
const instance = instanceId(1);

export const firstVersion = `
  PRAGMA application_id = ${0x5741524d};
  PRAGMA user_version = 1;
  -- One per instance, for ever (core/account.ts): about 150 bytes.
  CREATE TABLE accounts (
    instance            TEXT PRIMARY KEY,
    tenant              TEXT NOT NULL,
    started             INTEGER NOT NULL,
    cpu_us              INTEGER NOT NULL,
    memory_byte_seconds INTEGER NOT NULL,
    wall_ms             INTEGER NOT NULL,
    frozen_ms           INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  -- One per hour in which an instance was seen, even if it used nothing. The hour first: new ones go to the end.
  CREATE TABLE postings (
    hour                INTEGER NOT NULL,
    tenant              TEXT NOT NULL,
    instance            TEXT NOT NULL,
    starts              INTEGER NOT NULL,
    cpu_us              INTEGER NOT NULL,
    memory_byte_seconds INTEGER NOT NULL,
    wall_ms             INTEGER NOT NULL,
    frozen_ms           INTEGER NOT NULL,
    PRIMARY KEY (hour, tenant, instance)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX postings_by_tenant ON postings (tenant, hour);
  -- The last record counted of each journal; its id tells whether it is still the same journal.
  CREATE TABLE positions (
    source    TEXT PRIMARY KEY,
    seq       INTEGER NOT NULL,
    record_id TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  -- Bounded, the oldest go first; the counts stay.
  CREATE TABLE quarantine (
    n           INTEGER PRIMARY KEY AUTOINCREMENT,
    record_id   TEXT NOT NULL UNIQUE,
    kind        TEXT NOT NULL,
    reason      TEXT NOT NULL,
    source      TEXT NOT NULL,
    seq         INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    subject     TEXT NOT NULL,
    headers     TEXT NOT NULL,
    data        BLOB NOT NULL
  ) STRICT;
  CREATE TABLE quarantine_counts (kind TEXT PRIMARY KEY, n INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  INSERT INTO accounts VALUES ('${instance}', 'shop', 1, 70, -1, 9, 1);
  INSERT INTO postings VALUES (${hour}, 'shop', '${instance}', 1, 50, 0, 5, 0);
  INSERT INTO postings VALUES (${hour + 1}, 'shop', '${instance}', 0, 20, -1, 4, 1);
  INSERT INTO positions VALUES ('j', 4, 'n1:s:4');
  INSERT INTO quarantine VALUES (1, 'n1:s:3', 'time-past', 'long ago', 'j', 3, ${ten}, 'warren.events.shop.usage', '{}', x'7b7d');
  INSERT INTO quarantine_counts VALUES ('time-past', 1);
`;
