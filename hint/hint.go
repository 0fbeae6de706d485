// Package hint keeps what to do about an error as a field next to its message, and is
// the one place that writes both as a text: "message; try: hint". Every package may
// import it; it imports none of ours.
package hint

import (
	"fmt"
	"strings"
)

const mark = "; try: "

// hinted is an error with its hint.
type hinted struct {
	err error
	try string
}

func (e *hinted) Error() string { return Text(e.err.Error(), e.try) }
func (e *hinted) Unwrap() error { return e.err }

// Add returns err with a hint at the end of its text: what to do, as an imperative, a
// command, or what to write instead. Without a hint it is err itself.
func Add(err error, format string, args ...any) error {
	try := fmt.Sprintf(format, args...)
	if try == "" {
		return err
	}
	return &hinted{err, try}
}

// Text is a message with its hint, "" for none.
func Text(message, try string) string {
	if try == "" {
		return message
	}
	return message + mark + try
}

// Cut splits what Text has joined, such as the error that a server answered.
func Cut(text string) (message, try string) {
	message, try, _ = strings.Cut(text, mark)
	return message, strings.ReplaceAll(try, mark, "; ")
}

// Of splits an error's text into its message and its hint, "" for none. Several hints,
// as of joined errors, are joined in their order. A hint that the text of an
// outer error leaves out, as one with a secret in it, is left out here too.
func Of(err error) (message, try string) {
	if err == nil {
		return "", ""
	}
	message = err.Error()
	var tries []string
	var visit func(error)
	visit = func(err error) {
		switch e := err.(type) { //nolint:errorlint // it walks the tree itself
		case interface{ Unwrap() error }:
			visit(e.Unwrap())
		case interface{ Unwrap() []error }:
			for _, err := range e.Unwrap() {
				visit(err)
			}
		}
		if h, ok := err.(*hinted); ok && strings.Contains(message, mark+h.try) { //nolint:errorlint // see above
			message = strings.Replace(message, mark+h.try, "", 1)
			tries = append(tries, h.try)
		}
	}
	visit(err)
	return message, strings.Join(tries, "; ")
}
