package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// ByteSize is a number of bytes that is written as 64MiB or as plain bytes.
type ByteSize int64

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1}}

// UnmarshalText reads a size such as 67108864, 64MiB or 1 GiB.
func (b *ByteSize) UnmarshalText(text []byte) error {
	given := strings.TrimSpace(string(text))
	for _, unit := range sizeUnits {
		digits, found := strings.CutSuffix(given, unit.suffix)
		if !found {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/unit.bytes {
			break
		}
		*b = ByteSize(n * unit.bytes)
		return nil
	}
	return fmt.Errorf("%q is not a size: give bytes, or a number with KiB, MiB or GiB", given)
}

// String writes the size with the largest unit that divides it.
func (b ByteSize) String() string {
	for _, unit := range sizeUnits {
		if int64(b) >= unit.bytes && int64(b)%unit.bytes == 0 {
			return strconv.FormatInt(int64(b)/unit.bytes, 10) + unit.suffix
		}
	}
	return strconv.FormatInt(int64(b), 10) + "B"
}
