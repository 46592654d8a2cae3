// Package migrations makes what the relay needs in the database it serves: the outbox table and its
// publication. The replication slot is created by whoever calls, after the publication is
// committed; the script of SQL does all three.
//
// What holds:
//   - What is there is accepted or refused, never altered behind its owner's back: an existing
//     table keeps its columns, and all that is ever changed is a publication that lacks a table.
//   - All or nothing: the changes are one transaction, and one problem means that nothing is
//     changed.
//   - It leaves no bookkeeping behind. The catalogs of Postgres say what exists, which is also true
//     of a table that somebody else made.
//   - Every problem comes with the SQL or the setting that mends it.
package migrations
