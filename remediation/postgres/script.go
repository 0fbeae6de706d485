package postgres

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// statement is one statement of a script.
type statement struct {
	text string
	line int
	// words are its keywords and unquoted names, in upper case. What is quoted, in a
	// comment or in a function's quoted body is not among them.
	words []string
	// command is what psql would read itself, such as \i; the server does not know it.
	command bool
}

// split takes a script apart at the semicolons that end statements. Comments and
// empty statements are no statements.
func split(script string) []statement {
	s := &scanner{text: script, line: 1}
	for s.pos < len(s.text) {
		s.step()
	}
	s.end()
	return s.found
}

// scanner knows where in a script a semicolon does not end a statement: in
// quotes, comments, parentheses and the body of a function that is written in SQL.
type scanner struct {
	text      string
	pos, line int
	found     []statement

	now         statement
	start       int
	begun       bool
	parentheses int
	bodies      int // BEGIN ATOMIC and CASE that are open
}

func (s *scanner) step() {
	rest := s.text[s.pos:]
	c := rest[0]
	switch {
	case c == '\n':
		s.line++
		s.pos++
	case c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v':
		s.pos++
	case strings.HasPrefix(rest, "--"):
		if end := strings.IndexAny(rest, "\r\n"); end >= 0 {
			s.pos += end
		} else {
			s.pos = len(s.text)
		}
	case strings.HasPrefix(rest, "/*"):
		s.skip(commentLength(rest))
	case c == ';' && s.parentheses == 0 && s.bodies == 0:
		s.end()
		s.pos++
	default:
		s.begin()
		s.token(rest, c)
	}
}

func (s *scanner) begin() {
	if !s.begun {
		s.begun, s.start, s.now.line = true, s.pos, s.line
	}
}

func (s *scanner) token(rest string, c byte) {
	switch {
	case c == '\'':
		s.skip(quoteLength(rest, '\'', s.escapes()))
	case c == '"':
		s.skip(quoteLength(rest, '"', false))
	case c == '$':
		if n := dollarLength(rest); n > 0 {
			s.skip(n)
		} else {
			s.pos++
		}
	case c == '(':
		s.parentheses++
		s.pos++
	case c == ')':
		s.parentheses = max(s.parentheses-1, 0)
		s.pos++
	case c == '\\':
		s.now.command = true
		s.pos++
	case letter(rest):
		n := wordLength(rest)
		s.word(strings.ToUpper(rest[:n]))
		s.pos += n
	default:
		_, n := utf8.DecodeRuneInString(rest)
		s.pos += n
		if c >= '0' && c <= '9' { // the e of 1e5 is not a word
			s.pos += wordLength(s.text[s.pos:])
		}
	}
}

// word counts the bodies in which a semicolon ends no statement.
func (s *scanner) word(w string) {
	if s.parentheses == 0 && s.routine() {
		last := ""
		if n := len(s.now.words); n > 0 {
			last = s.now.words[n-1]
		}
		switch {
		case w == "ATOMIC" && last == "BEGIN", w == "CASE" && s.bodies > 0:
			s.bodies++
		case w == "END" && s.bodies > 0:
			s.bodies--
		}
	}
	s.now.words = append(s.now.words, w)
}

func (s *scanner) routine() bool {
	w := s.now.words
	if len(w) == 0 || w[0] != "CREATE" {
		return false
	}
	w = w[1:]
	if len(w) > 1 && w[0] == "OR" && w[1] == "REPLACE" {
		w = w[2:]
	}
	return len(w) > 0 && (w[0] == "FUNCTION" || w[0] == "PROCEDURE")
}

// escapes reports whether the quote at the present position is that of an E'...'.
func (s *scanner) escapes() bool {
	if s.pos == 0 || (s.text[s.pos-1] != 'E' && s.text[s.pos-1] != 'e') {
		return false
	}
	before, _ := utf8.DecodeLastRuneInString(s.text[:s.pos-1])
	return s.pos == 1 || !wordRune(before)
}

func (s *scanner) skip(n int) {
	s.line += strings.Count(s.text[s.pos:s.pos+n], "\n")
	s.pos += n
}

func (s *scanner) end() {
	if s.begun {
		s.now.text = strings.TrimSpace(s.text[s.start:s.pos])
		s.found = append(s.found, s.now)
	}
	s.now, s.begun, s.parentheses, s.bodies = statement{}, false, 0, 0
}

// commentLength is that of a comment, in which others may be nested.
func commentLength(text string) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch {
		case strings.HasPrefix(text[i:], "/*"):
			depth++
			i++
		case strings.HasPrefix(text[i:], "*/"):
			depth--
			i++
			if depth == 0 {
				return i + 1
			}
		}
	}
	return len(text)
}

// quoteLength is that of a quoted text; a doubled quote ends and begins again.
func quoteLength(text string, quote byte, escapes bool) int {
	for i := 1; i < len(text); i++ {
		switch {
		case escapes && text[i] == '\\':
			i++
		case text[i] == quote:
			return i + 1
		}
	}
	return len(text)
}

// dollarLength is that of a $tag$...$tag$ text, 0 where none begins.
func dollarLength(text string) int {
	n := strings.IndexByte(text[1:], '$')
	if n < 0 {
		return 0
	}
	tag := text[:n+2]
	if n > 0 && (!letter(tag[1:]) || wordLength(tag[1:len(tag)-1]) != n) {
		return 0
	}
	if end := strings.Index(text[len(tag):], tag); end >= 0 {
		return end + 2*len(tag)
	}
	return len(text)
}

func letter(text string) bool {
	r, _ := utf8.DecodeRuneInString(text)
	return r == '_' || unicode.IsLetter(r)
}

func wordRune(r rune) bool {
	return r == '_' || r == '$' || unicode.IsLetter(r) || unicode.IsDigit(r)
}

func wordLength(text string) int {
	if n := strings.IndexFunc(text, func(r rune) bool { return !wordRune(r) }); n >= 0 {
		return n
	}
	return len(text)
}

func (s statement) begins(words ...string) bool {
	return len(s.words) >= len(words) && slices.Equal(s.words[:len(words)], words)
}

// refused says why a statement cannot be in a script of ours, "" where it can.
func (s statement) refused() string {
	switch {
	case s.command:
		return `a \ command belongs to psql and is not SQL`
	case s.begins("COPY") && slices.Contains(s.words, "STDIN"):
		return "COPY FROM STDIN has no input here"
	case s.begins("ROLLBACK", "TO"), s.begins("ROLLBACK", "WORK", "TO"), s.begins("ROLLBACK", "TRANSACTION", "TO"):
		return ""
	case s.begins("BEGIN"), s.begins("START"), s.begins("COMMIT"), s.begins("END"), s.begins("ROLLBACK"), s.begins("ABORT"),
		s.begins("PREPARE", "TRANSACTION"):
		return "it manages its own transaction: " + s.words[0]
	}
	return ""
}

// alone reports whether a statement cannot run in a transaction. One that is
// missed here is refused by the server, and its transaction with it.
func (s statement) alone() bool {
	switch {
	case s.begins("CREATE"), s.begins("DROP"), s.begins("REINDEX"), s.begins("ALTER", "TABLE"):
		if slices.Contains(s.words, "CONCURRENTLY") {
			return true
		}
	}
	for _, words := range [][]string{
		{"VACUUM"}, {"ALTER", "SYSTEM"}, {"REINDEX", "DATABASE"}, {"REINDEX", "SCHEMA"}, {"REINDEX", "SYSTEM"}, {"DISCARD", "ALL"},
		{"CREATE", "DATABASE"}, {"DROP", "DATABASE"}, {"CREATE", "TABLESPACE"}, {"DROP", "TABLESPACE"},
		{"CREATE", "SUBSCRIPTION"}, {"ALTER", "SUBSCRIPTION"}, {"DROP", "SUBSCRIPTION"},
	} {
		if s.begins(words...) {
			return true
		}
	}
	return len(s.words) == 1 && s.words[0] == "CLUSTER"
}
