package terminal

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/locotoki/backout/alerts"
	"github.com/locotoki/backout/remediation"
)

// Columns is how wide a text is laid out.
const Columns = 80

// Harmless escapes the characters that JSON allows but a terminal may obey (C1
// controls, direction marks).
func Harmless(text string) string {
	if !strings.ContainsFunc(text, obeyed) {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case !obeyed(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

func obeyed(r rune) bool { return r != '\n' && r != utf8.RuneError && unprintable(r) }

// Clean makes a string from outside safe to print: it escapes control and format
// characters, including line ends.
func Clean(s string) string {
	if !strings.ContainsFunc(s, unprintable) && utf8.ValidString(s) {
		return s
	}
	q := strconv.Quote(s)
	return strings.ReplaceAll(strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`), `\\`, `\`)
}

// CleanLines is clean for text of several lines.
func CleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = Clean(lines[i])
	}
	return strings.Join(lines, "\n")
}

// List is CleanLines, with what is listed, each on a line of its own after "- ", wrapped.
func List(s string) string {
	lines := strings.Split(CleanLines(s), "\n")
	for i, line := range lines {
		if item, ok := strings.CutPrefix(line, "- "); ok {
			lines[i] = "- " + strings.TrimSpace(Wrap("  ", item))
		}
	}
	return strings.Join(lines, "\n")
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// cell is clean, cut to at most n columns.
func cell(s string, n int) string {
	s = Clean(s)
	if Width(s) <= n && utf8.RuneCountInString(s) <= 4*n { // marks upon marks take no column
		return s
	}
	end, columns, count := 0, 0, 0
	for i, r := range s {
		if columns += Width(string(r)); columns > n-3 || count == 4*n {
			break
		}
		count++
		end = i + utf8.RuneLen(r)
	}
	return s[:end] + "..."
}

// Wrap breaks text at spaces so that it fits the terminal, with indent before
// each line. A word that is too long, such as an address, stays whole.
func Wrap(indent, text string) string {
	var b strings.Builder
	line := ""
	for _, word := range strings.Fields(Clean(text)) {
		if line != "" && len(indent)+Width(line)+1+Width(word) > Columns {
			b.WriteString(indent + line + "\n")
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	if line != "" {
		b.WriteString(indent + line + "\n")
	}
	return b.String()
}

// table aligns rows in columns; the first row is the head. tones colours cells, by
// row and column.
func table(rows [][]string, scr Screen, tones map[[2]int]tone) string {
	var widths []int
	for _, row := range rows {
		for i, text := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], Width(text))
		}
	}
	var b strings.Builder
	for y, row := range rows {
		for x, text := range row {
			b.WriteString(scr.paint(tones[[2]int{y, x}], text))
			if x < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[x]-Width(text)+2))
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// MomentShort is a time in a list or a column, whose head says UTC: all of the same
// width. In a sentence a time is remediation.Moment.
func MomentShort(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// ValueOr is a measured value with its unit, or a word if there is no value.
func ValueOr(v *float64, unit alerts.Unit, none string) string {
	if v == nil {
		return none
	}
	return remediation.Measure(*v, unit)
}
