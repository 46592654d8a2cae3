CREATE TABLE IF NOT EXISTS {{.Table}} (
    {{.ID}} uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    {{.AggregateType}} text NOT NULL,
    {{.AggregateID}} text NOT NULL,
    {{.Type}} text,
    {{.Payload}} jsonb,
    {{.Headers}} jsonb,
    {{.CreatedAt}} timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT aggregateid_is_not_empty CHECK ({{.AggregateID}} <> ''),
    CONSTRAINT aggregatetype_is_part_of_a_topic CHECK ({{.AggregateType}} ~ '^[a-zA-Z0-9._-]{1,200}$' AND {{.AggregateType}} NOT IN ('.', '..')),
    CONSTRAINT headers_are_an_object CHECK (jsonb_typeof({{.Headers}}) IN ('object', 'null'))
)
