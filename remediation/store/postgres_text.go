package store

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"
)

// escaped is a text as PostgreSQL keeps it, which refuses U+0000 and bytes that are
// not UTF-8: a label of an alert may hold both. A backslash is \\, U+0000 is \0, a byte
// that is not UTF-8 is \xHH; all else is as it is.
type escaped string

func escape(s string) escaped {
	if !strings.ContainsAny(s, "\\\x00") && utf8.ValidString(s) {
		return escaped(s)
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x` + strconv.FormatUint(0x100|uint64(s[0]), 16)[1:])
		case r == '\\':
			b.WriteString(`\\`)
		case r == 0:
			b.WriteString(`\0`)
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return escaped(b.String())
}

// text is what escape was given.
func (e escaped) text() (string, error) {
	before, rest, found := strings.Cut(string(e), `\`)
	if !found {
		return before, nil
	}
	var b strings.Builder
	for ; found; before, rest, found = strings.Cut(rest, `\`) {
		b.WriteString(before)
		switch {
		case strings.HasPrefix(rest, `\`):
			b.WriteByte('\\')
			rest = rest[1:]
		case strings.HasPrefix(rest, "0"):
			b.WriteByte(0)
			rest = rest[1:]
		case strings.HasPrefix(rest, "x") && len(rest) >= 3:
			n, err := strconv.ParseUint(rest[1:3], 16, 8)
			if err != nil {
				return "", errors.New("a text has an escape that backout does not write")
			}
			b.WriteByte(byte(n))
			rest = rest[3:]
		default:
			return "", errors.New("a text has an escape that backout does not write")
		}
	}
	b.WriteString(before)
	return b.String(), nil
}
