package chattest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
)

// modal is a view as far as backout uses it.
type modal struct {
	Type     string          `json:"type"`
	Title    *textObj        `json:"title"`
	Submit   *textObj        `json:"submit"`
	Close    *textObj        `json:"close"`
	Blocks   json.RawMessage `json:"blocks"`
	Callback string          `json:"callback_id"`
	Private  string          `json:"private_metadata"`
}

// modalBlock is a section, or an input.
type modalBlock struct {
	Type    string   `json:"type"`
	BlockID string   `json:"block_id"`
	Text    *textObj `json:"text"`
	Label   *textObj `json:"label"`
	Hint    *textObj `json:"hint"`
	Element *struct {
		Type      string   `json:"type"`
		ActionID  string   `json:"action_id"`
		Multiline bool     `json:"multiline"`
		Max       int      `json:"max_length"`
		Min       int      `json:"min_length"`
		Hold      *textObj `json:"placeholder"`
	} `json:"element"`
	Optional bool `json:"optional"`
}

// openView is views.open, which takes JSON.
func (w *Workspace) openView(r *http.Request) any {
	if r.Header.Get("Authorization") != "Bearer "+Token {
		return refusal("invalid_auth")
	}
	var in struct {
		Trigger string          `json:"trigger_id"`
		View    json.RawMessage `json:"view"`
	}
	var m modal
	var blocks []modalBlock
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		w.t.Errorf("views.open: %v", err)
		return refusal("invalid_arguments")
	}
	if err := strictly(in.View, &m); err != nil {
		w.t.Errorf("views.open: %v in %s", err, in.View)
		return refusal("invalid_arguments")
	}
	if err := strictly(m.Blocks, &blocks); err != nil {
		w.t.Errorf("views.open: %v in %s", err, m.Blocks)
		return refusal("invalid_arguments")
	}
	for _, t := range []*textObj{m.Title, m.Submit, m.Close} {
		if t == nil || t.Type != "plain_text" || t.Text == "" || size(t.Text) > 24 {
			w.t.Errorf("views.open: a title or button is %+v", t)
		}
	}
	inputs := 0
	for _, b := range blocks {
		switch {
		case b.Type == "section" && b.Text != nil && b.Text.Type == "mrkdwn" && b.Text.Verbatim && b.Text.Text != "" && size(b.Text.Text) <= 3000:
			w.checkMarkup("a view", b.Text.Text)
		case b.Type == "input" && b.BlockID != "" && b.Label != nil && b.Label.Type == "plain_text" && size(b.Label.Text) <= 2000 &&
			b.Element != nil && b.Element.Type == "plain_text_input" && b.Element.ActionID != "" && b.Element.Max <= 3000 && !b.Optional:
			inputs++
		default:
			w.t.Errorf("views.open: a block is %+v", b)
		}
	}
	if m.Type != "modal" || m.Callback == "" || size(m.Private) > 3000 || inputs != 1 || in.Trigger == "" {
		w.t.Errorf("views.open: %+v", m)
		return refusal("invalid_arguments")
	}
	if slices.ContainsFunc(w.Views, func(v View) bool { return v.Trigger == in.Trigger }) {
		return refusal("exchanged_trigger_id")
	}
	w.Views = append(w.Views, View{in.Trigger, in.View})
	return map[string]any{"ok": true, "view": map[string]string{"id": "V1"}}
}

func strictly(raw json.RawMessage, into any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

const responsePath = "/actions/T0/1/abc"

// ResponseURL is where an interaction is answered.
func (w *Workspace) ResponseURL() string { return w.URL() + responsePath }

// respond takes an answer that one person sees.
func (w *Workspace) respond(r *http.Request) any {
	var in struct {
		Type    string `json:"response_type"`
		Replace *bool  `json:"replace_original"`
		Text    string `json:"text"`
	}
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil || in.Type != "ephemeral" || in.Replace == nil || *in.Replace || in.Text == "" {
		w.t.Errorf("an answer is %+v: %v", in, err)
	}
	if r.Header.Get("Authorization") != "" {
		w.t.Error("the token goes to a response address")
	}
	w.checkMarkup("an answer", in.Text)
	w.Told = append(w.Told, in.Text)
	return map[string]bool{"ok": true}
}
