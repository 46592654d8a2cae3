-- walpost: outbox table, publication and replication slot. Safe to run again.
-- Run it with psql in the database of the outbox, as a role that may create them: it needs CREATE on the schema and
-- on the database, must own the tables, and for the slot it needs REPLICATION.

-- Names in this script are UTF-8; behind a pipe psql would take them for the encoding of the server.
SET client_encoding TO 'UTF8';

BEGIN;

-- Two of these at once would both find nothing and both create.
SELECT pg_advisory_xact_lock({{.Lock}});

-- Services insert their events here, in the transaction that makes them true. A service that inserts needs
-- GRANT INSERT and nothing more. Rows may be deleted at any time: the relay reads the WAL, not the table.
{{- range .Tables}}
{{.Create}};
{{- end}}

-- INSERT alone: updating and deleting rows costs the stream nothing, and a partitioned table appears under its own name.
{{.PublicationBlock}};

COMMIT;

-- After the publication is committed, and not without it: a slot older than its publication skips rows, or cannot be read.
SELECT pg_create_logical_replication_slot({{.SlotArguments}})
WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {{.Slot}})
    AND EXISTS (SELECT FROM pg_publication WHERE pubname = {{.PublicationText}});

-- The relay reads as a role with LOGIN and REPLICATION, which needs no SELECT on any table:
--   ALTER ROLE walpost LOGIN REPLICATION;
