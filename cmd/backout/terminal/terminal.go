// Package terminal puts what backout's commands print into text: incidents, rollouts,
// preflights, audit entries and coverage, laid out for a screen of 80 columns, and the
// progress of long work. The commands collect the data and write the text.
//
// Its invariants:
//
//   - A text from outside cannot drive the terminal: control characters are escaped.
//   - Only a terminal gets colours and cut cells; a file or a program gets all of it.
//   - Nothing is read or written here but the line of a Progress.
package terminal

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/locotoki/backout/remediation"
	"github.com/locotoki/backout/remediation/view"
)

// terminal is a writer that knows whether it is a terminal.
type terminal interface{ Terminal() bool }

// IsTerminal reports whether w is a terminal.
func IsTerminal(w io.Writer) bool {
	switch w := w.(type) {
	case terminal:
		return w.Terminal()
	case *os.File:
		info, err := w.Stat()
		return err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return false
}

// tone is what a word means for its reader.
type tone int

const (
	plain tone = iota
	bad
	attention
	good
)

// Screen is the layout of text: a terminal has colours and a width; a file or a
// program gets every cell uncut.
type Screen struct{ Colour, Whole bool }

func (s Screen) paint(t tone, text string) string {
	code := map[tone]string{bad: "31", attention: "33", good: "32"}[t]
	if !s.Colour || code == "" || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// Cell is text that is safe to print, cut to n columns on a terminal.
func (s Screen) Cell(text string, n int) string {
	if s.Whole {
		return Clean(text)
	}
	return cell(text, n)
}

// stateTone is what an incident's state means.
func stateTone(s remediation.State) tone {
	switch s {
	case remediation.Exhausted, remediation.Waiting:
		return bad
	case remediation.Confirming, remediation.Acting, remediation.Settling:
		return attention
	case remediation.Recovered:
		return good
	}
	return plain
}

// stepTone is what a step's state means.
func stepTone(s view.StepView) tone {
	if s.PutBack {
		return plain
	}
	switch s.State {
	case remediation.StepFailed, remediation.StepInDoubt:
		return bad
	case remediation.StepIntent, remediation.StepWaiting, remediation.StepUndone:
		return attention
	case remediation.StepDone:
		return good
	}
	return plain
}

// Width is how many columns of a terminal a printable text takes.
func Width(s string) (n int) {
	for _, r := range s {
		switch {
		case unicode.In(r, unicode.Mn, unicode.Me):
		case r >= 0x1100 && (r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf || r >= 0xac00 && r <= 0xd7a3 ||
			r >= 0xf900 && r <= 0xfaff || r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 ||
			r >= 0xffe0 && r <= 0xffe6 || r >= 0x1f300 && r <= 0x1faff || r >= 0x20000 && r <= 0x3fffd):
			n += 2 // as Unicode's East Asian Width has them: W and F
		default:
			n++
		}
	}
	return n
}

// Progress shows on a terminal's last line how far some work is.
type Progress struct {
	w     io.Writer
	began time.Time
	stop  chan struct{}
	ended sync.WaitGroup

	mu   sync.Mutex
	text string
	part counted
}

// counted is one part of some work, of which all is known.
type counted struct {
	doing, unit string
	done, all   int
	began       time.Time
}

// StartProgress starts: it prints nothing until after has passed, and nothing at all if
// shown is false or w is not a terminal.
func StartProgress(w io.Writer, after time.Duration, shown bool) *Progress {
	p := &Progress{w: w, began: time.Now(), stop: make(chan struct{})}
	if shown && IsTerminal(w) {
		p.ended.Add(1)
		go p.show(after, after/5)
	}
	return p
}

// Say replaces the text.
func (p *Progress) Say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = fmt.Sprintf(format, args...)
}

// Count replaces the text by a bar: how much of a part is done, and about how long the
// rest of it takes.
func (p *Progress) Count(doing string, done, all int, unit string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.part.doing != doing || done < p.part.done { // the next one of its kind
		p.part = counted{doing: doing, unit: unit, began: time.Now()}
	}
	p.part.done, p.part.all = done, all
}

// barWidth is how many columns a bar has.
const barWidth = 16

// bar draws a part at a moment.
func (c counted) bar(now time.Time) string {
	full := 0
	if c.all > 0 {
		full = min(barWidth*c.done/c.all, barWidth)
	}
	text := fmt.Sprintf("%s [%s%s] %d of %d %s", c.doing, strings.Repeat("#", full), strings.Repeat(".", barWidth-full), c.done, c.all, c.unit)
	if c.done > 0 && c.done < c.all {
		left := now.Sub(c.began) / time.Duration(c.done) * time.Duration(c.all-c.done)
		exact := time.Second
		if left > 2*time.Minute {
			exact = time.Minute
		}
		text += fmt.Sprintf(", %s left", remediation.Span(left.Round(exact)))
	}
	return text
}

// show overwrites its previous text, and removes it at the end. A write error
// does not stop the work.
func (p *Progress) show(after, every time.Duration) {
	defer p.ended.Done()
	wait := time.NewTimer(after)
	defer wait.Stop()
	shown := 0
	for {
		select {
		case <-p.stop:
			if shown > 0 {
				fmt.Fprint(p.w, "\r"+strings.Repeat(" ", shown)+"\r") //nolint:errcheck // nothing is left to be told
			}
			return
		case <-wait.C:
		}
		p.mu.Lock()
		if p.part.doing != "" {
			p.text = p.part.bar(time.Now())
		}
		text := cell(fmt.Sprintf("%s (%s)", p.text, remediation.Span(time.Since(p.began).Round(time.Second))), Columns-1)
		p.mu.Unlock()
		if _, err := fmt.Fprint(p.w, "\r"+text+strings.Repeat(" ", max(shown-Width(text), 0))); err != nil {
			return
		}
		shown = Width(text)
		wait.Reset(every)
	}
}

// Done removes the text.
func (p *Progress) Done() {
	close(p.stop)
	p.ended.Wait()
}
