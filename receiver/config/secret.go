package config

import "fmt"

// Secret is a text that is used but never shown: printing it, or a value that contains
// it, does not reveal it.
type Secret struct{ text string }

// NewSecret wraps a text.
func NewSecret(text string) Secret { return Secret{text} }

// Reveal returns the text, to send it to its recipient.
func (s Secret) Reveal() string { return s.text }

// String implements fmt.Stringer.
func (Secret) String() string { return "(secret)" }

// Format implements fmt.Formatter: no verb prints the text.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }
