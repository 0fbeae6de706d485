package config

import "fmt"

// Secret is a text that is used and never shown: printing it, or what it is
// part of, does not tell it.
type Secret struct{ text string }

// NewSecret wraps a text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text, for whom it is meant.
func (s Secret) Reveal() string { return s.text }

// String implements fmt.Stringer.
func (Secret) String() string { return "(secret)" }

// Format implements fmt.Formatter: no verb tells the text.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }
