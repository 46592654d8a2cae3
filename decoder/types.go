package decoder

import "fmt"

// The OIDs of the types whose binary form is read here, or that a column of
// the contract may have. They are fixed in the catalog of every Postgres.
const (
	oidBool    uint32 = 16
	oidBytea   uint32 = 17
	oidName    uint32 = 19
	oidInt8    uint32 = 20
	oidInt2    uint32 = 21
	oidInt4    uint32 = 23
	oidText    uint32 = 25
	oidOID     uint32 = 26
	oidJSON    uint32 = 114
	oidXML     uint32 = 142
	oidBpchar  uint32 = 1042
	oidVarchar uint32 = 1043
	oidUUID    uint32 = 2950
	oidJSONB   uint32 = 3802

	// firstUserOID is where the OIDs of types begin that were created by
	// users: enums, domains, and extensions such as citext.
	firstUserOID uint32 = 16384
)

// BinarySafe reports whether columns of a type can be decoded from their binary
// form. If a wanted column of a table has another type, the stream must be
// started in text form. User-defined types are not safe: their OID does not say
// what their binary form is.
func BinarySafe(oid uint32) bool {
	switch oid {
	case oidBool, oidBytea, oidName, oidInt8, oidInt2, oidInt4, oidText, oidOID,
		oidJSON, oidBpchar, oidVarchar, oidUUID, oidJSONB:
		return true
	}
	return false
}

// typeID names a type that is not built in, or the type below a domain. An empty
// schema is pg_catalog.
type typeID struct{ schema, name string }

// builtIn are the types, by name, that may be below a domain in a column of the
// contract.
var builtIn = map[string]uint32{
	"bool": oidBool, "int2": oidInt2, "int4": oidInt4, "int8": oidInt8, "oid": oidOID, "uuid": oidUUID,
	"text": oidText, "varchar": oidVarchar, "bpchar": oidBpchar, "name": oidName,
	"json": oidJSON, "jsonb": oidJSONB, "xml": oidXML, "bytea": oidBytea,
}

// resolve returns the type whose values a column holds: for a domain, the type
// below; for citext, text, whose values are the same; else oid.
func (t typeID) resolve(oid uint32) uint32 {
	if t.name == citext {
		return oidText
	}
	if below, ok := builtIn[t.name]; ok && (t.schema == "" || t.schema == "pg_catalog") {
		return below
	}
	return oid
}

const citext = "citext"

// Type is the type of a column as the catalog has it.
type Type struct {
	OID  uint32
	Base uint32 // the type below, if it is a domain; else the same
	Name string // of Base, without its schema
}

// Fits reports whether a column of the contract may have a type, and which types
// it may have. Another type is an error with the first row.
func Fits(column string, t Type) (want string, ok bool) {
	base := t.Base
	if base >= firstUserOID && t.Name == citext {
		base = oidText
	}
	for _, rule := range contract {
		if rule.name == column {
			return rule.want, rule.accepts(t.OID, base)
		}
	}
	return "", true
}

func anyType(_, _ uint32) bool { return true }

func isLabel(oid, base uint32) bool {
	switch base {
	case oidText, oidVarchar, oidBpchar, oidName:
		return true
	}
	return oid >= firstUserOID
}

func isPayload(oid, base uint32) bool {
	switch base {
	case oidText, oidVarchar, oidBpchar, oidBytea, oidXML:
		return true
	}
	return isJSON(oid, base)
}

// isHeaders takes text as well: many mappers store JSON in it. What the text must be is seen with
// the row.
func isHeaders(oid, base uint32) bool {
	switch base {
	case oidText, oidVarchar, oidBpchar:
		return true
	}
	return isJSON(oid, base)
}

func isJSON(_, base uint32) bool { return base == oidJSON || base == oidJSONB }

// typeText names a type for an error.
func typeText(oid uint32) string {
	name := "user-defined"
	if oid < firstUserOID {
		if name = typeNames[oid]; name == "" {
			return fmt.Sprintf("oid %d", oid)
		}
	}
	return fmt.Sprintf("%s (oid %d)", name, oid)
}

// typeNames are the names of the types that columns are likely to have by mistake.
var typeNames = map[uint32]string{
	oidBool:    "boolean",
	oidBytea:   "bytea",
	18:         "\"char\"",
	oidName:    "name",
	oidInt8:    "bigint",
	oidInt2:    "smallint",
	oidInt4:    "integer",
	oidText:    "text",
	oidOID:     "oid",
	oidJSON:    "json",
	oidXML:     "xml",
	700:        "real",
	701:        "double precision",
	1009:       "text[]",
	oidBpchar:  "char",
	oidVarchar: "varchar",
	1082:       "date",
	1114:       "timestamp",
	1184:       "timestamptz",
	1700:       "numeric",
	oidUUID:    "uuid",
	oidJSONB:   "jsonb",
}
