package decoder

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/walpost/walpost/internal/pgserver"
)

// lastMessage is the prefix of the logical message that ends the workload.
const lastMessage = "end of workload"

// schema is what the workload needs. Publication ins is made as an outbox
// needs it; publication everything also sends updates, deletes and truncates.
var schema = []string{
	`CREATE TABLE outbox (id uuid PRIMARY KEY, aggregatetype text NOT NULL, aggregateid text NOT NULL, type text,
		payload jsonb, headers jsonb, created_at timestamptz NOT NULL DEFAULT clock_timestamp())`,
	`CREATE TABLE outbox_bytes (payload bytea, aggregateid int, aggregatetype varchar(20), id bigint PRIMARY KEY)`,
	`CREATE TYPE kind AS ENUM ('order', 'invoice')`,
	`CREATE TABLE outbox_enum (id int PRIMARY KEY, aggregatetype kind, aggregateid name, payload json)`,
	`CREATE TABLE outbox_part (id smallint, aggregatetype char(5), aggregateid text, type bool, payload text)
		PARTITION BY LIST (aggregatetype)`,
	`CREATE TABLE part_one (payload text, type bool, aggregateid text, aggregatetype char(5), id smallint)`,
	`ALTER TABLE outbox_part ATTACH PARTITION part_one FOR VALUES IN ('one')`,
	`CREATE TABLE orders (id int PRIMARY KEY, state text, note text)`,
	`ALTER TABLE orders ALTER note SET STORAGE EXTERNAL`,
	`CREATE TABLE fully (id int, state text)`,
	`ALTER TABLE fully REPLICA IDENTITY FULL`,
	`CREATE TABLE unpublished (id int)`,
	`CREATE PUBLICATION ins FOR TABLE outbox, outbox_enum, outbox_part
		WITH (publish = 'insert', publish_via_partition_root = true)`,
	`CREATE PUBLICATION everything FOR TABLE outbox_bytes, orders, fully`,
	`SELECT pg_replication_origin_create('elsewhere')`,
}

// workload is a list of transactions.
var workload = []string{
	`INSERT INTO outbox VALUES ('00000000-0000-4000-8000-000000000001', 'order', 'o-1', 'created', '{"n": 1}')`,
	`INSERT INTO outbox VALUES ('00000000-0000-4000-8000-000000000002', 'order', 'o-1', NULL, NULL)`,
	`INSERT INTO outbox VALUES ('00000000-0000-4000-8000-000000000003', 'order', 'o-2', '', '{"b":1,"a":[ 1.50, null ]}',
		'{"traceparent":"00-4bf9-00","x":"y"}')`,
	`INSERT INTO outbox VALUES ('00000000-0000-4000-8000-000000000004', 'Bestellung', 'schlüssel-✓-𝄞', 'größe', '{"k":"日本語"}')`,
	`BEGIN; INSERT INTO outbox VALUES ('00000000-0000-4000-8000-000000000005', 'order', 'kept', 'a', '1');
		SAVEPOINT s; INSERT INTO outbox VALUES ('00000000-0000-4000-8000-0000000000ff', 'order', 'gone', 'b', '2');
		ROLLBACK TO s; INSERT INTO outbox VALUES ('00000000-0000-4000-8000-000000000006', 'order', 'kept', 'c', '3'); COMMIT`,
	`BEGIN; INSERT INTO outbox VALUES ('00000000-0000-4000-8000-0000000000fe', 'order', 'gone', 'a', '1'); ROLLBACK`,
	`BEGIN; INSERT INTO orders VALUES (1, 'new', repeat('x', 3000));
		INSERT INTO outbox VALUES ('00000000-0000-4000-8000-000000000007', 'order', 'mixed', 'at index 1', '{}');
		UPDATE orders SET state = 'paid'; UPDATE orders SET id = 2;
		INSERT INTO fully VALUES (1, NULL); UPDATE fully SET state = 'x';
		INSERT INTO outbox_bytes VALUES ('\x00ff5c27', -7, 'raw', 9223372036854775807);
		DELETE FROM fully; DELETE FROM orders; UPDATE outbox_bytes SET payload = NULL;
		INSERT INTO outbox VALUES ('00000000-0000-4000-8000-000000000008', 'order', 'mixed', 'at index 10', '{}'); COMMIT`,
	`INSERT INTO outbox_bytes VALUES ('', 0, '', -1)`,
	`BEGIN; TRUNCATE orders, fully CASCADE; DELETE FROM outbox_bytes; COMMIT`,
	`BEGIN; INSERT INTO outbox VALUES ('00000000-0000-4000-8000-000000000009', 'order', 'ddl', 'before', '{}', '{"h":"1"}');
		ALTER TABLE outbox DROP COLUMN type, DROP COLUMN headers, ADD COLUMN note text, ADD COLUMN headers jsonb, ADD COLUMN type text;
		INSERT INTO outbox VALUES ('00000000-0000-4000-8000-00000000000a', 'order', 'ddl', '{}', now(), 'a note', '{"h":"2"}', 'after');
		COMMIT`,
	`SELECT pg_logical_emit_message(false, 'at once', 'x')`,
	`BEGIN; INSERT INTO outbox_bytes VALUES ('\xdeadbeef', 2, 'raw', 3);
		SELECT pg_logical_emit_message(true, 'in order', ''); INSERT INTO outbox_bytes VALUES (NULL, 2, 'raw', 4); COMMIT`,
	`INSERT INTO outbox_enum VALUES (-5, 'invoice', 'i-1', '{"a":1,  "a":2, "z":"\u0000"}')`,
	`INSERT INTO outbox_part VALUES (12, 'one', 'p-1', true, 'plain text'), (13, 'one', 'p-1', false, '')`,
	`INSERT INTO unpublished VALUES (1)`,
	`SELECT pg_replication_origin_session_setup('elsewhere')`,
	`INSERT INTO outbox_part VALUES (-14, 'one', 'p-2', NULL, NULL)`,
	`SELECT pg_replication_origin_session_reset()`,
	`SELECT pg_logical_emit_message(true, '` + lastMessage + `', '')`,
}

// capture runs the workload on a real server and returns the messages that
// pgoutput sends for it, once for each format.
func capture(t *testing.T, major int) (version string, streams map[string][][]byte) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	server, err := pgserver.Start(ctx, pgserver.Options{Major: major})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	}()
	conn := connect(ctx, t, server.URL("postgres"))
	defer hangUp(ctx, t, conn)
	run(ctx, t, conn, schema...)
	for _, format := range formats {
		run(ctx, t, conn, fmt.Sprintf("SELECT pg_create_logical_replication_slot('%s', 'pgoutput')", format))
	}
	run(ctx, t, conn, workload...)

	streams = make(map[string][][]byte)
	for _, format := range formats {
		streams[format] = stream(ctx, t, server.URL("postgres")+"&replication=database", format)
	}
	return server.Version(), streams
}

func connect(ctx context.Context, t *testing.T, url string) *pgconn.PgConn {
	conn, err := pgconn.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func hangUp(ctx context.Context, t *testing.T, conn *pgconn.PgConn) {
	if err := conn.Close(ctx); err != nil {
		t.Error(err)
	}
}

func run(ctx context.Context, t *testing.T, conn *pgconn.PgConn, statements ...string) {
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement).ReadAll(); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// stream reads the slot named after the format up to the end of the workload.
func stream(ctx context.Context, t *testing.T, url, format string) (messages [][]byte) {
	conn := connect(ctx, t, url)
	defer hangUp(ctx, t, conn)
	options := pglogrepl.StartReplicationOptions{PluginArgs: []string{
		"proto_version '1'", "publication_names 'ins,everything'", "messages 'true'",
	}}
	if format == "binary" {
		options.PluginArgs = append(options.PluginArgs, "binary 'true'")
	}
	if err := pglogrepl.StartReplication(ctx, conn, format, 0, options); err != nil {
		t.Fatal(err)
	}
	for last := false; ; {
		received, err := conn.ReceiveMessage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		data, ok := received.(*pgproto3.CopyData)
		if !ok || data.Data[0] != pglogrepl.XLogDataByteID {
			continue
		}
		xlog, err := pglogrepl.ParseXLogData(data.Data[1:])
		if err != nil {
			t.Fatal(err)
		}
		message := append([]byte(nil), xlog.WALData...)
		messages = append(messages, message)
		if parsed, err := pglogrepl.Parse(message); err != nil {
			t.Fatal(err)
		} else if m, ok := parsed.(*pglogrepl.LogicalDecodingMessage); ok && m.Prefix == lastMessage {
			last = true
		}
		if last && message[0] == 'C' {
			return messages
		}
	}
}
