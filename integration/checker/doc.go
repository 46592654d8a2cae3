// Package checker compares what consumers get with what was committed. It shares no code with the
// relay: it has its own murmur2, and its own tests show that it sees each kind of fault.
package checker
