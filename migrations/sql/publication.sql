
BEGIN
    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = {{.PublicationText}}) THEN
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
