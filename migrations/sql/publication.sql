
BEGIN
    IF EXISTS (SELECT FROM pg_replication_slots
            WHERE slot_name = {{.Slot}} AND database IS DISTINCT FROM current_database()) THEN
        RAISE EXCEPTION 'slot % belongs to another database, or to none: nothing was changed', {{.Slot}}
            USING HINT = 'Name another slot in WALPOST_SLOT: their names are those of the whole server.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = {{.PublicationText}}) THEN
        IF EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {{.Slot}} AND database = current_database()) THEN
            RAISE EXCEPTION 'slot % is older than publication %, which does not exist: nothing was changed', {{.Slot}}, {{.PublicationText}}
                USING HINT = 'Drop the slot if no relay has read it yet; else use walpost init --accept-gap.';
        END IF;
        {{.Create}};
        RETURN;
    END IF;
{{- range .Tables}}
    IF NOT EXISTS (SELECT FROM pg_publication_tables
            WHERE pubname = {{$.PublicationText}} AND schemaname = {{.SchemaText}} AND tablename = {{.NameText}})
        AND NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
            WHERE p.pubname = {{$.PublicationText}} AND r.prrelid = {{.Regclass}}::regclass) THEN
        {{.Add}};
    END IF;
{{- end}}
END
