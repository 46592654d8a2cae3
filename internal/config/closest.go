package config

import (
	"slices"
	"strings"
)

// bare is a name without what people forget or mix up: case, the prefix of variables, dashes and
// underscores.
func bare(name string) string {
	name = strings.NewReplacer("-", "_", " ", "_").Replace(strings.ToLower(name))
	return strings.ReplaceAll(strings.TrimPrefix(name, strings.ToLower(prefix)), "_", "")
}

// closest returns the known name that was probably meant, or nothing: one that differs in few
// letters, or else the only one that begins or ends with what was given, such as kafka_brokers for
// brokers.
func closest(given string, known []string) string {
	given = bare(given)
	best, bestEdits := "", 0
	var longer []string
	for _, name := range slices.Sorted(slices.Values(known)) {
		candidate := bare(name)
		n := edits(given, candidate)
		if 3*n <= max(len(given), len(candidate)) && (best == "" || n < bestEdits) {
			best, bestEdits = name, n
		}
		if len(given) > 3 && (strings.HasPrefix(candidate, given) || strings.HasSuffix(candidate, given)) {
			longer = append(longer, name)
		}
	}
	if best == "" && len(longer) == 1 {
		return longer[0]
	}
	return best
}

// edits counts the letters to put in, take out or change to make one text of the other
// (Levenshtein).
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
