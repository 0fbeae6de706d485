package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/locotoki/backout/remediation"
)

// terminal is a writer that knows whether it is a terminal.
type terminal interface{ Terminal() bool }

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
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

// screen is the layout of text: a terminal has colours and a width; a file or a
// program gets every cell uncut.
type screen struct{ colour, whole bool }

func (s screen) paint(t tone, text string) string {
	code := map[tone]string{bad: "31", attention: "33", good: "32"}[t]
	if !s.colour || code == "" || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// cell is text that is safe to print, cut to n columns on a terminal.
func (s screen) cell(text string, n int) string {
	if s.whole {
		return clean(text)
	}
	return cell(text, n)
}

// screen is standard output's. NO_COLOR (no-color.org) and a terminal that cannot
// show colours turn them off.
func (c *commands) screen() screen {
	seen := isTerminal(c.stdout)
	return screen{colour: seen && c.env("NO_COLOR") == "" && c.env("TERM") != "dumb", whole: !seen}
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
func stepTone(s remediation.StepState) tone {
	switch s {
	case remediation.StepFailed, remediation.StepInDoubt:
		return bad
	case remediation.StepIntent, remediation.StepWaiting, remediation.StepUndone:
		return attention
	case remediation.StepDone:
		return good
	}
	return plain
}

// width is how many columns of a terminal a printable text takes.
func width(s string) (n int) {
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

const (
	// progressAfter is how long work runs before its progress is shown.
	progressAfter = time.Second
	progressEvery = 200 * time.Millisecond
)

// progress shows on a terminal's last line how far some work is.
type progress struct {
	w     io.Writer
	began time.Time
	stop  chan struct{}
	ended sync.WaitGroup

	mu   sync.Mutex
	text string
}

// progress starts; it prints nothing in the first second, and nothing at all if
// standard error is not a terminal.
func (c *commands) progress() *progress {
	p := &progress{w: c.stderr, began: time.Now(), stop: make(chan struct{})}
	if isTerminal(c.stderr) && c.env("TERM") != "dumb" {
		p.ended.Add(1)
		go p.show(progressAfter, progressEvery)
	}
	return p
}

// say replaces the text.
func (p *progress) say(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text = fmt.Sprintf(format, args...)
}

// show overwrites its previous text, and removes it at the end. A write error
// does not stop the work.
func (p *progress) show(after, every time.Duration) {
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
		text := cell(fmt.Sprintf("%s (%s)", p.text, time.Since(p.began).Round(time.Second)), columns-1)
		p.mu.Unlock()
		if _, err := fmt.Fprint(p.w, "\r"+text+strings.Repeat(" ", max(shown-width(text), 0))); err != nil {
			return
		}
		shown = width(text)
		wait.Reset(every)
	}
}

// done removes the text.
func (p *progress) done() {
	close(p.stop)
	p.ended.Wait()
}
