package chattest

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf16"
)

// size counts as Slack does: in UTF-16 units.
func size(s string) int { return len(utf16.Encode([]rune(s))) }

// block is one of Block Kit's, as far as backout uses it.
type block struct {
	Type     string    `json:"type"`
	BlockID  string    `json:"block_id"`
	Text     *textObj  `json:"text"`
	Elements []element `json:"elements"`
}

type textObj struct {
	Type     string `json:"type"`
	Text     string `json:"text"`
	Verbatim bool   `json:"verbatim"`
	Emoji    *bool  `json:"emoji"`
}

// element is a button, or the text of a context.
type element struct {
	Type     string          `json:"type"`
	Text     json.RawMessage `json:"text"`
	ActionID string          `json:"action_id"`
	Value    string          `json:"value"`
	Style    string          `json:"style"`
	Verbatim bool            `json:"verbatim"`
}

// checkBlocks says what Slack would not take; markup is called with each text that
// it would format.
func checkBlocks(raw string, markup func(string)) string {
	var blocks []block
	dec := json.NewDecoder(strings.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&blocks); err != nil {
		return err.Error()
	}
	if len(blocks) == 0 || len(blocks) > 50 {
		return fmt.Sprintf("%d blocks", len(blocks))
	}
	actions, total := map[string]bool{}, 0
	for _, b := range blocks {
		switch b.Type {
		case "section":
			if b.Text == nil || b.Text.Type != "mrkdwn" || b.Text.Text == "" || size(b.Text.Text) > 3000 {
				return fmt.Sprintf("a section has the text %+v", b.Text)
			}
			if !b.Text.Verbatim {
				return "Slack would look for links and names in a section by itself"
			}
			markup(b.Text.Text)
			total += size(b.Text.Text)
		case "context":
			if len(b.Elements) == 0 || len(b.Elements) > 10 {
				return "a context has no elements, or too many"
			}
			for _, e := range b.Elements {
				var text string
				if err := json.Unmarshal(e.Text, &text); err != nil || e.Type != "mrkdwn" || text == "" || size(text) > 3000 || !e.Verbatim {
					return fmt.Sprintf("a context has the element %+v", e)
				}
				markup(text)
				total += size(text)
			}
		case "actions":
			if len(b.Elements) == 0 || len(b.Elements) > 25 {
				return "a block has no actions, or too many"
			}
			for _, e := range b.Elements {
				var text textObj
				if err := json.Unmarshal(e.Text, &text); err != nil || text.Type != "plain_text" || text.Text == "" || size(text.Text) > 75 || text.Verbatim {
					return fmt.Sprintf("a button has the text %s", e.Text)
				}
				if e.Type != "button" || e.ActionID == "" || size(e.ActionID) > 255 || actions[e.ActionID] || size(e.Value) > 2000 ||
					e.Style != "" && e.Style != "primary" && e.Style != "danger" {
					return fmt.Sprintf("a button is %+v", e)
				}
				actions[e.ActionID] = true
			}
		default:
			return "a block of type " + b.Type
		}
	}
	if total > 40000 {
		return fmt.Sprintf("%d characters in all", total)
	}
	return ""
}

// Reads is a message's text as people read it, block by block.
func (m *Posted) Reads() string {
	var blocks []block
	if err := json.Unmarshal(m.Blocks, &blocks); err != nil {
		return err.Error()
	}
	var out []string
	for _, b := range blocks {
		if b.Text != nil {
			out = append(out, b.Text.Text)
		}
		for _, e := range b.Elements {
			if e.Type == "button" {
				out = append(out, fmt.Sprintf("[%s %s %s]", e.ActionID, e.Style, e.Value))
				continue
			}
			var text string
			if err := json.Unmarshal(e.Text, &text); err != nil {
				return err.Error()
			}
			out = append(out, text)
		}
	}
	return strings.Join(out, "\n")
}
