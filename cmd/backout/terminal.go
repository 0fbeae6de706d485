package main

import (
	"time"

	"github.com/locotoki/backout/cmd/backout/terminal"
)

// screen is standard output's. NO_COLOR (no-color.org) and a terminal that cannot
// show colours turn them off.
func (c *commands) screen() terminal.Screen {
	seen := terminal.IsTerminal(c.stdout)
	return terminal.Screen{Colour: seen && c.env("NO_COLOR") == "" && c.env("TERM") != "dumb", Whole: !seen}
}

// progressAfter is how long work runs before its progress is shown.
const progressAfter = time.Second

// progress starts; it prints nothing in the first second, and nothing at all if
// standard error is not a terminal.
func (c *commands) progress() *terminal.Progress {
	return terminal.StartProgress(c.stderr, progressAfter, c.env("TERM") != "dumb")
}
