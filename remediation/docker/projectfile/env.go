package projectfile

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"github.com/locotoki/backout/hint"
)

// The .env format, as docker-compose 1.29 reads it (python-dotenv) and later
// versions do for the same lines:
//
//	[export ]KEY=value        the value ends at white space and a #, or at the line's end
//	[export ]KEY='v' # note   single quotes; \' and \\ are escapes
//	[export ]KEY="v" # note   double quotes; may hold line breaks
//	KEY                       no value of its own: the shell's
//
// A line that is none of these is skipped. Of a key that is there twice, the
// last one wins, so that one is edited and the others are left alone.

// envBinding is one KEY of a .env file and where it is: byte offsets.
type envBinding struct {
	key string
	// bare: there is no "=", so no value.
	bare  bool
	value string
	// from..to is the value with its quotes; for a bare key both are its end.
	from, to int
	// line..end is what goes if the binding goes: its line or lines, with the line end.
	line, end int
}

// Python's \s, which is wider than RE2's.
const envSpace = `\s\v\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}`

var (
	envBlank    = regexp.MustCompile(`^[` + envSpace + `]*`)
	envInline   = regexp.MustCompile(`^(?:[` + strings.ReplaceAll(envSpace, `\s`, ` \t\f`) + `])*`)
	envExport   = regexp.MustCompile(`^(?:export[ \t]+)?`)
	envQuoteKey = regexp.MustCompile(`^'([^']+)'`)
	envPlainKey = regexp.MustCompile(`^[^=#` + envSpace + `]+`)
	envSingle   = regexp.MustCompile(`^'((?:\\'|[^'])*)'`)
	envDouble   = regexp.MustCompile(`^"((?:\\"|[^"])*)"`)
	envRest     = regexp.MustCompile(`^[^\r\n]*`)
	envTail     = regexp.MustCompile(`[` + envSpace + `]+#.*$`)
	envComment  = regexp.MustCompile(`^(?:[ \t]*#[^\r\n]*)?[ \t]*(?:\r\n|\n|\r|$)`)
	envSkip     = regexp.MustCompile(`^[^\r\n]*(?:\r\n|\n|\r)?`)

	envSingleEscape = regexp.MustCompile(`\\[\\']`)
	envDoubleEscape = regexp.MustCompile(`\\[\\'"abfnrtv]`)
)

// parseEnv returns the bindings of a .env file in their order.
func parseEnv(file []byte) []envBinding {
	var all []envBinding
	pos := 0
	if bytes.HasPrefix(file, []byte("\xef\xbb\xbf")) {
		pos = 3
	}
	start := pos
	for pos < len(file) {
		b, next, ok := parseEnvBinding(file, start, pos)
		if ok && b.key != "" {
			all = append(all, b)
		}
		pos = next
	}
	return all
}

// parseEnvBinding reads one binding or comment at pos; where there is none, ok
// is false and next is behind the line that was skipped.
func parseEnvBinding(file []byte, start, pos int) (b envBinding, next int, ok bool) {
	take := func(re *regexp.Regexp) []byte {
		m := re.Find(file[pos:])
		pos += len(m)
		return m
	}
	skip := func() (envBinding, int, bool) {
		take(envSkip)
		return envBinding{}, pos, false
	}

	take(envBlank)
	if pos == len(file) {
		return envBinding{}, pos, true
	}
	for b.line = pos; b.line > start && file[b.line-1] != '\n' && file[b.line-1] != '\r'; {
		b.line--
	}
	take(envExport)
	switch {
	case pos < len(file) && file[pos] == '#':
	case pos < len(file) && file[pos] == '\'':
		m := envQuoteKey.FindSubmatch(file[pos:])
		if m == nil {
			return skip()
		}
		b.key = string(m[1])
		pos += len(m[0])
	default:
		m := take(envPlainKey)
		if len(m) == 0 {
			return skip()
		}
		b.key = string(m)
	}
	b.from, b.to, b.bare = pos, pos, true
	take(envInline)
	if pos < len(file) && file[pos] == '=' {
		pos++
		take(envInline)
		b.bare, b.from = false, pos
		quoted, escape := envSingle, envSingleEscape
		switch {
		case pos == len(file):
		case file[pos] == '"':
			quoted, escape = envDouble, envDoubleEscape
			fallthrough
		case file[pos] == '\'':
			m := quoted.FindSubmatch(file[pos:])
			if m == nil {
				return skip()
			}
			pos += len(m[0])
			b.to, b.value = pos, escape.ReplaceAllStringFunc(string(m[1]), unescapeEnv)
		default:
			text := envRest.Find(file[pos:])
			text = envTail.ReplaceAll(text, nil)
			text = bytes.TrimRightFunc(text, func(r rune) bool { return envBlank.FindString(string(r)) != "" })
			pos += len(text)
			b.to, b.value = pos, string(text)
		}
		if b.to < b.from {
			b.to = b.from
		}
	}
	// An unquoted value may be followed by white space that only Python counts
	// as such; its line is taken whole.
	m := envComment.Find(file[pos:])
	if m == nil && !b.bare && b.key != "" && (b.to == b.from || file[b.to-1] != '\'' && file[b.to-1] != '"') {
		m = envSkip.Find(file[pos:])
	}
	if m == nil {
		return skip()
	}
	b.end = pos + len(m)
	return b, b.end, true
}

func unescapeEnv(s string) string {
	if i := strings.IndexByte("abfnrtv", s[1]); i >= 0 {
		return "\a\b\f\n\r\t\v"[i : i+1]
	}
	return s[1:]
}

// lastEnv returns the binding of key that counts.
func lastEnv(file []byte, key string) (envBinding, bool) {
	var last envBinding
	found := false
	for _, b := range parseEnv(file) {
		if b.key == key {
			last, found = b, true
		}
	}
	return last, found
}

// EnvValue returns the value of key; set is false where the file gives it none of its own.
func EnvValue(file []byte, key string) (value string, set bool) {
	b, ok := lastEnv(file, key)
	return b.value, ok && !b.bare
}

// EnvValues reads a .env file as the first generation of compose does.
func EnvValues(file []byte) map[string]string {
	m := map[string]string{}
	for _, b := range parseEnv(file) {
		if !b.bare {
			m[b.key] = b.value
		}
	}
	return m
}

// Entry is what a file holds of one key, as it goes into a snapshot: enough to put it
// back to the byte.
type Entry struct {
	State entryState `json:"state"`
	// Raw is the value with its quotes, as it is in the file; of a list's item in an
	// override file, all of the item.
	Raw string `json:"raw,omitempty"`
}

// entryState tells how a key is set in a file.
type entryState string

const (
	entryAbsent entryState = "absent"
	entryBare   entryState = "bare"
	entrySet    entryState = "set"
)

// FileState is one file's part of a snapshot.
type FileState struct {
	Path string `json:"path"`
	// Missing is "yes" where the file was not there.
	Missing string `json:"missing,omitempty"`
	Entry   Entry  `json:"entry"`
}

// PutBackEnv returns the .env file with key as the snapshot has it, or nil where the file
// was not there and nothing else is left in it.
func (f FileState) PutBackEnv(file []byte, key string) []byte {
	out := PutEnv(file, key, f.Entry)
	if len(out) == 0 && f.Missing != "" {
		return nil
	}
	return out
}

// ReadEnv returns what a .env file holds of key.
func ReadEnv(file []byte, key string) Entry {
	b, ok := lastEnv(file, key)
	switch {
	case !ok:
		return Entry{State: entryAbsent}
	case b.bare:
		return Entry{State: entryBare}
	}
	return Entry{State: entrySet, Raw: string(file[b.from:b.to])}
}

// VariableName is what an environment variable of compose files may be called.
var VariableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// PlainValue are the values that mean the same in a .env file, in YAML quotes
// and in every version of compose: nothing to escape, nothing to expand.
var PlainValue = regexp.MustCompile(`^[A-Za-z0-9._:/@%+,-]*$`)

// SetEnv returns the .env file with key set to value. All other bytes stay as
// they are; the line keeps its quotes and its comment.
func SetEnv(file []byte, key, value string) ([]byte, error) {
	if !PlainValue.MatchString(value) {
		return nil, hint.Add(fmt.Errorf("value %q of %s: cannot be written to a .env file", value, key), "letters, digits and ._:/@%%+,- only")
	}
	raw := value
	if b, ok := lastEnv(file, key); ok && !b.bare {
		if b.value == value {
			return file, nil
		}
		if q := file[b.from:b.to]; len(q) > 1 && (q[0] == '\'' || q[0] == '"') {
			raw = string(q[0]) + value + string(q[0])
		}
	}
	out := PutEnv(file, key, Entry{State: entrySet, Raw: raw})
	if b, ok := lastEnv(out, key); !ok || b.bare || b.value != value {
		return nil, hint.Add(fmt.Errorf("set %s: the lines around it are not valid in a .env file", key), "check for an unclosed quote")
	}
	return out, nil
}

// PutEnv returns the .env file with key as entry has it, which setEnv may
// have changed since.
func PutEnv(file []byte, key string, entry Entry) []byte {
	b, ok := lastEnv(file, key)
	switch {
	case entry.State == entrySet && ok && !b.bare:
		return splice(file, b.from, b.to, entry.Raw)
	case entry.State == entrySet:
		// A bare key stays as it is: the last line wins.
		return appendEnvLine(file, key+"="+entry.Raw)
	case entry.State == entryBare && !ok:
		return appendEnvLine(file, key)
	case entry.State == entryBare && b.bare:
		return file
	case entry.State == entryBare:
		if without := dropEnvLine(file, b); ReadEnv(without, key) == entry {
			return without
		}
		return splice(file, bytes.LastIndexByte(file[:b.from], '='), b.to, "")
	}
	for ; ok; b, ok = lastEnv(file, key) {
		file = dropEnvLine(file, b)
	}
	return file
}

// dropEnvLine takes a binding out with its line end, or, where it has none,
// with the line end before it, which was put there for it.
func dropEnvLine(file []byte, b envBinding) []byte {
	line := b.line
	if b.end == len(file) && !bytes.HasSuffix(file, []byte("\n")) && !bytes.HasSuffix(file, []byte("\r")) {
		line = len(bytes.TrimSuffix(bytes.TrimSuffix(file[:line], []byte("\n")), []byte("\r")))
	}
	return splice(file, line, b.end, "")
}

// appendEnvLine adds a line at the end, with the file's own kind of line end and
// without one where the file's last line has none.
func appendEnvLine(file []byte, line string) []byte {
	nl := "\n"
	if i := bytes.LastIndexByte(file, '\n'); i > 0 && file[i-1] == '\r' {
		nl = "\r\n"
	}
	if n := len(file); n > 0 && file[n-1] != '\n' && file[n-1] != '\r' {
		return splice(file, n, n, nl+line)
	}
	return splice(file, len(file), len(file), line+nl)
}

// splice returns a copy of b with b[from:to] replaced.
func splice(b []byte, from, to int, text string) []byte {
	out := make([]byte, 0, len(b)-(to-from)+len(text))
	out = append(out, b[:from]...)
	out = append(out, text...)
	return append(out, b[to:]...)
}
